"""AlexMesh on the wire (L3): frames and their payloads, between bytes and records. No state, no clock.

A frame is the payload of an Ethernet frame of EtherType 0x88B5. All numbers are big-endian:

     0       1       2             8             14    15              23
    +-------+-------+-------------+-------------+-----+---------------+---------
    |version|type   |origin       |dest         |slot,|msg_id         |payload
    |u8 = 1 |u8     |6 bytes      |6 bytes      |ttl  |u64            |
    +-------+-------+-------------+-------------+-----+---------------+---------

An Ethernet destination names a card, not a program. So the octet at 14 has two fields: its high three bits are the
slot, which of the programs with that Ethernet address forwards the frame (NO_SLOT: none, it is for `dest` alone), its
low five bits the ttl, the hops that are left. Frames of v1.0, floods and HANDSHAKEs between neighbours have slot 0.
A program says its own slot in the HANDSHAKE's flags, bits 4 to 6.

An echo is a HANDSHAKE with PROBE that is routed like data, from 31 hops and with ttl0 31. The node it is for answers
with REPLY, the same token, its name and ports. Where its hops are used up, the relay answers so in that node's place:
with 0, 1, 2 ... hops at the start a path is traced.

There is no length field, and Ethernet pads short frames with zeros, so every payload says for itself where it ends:
text and STATUS cut trailing NULs, HANDSHAKE and STREAM carry a length. The payload of a HANDSHAKE (that of a v1.0
node is empty):

     0       1       2       4       5         6       8        12       16       20
    +-------+-------+-------+-------+---------+-------+--------+--------+--------+----------------------------
    |magic  |flags  |length |ttl0   |interval |mtu    |nonce   |seq     |token   |TLVs: type u8, length u16,
    |u8=0xA2|u8     |u16    |u8     |u8, 0.1 s|u16    |u32     |u32     |u32     |      value
    +-------+-------+-------+-------+---------+-------+--------+--------+--------+----------------------------
"""

import re
from collections import defaultdict
from itertools import chain, islice, starmap
from struct import Struct
from typing import Any, DefaultDict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from constants import (
    DESTINATIONS_MAX,
    ETHERNET_HEADER_BYTES,
    ETHERTYPE,
    HANDSHAKE_FIXED_BYTES,
    HANDSHAKE_MAGIC,
    MESH_HEADER_BYTES,
    MESH_VERSION,
    NAME_BYTES_MAX,
    PORTS_MAX,
    TLV_HEARD,
    TLV_NAME,
    TLV_PAD,
    TLV_PORTS,
    TLV_REQUEST,
    TLV_ROUTE,
    TTL_ROUTED,
    TYPE_HANDSHAKE,
    TYPE_STREAM,
)

_ETHERNET = Struct(">6s6sH")
_HEADER = Struct(">BB6s6sBQ")
_HANDSHAKE = Struct(">BBHBBHIII")
_TLV = Struct(">BH")
_HEARD = Struct(">6sI")
_ROUTE = Struct(">6sIHH")
_REQUEST = Struct(">6sIB")
_PORT = Struct(">H")
_SLOT_SHIFT = 5  # in the ttl octet
_SLOT_FLAGS, _SLOT_FLAGS_SHIFT = 0x70, 4  # in the flags of a HANDSHAKE


class FrameError(ValueError):
    """These bytes are no frame of ours. `reason` is one word, the key under which the drop is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# --- Ethernet -------------------------------------------------------------------------------------------------------


class Ethernet(NamedTuple):
    """An Ethernet frame; both addresses are those of stations on this segment."""

    destination: bytes
    source: bytes
    payload: bytes


def encode_ethernet(destination: bytes, source: bytes, payload: bytes) -> bytes:
    """Return a whole Ethernet frame of EtherType 0x88B5 (unpadded: the card does that)."""
    return _ETHERNET.pack(destination, source, ETHERTYPE) + payload


def decode_ethernet(frame: bytes) -> Ethernet:
    """Return the parts of an Ethernet frame; raise FrameError `short`, or `ethertype` for another protocol's."""
    if len(frame) < ETHERNET_HEADER_BYTES:
        raise FrameError("short")
    destination, source, ethertype = _ETHERNET.unpack_from(frame)
    if ethertype != ETHERTYPE:
        raise FrameError("ethertype")
    return Ethernet(destination, source, frame[ETHERNET_HEADER_BYTES:])


# --- The frame ------------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """A frame: made by `origin` for `dest` (all zero: everyone), named by `msg_id` all along its path."""

    type: int
    origin: bytes
    dest: bytes
    ttl: int
    msg_id: int
    payload: bytes
    slot: int = 0


def encode_frame(frame: Frame) -> bytes:
    """Return the 23-byte header and the payload."""
    kind, origin, dest, ttl, msg_id, payload, slot = frame
    return _HEADER.pack(MESH_VERSION, kind, origin, dest, slot << _SLOT_SHIFT | ttl, msg_id) + payload


def decode_frame(data: bytes) -> Frame:
    """Return the frame in the payload of an Ethernet frame; raise FrameError `short`, `version` or `type`.

    `Frame.payload` is everything after the header, padding included. Whether the addresses make sense is for the
    router to judge.
    """
    if len(data) < MESH_HEADER_BYTES:
        raise FrameError("short")
    version, kind, origin, dest, octet, msg_id = _HEADER.unpack_from(data)
    if version != MESH_VERSION:
        raise FrameError("version")
    if not TYPE_HANDSHAKE <= kind <= TYPE_STREAM:
        raise FrameError("type")
    slot, ttl = octet >> _SLOT_SHIFT, octet & TTL_ROUTED
    return Frame(kind, origin, dest, ttl, msg_id, data[MESH_HEADER_BYTES:], slot)


# --- MESSAGE, BROADCAST, STATUS -------------------------------------------------------------------------------------


def text_payload(text: str, limit: int) -> bytes:
    """Return the payload of a MESSAGE or BROADCAST: UTF-8 of at most `limit` bytes.

    Raise ValueError for a text that is longer, that holds a NUL (the receiver could not tell it from padding), or
    that is no Unicode. Bytes which Python could not decode from the command line are taken for UTF-8.
    """
    data = text.encode("utf-8", "surrogateescape")
    data.decode("utf-8")
    if b"\0" in data:
        raise ValueError("the text contains a NUL character")
    if len(data) > limit:
        raise ValueError(f"too long: the text has {len(data)} bytes, a frame to there has room for {limit}")
    return data


def parse_text(payload: bytes) -> bytes:
    """Return the text of a MESSAGE or BROADCAST: the payload without padding."""
    return payload.rstrip(b"\0")


def is_text(data: bytes) -> bool:
    """Return whether these bytes can be the text of a MESSAGE: v1.0 programs also send segments of streams in them."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def status_payload(msg_id: int) -> bytes:
    """Return the payload of the STATUS that acknowledges MESSAGE `msg_id`."""
    return b"ACK:%d" % msg_id


def parse_status(payload: bytes) -> Optional[int]:
    """Return the msg_id that a STATUS acknowledges, or None if it says something else."""
    match = re.fullmatch(b"ACK:([0-9]{1,20})\0*", payload)
    return int(match.group(1)) if match else None


# --- HANDSHAKE ------------------------------------------------------------------------------------------------------


class Heard(NamedTuple):
    """A neighbour that the sender hears on this interface, and which incarnation of it."""

    mac: bytes
    nonce: int


class Route(NamedTuple):
    """The sender's way to `dest`: metric 0xFFFF means none; `mtu` in bytes of frame, header included."""

    dest: bytes
    seq: int
    metric: int
    mtu: int


class Request(NamedTuple):
    """The sender asks for a route to `dest` with at least `seq`; may be passed on `hops` times."""

    dest: bytes
    seq: int
    hops: int


class Handshake(NamedTuple):
    """The payload of a HANDSHAKE. None stands for a TLV that is not there; `interval` in seconds.

    `mtu` is the largest frame (header included) that the interface takes, `pad` the bytes of padding on purpose, `slot`
    the sender's own on this interface.
    """

    flags: int
    ttl0: int
    interval: float
    mtu: int
    nonce: int
    seq: int
    token: int = 0
    heard: Optional[Tuple[Heard, ...]] = None
    routes: Tuple[Route, ...] = ()
    requests: Tuple[Request, ...] = ()
    name: Optional[str] = None
    ports: Optional[Tuple[int, ...]] = None
    pad: int = 0
    slot: int = 0


def encode_handshake(h: Handshake) -> bytes:
    """Return the payload of a HANDSHAKE; raise ValueError if it is longer than its u16 length can say."""
    tlvs = b""
    if h.heard is not None:
        tlvs += _encode_list(TLV_HEARD, starmap(_HEARD.pack, h.heard))
    if h.routes:
        tlvs += _encode_list(TLV_ROUTE, starmap(_ROUTE.pack, h.routes))
    if h.requests:
        tlvs += _encode_list(TLV_REQUEST, starmap(_REQUEST.pack, h.requests))
    if h.name is not None:
        tlvs += _encode_list(TLV_NAME, [h.name.encode("utf-8", "replace")])
    if h.ports is not None:
        tlvs += _encode_list(TLV_PORTS, map(_PORT.pack, h.ports))
    if h.pad:
        tlvs += _encode_list(TLV_PAD, [bytes(h.pad)])
    length = HANDSHAKE_FIXED_BYTES + len(tlvs)
    if length > 0xFFFF:
        raise ValueError(f"a HANDSHAKE of {length} bytes")
    tenths = round(h.interval * 10)
    flags = h.flags | h.slot << _SLOT_FLAGS_SHIFT
    fixed = _HANDSHAKE.pack(HANDSHAKE_MAGIC, flags, length, h.ttl0, tenths, h.mtu, h.nonce, h.seq, h.token)
    return fixed + tlvs


def decode_handshake(payload: bytes) -> Optional[Handshake]:
    """Return what the payload of a HANDSHAKE says, or None for that of a v1.0 node: nothing, or zeros.

    Raise FrameError `magic`, `short`, `length` or `nonce` where not even the fixed part can be used. Unknown TLVs
    are skipped, and one that crosses the end of the payload ends it. The pieces of a list are joined; of several
    names the last counts. DESTINATIONS_MAX, PORTS_MAX and NAME_BYTES_MAX limit what is taken.
    """
    if payload[:1] in (b"", b"\0"):
        return None
    if payload[0] != HANDSHAKE_MAGIC:
        raise FrameError("magic")
    if len(payload) < HANDSHAKE_FIXED_BYTES:
        raise FrameError("short")
    _, flags, length, ttl0, tenths, mtu, nonce, seq, token = _HANDSHAKE.unpack_from(payload)
    if not HANDSHAKE_FIXED_BYTES <= length <= len(payload):
        raise FrameError("length")
    if nonce == 0:
        raise FrameError("nonce")
    tlvs = _split_tlvs(payload[HANDSHAKE_FIXED_BYTES:length])
    heard = map(Heard._make, _decode_list(_HEARD, tlvs[TLV_HEARD], DESTINATIONS_MAX))
    # Metric 0 is the node itself, in its own fixed part: in a list it is a lie.
    routes = [Route(*item) for item in _decode_list(_ROUTE, tlvs[TLV_ROUTE], DESTINATIONS_MAX) if item[2] != 0]
    requests = map(Request._make, _decode_list(_REQUEST, tlvs[TLV_REQUEST], DESTINATIONS_MAX))
    ports = [port for (port,) in _decode_list(_PORT, tlvs[TLV_PORTS], PORTS_MAX)]
    name = tlvs[TLV_NAME][-1:]
    return Handshake(flags & ~_SLOT_FLAGS, ttl0, tenths / 10, mtu, nonce, seq, token)._replace(
        heard=tuple(heard) if tlvs[TLV_HEARD] else None,
        routes=tuple(routes),
        requests=tuple(requests),
        name=name[0][:NAME_BYTES_MAX].decode("utf-8", "replace") if name else None,
        ports=tuple(ports) if tlvs[TLV_PORTS] else None,
        pad=sum(map(len, tlvs[TLV_PAD])),
        slot=(flags & _SLOT_FLAGS) >> _SLOT_FLAGS_SHIFT,
    )


def _encode_list(kind: int, items: Iterable[bytes]) -> bytes:
    value = b"".join(items)
    return _TLV.pack(kind, len(value)) + value


def _split_tlvs(data: bytes) -> DefaultDict[int, List[bytes]]:
    """Return the values of each type, in order, up to the first TLV that says it is longer than what is left."""
    tlvs: DefaultDict[int, List[bytes]] = defaultdict(list)
    start = 0
    while start + _TLV.size <= len(data):
        kind, size = _TLV.unpack_from(data, start)
        start += _TLV.size + size
        if start > len(data):
            break
        tlvs[kind].append(data[start - size : start])
    return tlvs


def _decode_list(item: Struct, values: List[bytes], most: int) -> Iterator[Tuple[Any, ...]]:
    """Yield the items of all `values`, `most` at most; a rest of one that is too short for an item is ignored."""
    whole = (value[: len(value) - len(value) % item.size] for value in values)
    return islice(chain.from_iterable(map(item.iter_unpack, whole)), most)
