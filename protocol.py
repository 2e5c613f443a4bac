"""AlexMesh (L3) whole: frames on the wire, neighbours, routes, forwarding. Pure: bytes in, bytes and events out.

Time comes in as `now` (monotonic seconds), randomness as `rng`; there is no clock, thread or socket here.

THE FRAME is the payload of an Ethernet frame of EtherType 0x88B5. All numbers are big-endian:

     0       1       2             8             14    15              23
    +-------+-------+-------------+-------------+-----+---------------+---------
    |version|type   |origin       |dest         |slot,|msg_id         |payload
    |u8 = 1 |u8     |6 bytes      |6 bytes      |ttl  |u64            |
    +-------+-------+-------------+-------------+-----+---------------+---------

Types: 1 HANDSHAKE (the hello), 2 MESSAGE (text for one node, UTF-8 without NUL, answered with STATUS), 3 BROADCAST
(text for everyone), 4 STATUS (`ACK:<msg_id in decimal>`), 5 STREAM (an AlexStream segment). `dest` all zero is
everyone. `msg_id` starts at a random number and grows by one with every frame. There is no length field, and Ethernet
pads short frames with zeros, so every payload says for itself where it ends: text and STATUS cut trailing NULs,
HANDSHAKE and STREAM carry a length.

An Ethernet destination names a card, not a program. So the octet at 14 has two fields: its high three bits are the
slot, which of the programs with that Ethernet address forwards the frame (NO_SLOT: none, it is for `dest` alone), its
low five bits the ttl, the hops that are left. Frames of v1.0, floods and HANDSHAKEs between neighbours have slot 0.

THE HANDSHAKE (that of a v1.0 node is empty and arrives as zeros, so the magic tells them apart):

     0       1       2       4       5         6       8        12       16       20
    +-------+-------+-------+-------+---------+-------+--------+--------+--------+----------------------------
    |magic  |flags  |length |ttl0   |interval |mtu    |nonce   |seq     |token   |TLVs: type u8, length u16,
    |u8=0xA2|u8     |u16    |u8     |u8, 0.1 s|u16    |u32     |u32     |u32     |      value
    +-------+-------+-------+-------+---------+-------+--------+--------+--------+----------------------------

    flags  1 PROBE "answer at once", 2 REPLY, 4 FULL "the whole table is in this frame", 8 BYE; bits 4-6: own slot
    1 HEARD    n x (address 6, nonce 4): the neighbours heard on this interface, and which incarnation of each
    2 ROUTE    n x (dest 6, seq 4, metric 2, mtu 2); metric 0xFFFF is a retraction
    3 REQUEST  n x (dest 6, seq 4, hops 1): seqno request, a route at least this new, please
    4 NAME     UTF-8         5 PAD  zeros: tries what size gets through
    6 AUTH     reserved      7 PORTS  n x u16: AlexStream ports that are listened on

`ttl0` is the ttl that it was sent with: where the header's differs, a v1.0 node relayed it. `nonce` is new at every
start. `token` pairs PROBE and REPLY. An echo is a HANDSHAKE with PROBE that is routed like data, from 31 hops and with
ttl0 31; the node it is for answers, or the relay at which its hops are used up: so a path is traced.

NEIGHBOURS. Every node sends a HANDSHAKE every 5 s (a little less, at random, against synchronisation), and at once when
a newcomer is heard. A link is used when it works in both directions: when the neighbour lists this node, and this
node's current nonce, under HEARD. A v1.0 node, which has no HEARD, counts as reached when heard. Failures are found by
the traffic: data was sent and nothing came back for 75 ms: the neighbour is probed. No REPLY in 50 ms or four round
trips: suspect, used only if there is no other next hop; three misses: dead. While data flows a neighbour is probed once
a second anyhow, since what comes back may take another path. Without traffic a death takes some 6 s to be noticed.

ROUTES are a distance vector with the rules of Babel (RFC 8966). A hop costs 10, or 20 over a link that loses
HANDSHAKEs. A route is advertised on an interface only if a neighbour there needs it (split horizon).

WHY IT CANNOT LOOP, not even for a moment:

1. A node remembers the feasibility distance of X: the best (newest sequence number, then least metric) that it ever
   advertised for X (`Routes._record_advertised`).
2. It uses only next hops that advertised less than that (`Routes.is_feasible`), alternates included.
3. Along any chain of such choices the feasibility distances fall, so none comes back to where it was. If no route is
   feasible, the node asks for a newer sequence number, which X alone gives out, and which starts the comparison afresh.
4. A restarted node has lost its feasibility distances. So it forwards frames of others only if the neighbour that sent
   them lists its current nonce, and has thereby dropped all that its last incarnation advertised
   (`Forwarder.may_forward_from`).
5. The slot names the next hop exactly, though programs share a MAC (`Forwarder.is_next_hop`).

FORWARDING. A routed frame goes as Ethernet unicast from relay to relay, its ttl (31) falls by one at each. Where there
is no route it is flooded: each relay passes it on once, after 0 to 4 ms, and not where all have heard it from another;
at most 200 a second, 10 a second for frames that had a route and lost it. A relay without a route for a routed frame
sends a retraction to the neighbour that sent it. Path MTU travels with the routes; more than 1500 is used only where a
padded PROBE of that size came through. A MESSAGE is repeated after 0.1, 0.2, 0.4, 0.8, 1, 1 ... s until its STATUS
comes; the receiver shows it once and acknowledges every copy.

STRANGERS. Over all kinds of frames a node sends at most as many bytes because of strangers as it got from them (short
answers aside), from one budget (`Credit`); tables are bounded, and newcomers are admitted at a bounded rate.

Read in this order: codec, events, tables (`Interface`, `Neighbour`, `Destination`), `Local` (what the parts share),
`Neighbours`, `Routes`, `Forwarder`, `Messages`, and `Router`, which puts them together and is what `Node` drives.
"""

import itertools
import random
import re
from collections import Counter, defaultdict, deque
from enum import Enum
from heapq import heappop, heappush
from itertools import chain, islice, starmap
from struct import Struct
from typing import (
    Any,
    Callable,
    Counter as CounterType,
    DefaultDict,
    Deque,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

import constants as c
from utils import Credit, SeenSet, TokenBucket, is_unicast

INFINITY = float("inf")
FLOW_BYTES = c.ETHERNET_HEADER_BYTES + 15  # the beginning of an Ethernet frame, all before its msg_id, names its flow
PAYLOAD_OFFSET = c.ETHERNET_HEADER_BYTES + c.MESH_HEADER_BYTES
PROBE_BYTES = PAYLOAD_OFFSET + c.HANDSHAKE_FIXED_BYTES + c.TLV_BYTES + c.HEARD_BYTES
_new = tuple.__new__  # of a NamedTuple, on the fast path: 0.2 us instead of 0.35

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
    return _ETHERNET.pack(destination, source, c.ETHERTYPE) + payload


def decode_ethernet(frame: bytes) -> Ethernet:
    """Return the parts of an Ethernet frame; raise FrameError `short`, or `ethertype` for another protocol's."""
    if len(frame) < c.ETHERNET_HEADER_BYTES:
        raise FrameError("short")
    destination, source, ethertype = _ETHERNET.unpack_from(frame)
    if ethertype != c.ETHERTYPE:
        raise FrameError("ethertype")
    return Ethernet(destination, source, frame[c.ETHERNET_HEADER_BYTES :])


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
    return _HEADER.pack(c.MESH_VERSION, kind, origin, dest, slot << _SLOT_SHIFT | ttl, msg_id) + payload


def decode_frame(data: bytes) -> Frame:
    """Return the frame in the payload of an Ethernet frame; raise FrameError `short`, `version` or `type`.

    `Frame.payload` is everything after the header, padding included. Whether the addresses make sense is for the
    router to judge.
    """
    if len(data) < c.MESH_HEADER_BYTES:
        raise FrameError("short")
    version, kind, origin, dest, octet, msg_id = _HEADER.unpack_from(data)
    if version != c.MESH_VERSION:
        raise FrameError("version")
    if not c.TYPE_HANDSHAKE <= kind <= c.TYPE_STREAM:
        raise FrameError("type")
    slot, ttl = octet >> _SLOT_SHIFT, octet & c.TTL_ROUTED
    return Frame(kind, origin, dest, ttl, msg_id, data[c.MESH_HEADER_BYTES :], slot)


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
    """The sender's route to `dest`: metric 0xFFFF means none; `mtu` in bytes of frame, header included."""

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
        tlvs += _encode_list(c.TLV_HEARD, starmap(_HEARD.pack, h.heard))
    if h.routes:
        tlvs += _encode_list(c.TLV_ROUTE, starmap(_ROUTE.pack, h.routes))
    if h.requests:
        tlvs += _encode_list(c.TLV_REQUEST, starmap(_REQUEST.pack, h.requests))
    if h.name is not None:
        tlvs += _encode_list(c.TLV_NAME, [h.name.encode("utf-8", "replace")])
    if h.ports is not None:
        tlvs += _encode_list(c.TLV_PORTS, map(_PORT.pack, h.ports))
    if h.pad:
        tlvs += _encode_list(c.TLV_PAD, [bytes(h.pad)])
    length = c.HANDSHAKE_FIXED_BYTES + len(tlvs)
    if length > 0xFFFF:
        raise ValueError(f"a HANDSHAKE of {length} bytes")
    tenths = round(h.interval * 10)
    flags = h.flags | h.slot << _SLOT_FLAGS_SHIFT
    fixed = _HANDSHAKE.pack(c.HANDSHAKE_MAGIC, flags, length, h.ttl0, tenths, h.mtu, h.nonce, h.seq, h.token)
    return fixed + tlvs


def decode_handshake(payload: bytes) -> Optional[Handshake]:
    """Return what the payload of a HANDSHAKE says, or None for that of a v1.0 node: nothing, or zeros.

    Raise FrameError `magic`, `short`, `length` or `nonce` where not even the fixed part can be used. Unknown TLVs
    are skipped, and one that crosses the end of the payload ends it. The pieces of a list are joined; of several
    names the last counts. DESTINATIONS_MAX, PORTS_MAX and NAME_BYTES_MAX limit what is taken.
    """
    if payload[:1] in (b"", b"\0"):
        return None
    if payload[0] != c.HANDSHAKE_MAGIC:
        raise FrameError("magic")
    if len(payload) < c.HANDSHAKE_FIXED_BYTES:
        raise FrameError("short")
    _, flags, length, ttl0, tenths, mtu, nonce, seq, token = _HANDSHAKE.unpack_from(payload)
    if not c.HANDSHAKE_FIXED_BYTES <= length <= len(payload):
        raise FrameError("length")
    if nonce == 0:
        raise FrameError("nonce")
    tlvs = _split_tlvs(payload[c.HANDSHAKE_FIXED_BYTES : length])
    heard = map(Heard._make, _decode_list(_HEARD, tlvs[c.TLV_HEARD], c.DESTINATIONS_MAX))
    # Metric 0 is the node itself, in its own fixed part: in a list it is a lie.
    routes = [Route(*item) for item in _decode_list(_ROUTE, tlvs[c.TLV_ROUTE], c.DESTINATIONS_MAX) if item[2] != 0]
    requests = map(Request._make, _decode_list(_REQUEST, tlvs[c.TLV_REQUEST], c.DESTINATIONS_MAX))
    ports = [port for (port,) in _decode_list(_PORT, tlvs[c.TLV_PORTS], c.PORTS_MAX)]
    name = tlvs[c.TLV_NAME][-1:]
    return Handshake(flags & ~_SLOT_FLAGS, ttl0, tenths / 10, mtu, nonce, seq, token)._replace(
        heard=tuple(heard) if tlvs[c.TLV_HEARD] else None,
        routes=tuple(routes),
        requests=tuple(requests),
        name=name[0][: c.NAME_BYTES_MAX].decode("utf-8", "replace") if name else None,
        ports=tuple(ports) if tlvs[c.TLV_PORTS] else None,
        pad=sum(map(len, tlvs[c.TLV_PAD])),
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


# --- What goes in and out -------------------------------------------------------------------------------------------


class InterfaceConfig(NamedTuple):
    """One Ethernet interface. `mtu`: largest Ethernet payload; `loopback`: every node on it hears every frame.

    `slot`: which of the programs with this MAC the node is, 0 to 6, NO_SLOT if all are taken, None if it is not known.
    """

    name: str
    mac: bytes
    mtu: int
    loopback: bool
    slot: Optional[int] = 0


class Transmit(NamedTuple):
    """A whole Ethernet frame to be sent on the interface of that index."""

    interface: int
    frame: bytes


class Incoming(NamedTuple):
    """A STREAM payload for this node, perhaps with Ethernet padding at its end."""

    origin: bytes
    payload: bytes


class NodeFound(NamedTuple):
    """There is a route to a node. `hops`: 1 for a neighbour; `mtu`: of the path; `name`: empty if not known yet."""

    address: bytes
    hops: int
    mtu: int
    name: str


class NodeLost(NamedTuple):
    """There has been no route for LOST_GRACE (`reason` "unreachable"), or the node said goodbye ("left")."""

    address: bytes
    reason: str


class MessageReceived(NamedTuple):
    """A text for this node (acknowledged already) or, where `dest` is EVERYONE, for all; once per msg_id."""

    origin: bytes
    dest: bytes
    msg_id: int
    data: bytes


class Delivered(NamedTuple):
    """The peer acknowledged a MESSAGE; `rtt` seconds after it was first sent."""

    msg_id: int
    peer: bytes
    rtt: float


class Undelivered(NamedTuple):
    """No STATUS came before the message's timeout."""

    msg_id: int
    peer: bytes


class Echoed(NamedTuple):
    """The answer to `echo`; `name` and `ports` are empty from a v1.0 node."""

    token: int
    address: bytes
    hops: int
    rtt: float
    name: str
    ports: Tuple[int, ...]


class StrangeNode(NamedTuple):
    """A v1.0 program with which nothing is possible; reported once. `speaks`: "streams", or "group" for its address."""

    address: bytes
    speaks: str


class DuplicateAddress(NamedTuple):
    """Another node, at that Ethernet address, uses this node's id."""

    mac: bytes


class PathChanged(NamedTuple):
    """A peer that was sent data has another next hop or path MTU now, or is reachable again."""

    peer: bytes
    mtu: int


class RouteChanged(NamedTuple):
    """The selected route to a node is another one; only if `tells_changes` is set. `next_hop`: id of the neighbour."""

    address: bytes
    interface: int
    next_hop: bytes
    hops: int
    mtu: int


MeshEvent = Union[
    NodeFound,
    NodeLost,
    MessageReceived,
    Delivered,
    Undelivered,
    Echoed,
    DuplicateAddress,
    StrangeNode,
    PathChanged,
    RouteChanged,
]


class NodeInfo(NamedTuple):
    """A reachable node. `next_hop`: id of the neighbour; `rtt`: seconds or None; `last_heard`: of or about it."""

    address: bytes
    interface: int
    next_hop: bytes
    hops: int
    mtu: int
    name: str
    ports: Tuple[int, ...]
    rtt: Optional[float]
    last_heard: float


# --- State ----------------------------------------------------------------------------------------------------------


class LinkState(Enum):
    """What is known of a link, both directions. LINK_MOVES has the legal moves."""

    HEARD = "heard"  # it may not hear us
    UP = "up"
    PROBING = "probing"
    SUSPECT = "suspect"  # missed a probe: used only where nothing else is
    DEAD = "dead"  # until it answers


HEARD, UP, PROBING, SUSPECT, DEAD = LinkState
LINK_MOVES: Dict[LinkState, FrozenSet[LinkState]] = {
    HEARD: frozenset((UP,)),
    UP: frozenset((PROBING, SUSPECT, HEARD)),  # SUSPECT at once: it said BYE
    PROBING: frozenset((UP, SUSPECT, HEARD)),
    SUSPECT: frozenset((UP, DEAD, HEARD)),
    DEAD: frozenset((UP, HEARD)),
}
USABLE = frozenset((UP, PROBING, SUSPECT))


class Advert(NamedTuple):
    """What a neighbour said last about a destination, and when."""

    seq: int
    metric: int
    mtu: int
    time: float


class Path(NamedTuple):
    """The selected route to a destination; `metric` and `mtu` include the first hop."""

    neighbour: "Neighbour"
    seq: int
    metric: int
    mtu: int


class Interface:
    """One interface, the neighbours heard there, and what was advertised there."""

    def __init__(self, index: int, config: InterfaceConfig) -> None:
        self.index = index
        self.mac = config.mac
        self.mtu = min(config.mtu, 0xFFFF)
        self.loopback = config.loopback
        self.slot = c.NO_SLOT if config.loopback or config.slot is None else config.slot
        self.relays = self.slot != c.NO_SLOT  # whether what arrives here for others is forwarded
        self.neighbours: Dict[bytes, Neighbour] = {}
        self.senders: Dict[bytes, Tuple[Neighbour, ...]] = {}  # by Ethernet source
        self.flows: Dict[bytes, Flow] = {}
        self.advertised: Dict[bytes, Route] = {}  # last, finite routes only
        # Sets of neighbours of this interface are integers, a bit each: 512 of them are compared in 50 ns
        self.used_bits = 0
        self.listening = 0  # those to which the link is up: they use our routes
        self.recent = 0  # those heard for the first time less than MEET_SECONDS ago
        self.listed: Dict[Heard, Neighbour] = {}  # who is listed so in HEARD
        self.requests: Dict[bytes, Request] = {}  # to be sent
        self.recompute_all = False  # compare every destination with `advertised`: a neighbour came, went, hears others
        self.resend_all = False  # advertise everything again: a new neighbour
        self.seqno_changed = False  # advertise the new sequence number of this node
        self.hello_pending = False  # a HANDSHAKE is due
        self.next_hello_at = INFINITY
        self.last_hello_at = -INFINITY
        self.hello_count = 0
        self.hello_bytes = 0  # of the last HANDSHAKE to everyone
        self.full_hellos_left = c.FULL_HELLOS  # so many of the next HANDSHAKEs carry HEARD, NAME and PORTS
        self.cursor = 0  # where the next HANDSHAKE continues in a table too long for one
        self.same_lan_as = self  # the lower interface on the same segment, until `same_lan_until`
        self.same_lan_until = -INFINITY

    def set_heard_entries(self, n: "Neighbour", entries: Tuple[Heard, ...]) -> None:
        """Note how a neighbour is listed in HEARD now, and which others list it."""
        for entry in n.heard_entries:
            self.listed.pop(entry, None)
        n.heard_entries = entries
        self.listed.update(dict.fromkeys(entries, n))
        for other in self.neighbours.values():
            other.note_hearing(n)

    def set_heard(self, n: "Neighbour", heard: FrozenSet[Heard]) -> None:
        """Note which nodes a neighbour lists in HEARD now."""
        changed = heard ^ n.heard
        n.heard = heard
        n.macs = frozenset(entry.mac for entry in heard)
        for other in {self.listed[entry] for entry in changed if entry in self.listed}:
            n.note_hearing(other)

    def drop_from_sets(self, n: "Neighbour") -> None:
        """Remove a neighbour from all sets."""
        rest = ~n.bit
        for other in self.neighbours.values():
            other.hears_bits &= rest
            other.heard_bits &= rest
        self.used_bits &= rest
        self.listening &= rest
        self.recent &= rest

    def primary(self, now: float) -> "Interface":
        """Return the lowest interface on the same LAN: floods are sent only there."""
        return self.same_lan_as if now < self.same_lan_until else self

    def covered(self, source: bytes, now: float, *, v1: bool) -> bool:
        """Return whether all neighbours here hear the Ethernet address `source`; v1.0 nodes count only if `v1`."""
        return all(n.hears(source, now) for n in self.neighbours.values() if n.usable and (v1 or not n.v1))


class Source(NamedTuple):
    """When a neighbour was last heard with an Ethernet address, and the slot that it has there."""

    heard_at: float
    slot: int


class Neighbour:
    """A node heard directly on one interface, and the state of the link to it."""

    def __init__(self, interface: Interface, address: bytes, mac: bytes, now: float) -> None:
        self.interface = interface
        self.bit = ~interface.used_bits & (interface.used_bits + 1)  # the lowest that is free
        interface.used_bits |= self.bit
        self.hears_bits = 0  # those that it lists
        self.heard_bits = 0  # those that list it
        self.heard_entries: Tuple[Heard, ...] = ()  # how it is listed in HEARD
        self.address = address
        self.mac = mac
        self.sources: Dict[bytes, Source] = {}  # by Ethernet address: two, if two of its interfaces are here
        self.state = HEARD
        self.usable = False
        self.listed_at = -INFINITY
        self.offered = 0  # the MTU it advertises
        self.mtu = c.ETHERNET_MTU  # what has been seen to reach it
        self.interval = c.HANDSHAKE_INTERVAL
        self.last_heard = now
        self.probe_at = INFINITY
        self.expires = INFINITY
        self.sent = -INFINITY  # about when data last went out
        self.confirm_at = -INFINITY  # when flowing data wants the next PROBE
        self.misses = 0
        self.probe_deadline = now + c.ASK_FIRST  # end of the probe's time, or next question to one that is not up
        self.backoff = c.ASK_FIRST
        self.srtt = 0.0
        self.adverts = 0  # how many destinations it advertises
        self.grows_at = INFINITY  # larger frames are tried when it answers a small one after that
        self.repeats_later = False  # all routes are advertised to it once it has answered
        self.is_introduced = False  # its address may be advertised
        self.replies = TokenBucket(c.REPLIES_PER_SECOND, c.REPLIES_PER_SECOND)
        self.deadline = INFINITY  # of the timer in the heap
        self.restart(-1, now)

    def restart(self, nonce: int, now: float) -> None:
        """Begin another incarnation: what was learned from the last one does not hold. `nonce` 0: a v1.0 node's."""
        self.nonce = nonce
        self.v1 = nonce == 0
        self.met = now
        self.heard: FrozenSet[Heard] = frozenset()  # the nodes that it lists
        self.macs: FrozenSet[bytes] = frozenset()
        self.overheard: Dict[bytes, float] = {}  # a v1.0 node has no HEARD, but relays HANDSHAKEs
        self.seq = 0  # that was asked for of a v1.0 node, which has none
        self.last_hello_at = -INFINITY  # last periodic HANDSHAKE
        self.history = 0  # of the last eight: 1 missed
        self.cost = c.HOP_COST
        self.leaving = False
        self.unanswered_since = 0.0  # when data went out that nothing came back for, else 0
        self.probes: Dict[int, float] = {}  # token -> when sent
        self.big_token = 0  # of the padded PROBE

    @property
    def slot(self) -> int:
        """The slot that it has at its Ethernet address."""
        return self.sources[self.mac].slot

    def slot_for(self, dest: bytes) -> int:
        """Return the slot for a routed frame whose next hop it is: NO_SLOT if the frame goes no further."""
        if self.v1:
            return 0
        return c.NO_SLOT if dest == self.address else self.slot

    def note_hearing(self, other: "Neighbour") -> None:
        """Note whether it lists another neighbour on its interface."""
        if self.heard.isdisjoint(other.heard_entries):
            self.hears_bits &= ~other.bit
            other.heard_bits &= ~self.bit
        else:
            self.hears_bits |= other.bit
            other.heard_bits |= self.bit

    @property
    def linked_bits(self) -> int:
        """The neighbours on its interface with which it hears each other: see `links`."""
        linked = self.heard_bits if self.v1 else self.hears_bits & self.heard_bits
        return -1 if self.bit & self.interface.recent else linked | self.bit | self.interface.recent

    def links(self, other: "Neighbour", now: float) -> bool:
        """Return whether this neighbour and another one on the same interface hear each other.

        By what they list; a neighbour that came a moment ago had no time to list others.
        """
        if now < max(self.met, other.met) + c.MEET_SECONDS:
            return True
        heard = not other.heard.isdisjoint(self.heard_entries)
        return heard and (self.v1 or not self.heard.isdisjoint(other.heard_entries))

    def hears(self, mac: bytes, now: float) -> bool:
        """Return whether it hears an Ethernet address, or has it."""
        overheard = self.overheard.get(mac, -INFINITY)
        return mac in self.macs or mac in self.sources or now - overheard < c.HOLD_INTERVALS * c.HANDSHAKE_INTERVAL


class Destination:
    """A node in the routing table: what each neighbour advertises, the selected route, the feasibility distance."""

    __slots__ = (
        "address", "adverts", "best", "feasibility_distance", "found", "left_at", "naks", "name", "next_request_at",
        "passed_at", "passed_seq", "passes", "ports", "requested_at", "requests_sent", "rtt", "touched", "used",
    )  # fmt: skip

    def __init__(self, address: bytes, now: float) -> None:
        self.address = address
        self.adverts: Dict[Neighbour, Advert] = {}
        self.feasibility_distance: Optional[Tuple[int, int]] = None  # lowest (-seq, metric) ever advertised
        self.best: Optional[Path] = None
        self.used = -INFINITY  # when data last went there
        self.requested_at = -INFINITY  # when a newer sequence number was last asked for
        self.requests_sent = 0
        self.next_request_at = 0.0
        self.passed_seq = 0  # of the last REQUEST that was forwarded, and when
        self.passed_at = -INFINITY
        self.passes = TokenBucket(c.REQUESTS_PER_SECOND, c.REQUESTS_PER_SECOND)
        self.touched = now  # when a neighbour last withdrew its route
        self.found = False
        self.left_at = -INFINITY  # when it said BYE
        self.naks = TokenBucket(c.NAKS_PER_SECOND, c.NAKS_PER_SECOND)
        self.name = ""
        self.ports: Tuple[int, ...] = ()
        self.rtt: Optional[float] = None

    @property
    def newest_seq(self) -> int:
        """The newest sequence number ever advertised, or 0."""
        return -self.feasibility_distance[0] if self.feasibility_distance is not None else 0

    def left(self, now: float) -> bool:
        """Return whether the node said BYE lately."""
        return now - self.left_at < c.BYE_QUIET

    def in_use(self, now: float) -> bool:
        """Return whether data was sent there lately."""
        return now - self.used < c.IN_USE_SECONDS


class Flow:
    """An entry of the fast path: what to do with STREAM frames that begin with the same FLOW_BYTES.

    `neighbour` is proved alive by such a frame; `out` is the next hop if it goes on, `head` its new beginning.
    """

    __slots__ = ("destination", "head", "index", "limit", "neighbour", "origin", "out", "reason")

    def __init__(self, origin: bytes, neighbour: Neighbour, reason: str = "") -> None:
        self.origin = origin
        self.neighbour = neighbour
        self.reason = reason  # why it is dropped
        self.out: Optional[Neighbour] = None
        self.destination: Optional[Destination] = None
        self.head = b""
        self.index = 0
        self.limit = 0


class Message(NamedTuple):
    """A MESSAGE that waits for its STATUS."""

    frame: Frame
    sent: float
    deadline: float


class Relay(NamedTuple):
    """A flooded frame that waits for its turn on `interfaces` (by index)."""

    frame: Frame
    interfaces: Set[int]


class Echo(NamedTuple):
    """An `echo` that waits for its answer; from any relay if its `ttl` does not reach `dest` for sure."""

    dest: bytes
    sent: float
    ttl: int


class Timer(NamedTuple):
    """`action(*arguments, now)` at `when`. `serial` keeps equal times in order."""

    when: float
    serial: int
    action: Callable[..., None]
    arguments: Tuple[Any, ...]


# --- What the parts of a router share ------------------------------------------------------------------------------


class Local:
    """This node: its address and interfaces, its numbers, its timers, and what goes out."""

    def __init__(
        self,
        address: bytes,
        configs: Sequence[InterfaceConfig],
        *,
        rng: random.Random,
        now: float,
        seq: int,
        name: str,
        ports: Iterable[int],
    ) -> None:
        self.address = address
        self.drops: CounterType[str] = Counter()
        self.events: Deque[MeshEvent] = deque(maxlen=2 * c.DESTINATIONS_MAX)  # for `next_event`
        self.rng = rng
        self.name = name
        self.ports = tuple(ports)
        self.seq = seq if 1 <= seq < c.SEQ_MAX - 2 * c.SEQ_JUMP_MAX else 1  # a clock in the next century is none
        self.epoch = self.seq - now  # Unix time where `now` is 0
        self.nonce = self.token()
        self.msg_id = self.first_msg_id = rng.getrandbits(63)
        self.interfaces = [Interface(index, config) for index, config in enumerate(configs)]
        self.up = list(self.interfaces)
        self.answers = TokenBucket(c.ANSWERS_PER_SECOND, c.ANSWERS_PER_SECOND)
        self.credit = Credit(c.CREDIT_BYTES, c.CREDIT_PER_SECOND, least=c.CREDIT_MIN, most=c.CREDIT_MAX)
        self.has_left = False
        self.timers: List[Timer] = []
        self._serials = itertools.count()
        self.out: List[Transmit] = []

    def token(self) -> int:
        """Return a random number that is not 0."""
        return self.rng.getrandbits(32) or 1

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action(*arguments, now)` at `when`."""
        heappush(self.timers, Timer(when, next(self._serials), action, arguments))

    def new_frame(self, kind: int, dest: bytes, payload: bytes) -> Frame:
        """Return a frame of our own, with the next msg_id."""
        self.msg_id += 1
        return Frame(kind, self.address, dest, c.TTL_ROUTED, self.msg_id, payload)

    def send(self, interface: Interface, mac: bytes, frame: Frame) -> None:
        """Send a frame to an Ethernet address."""
        self.out.append(Transmit(interface.index, encode_ethernet(mac, interface.mac, encode_frame(frame))))

    def new_handshake(self, interface: Interface, flags: int, ttl0: int, token: int = 0) -> Handshake:
        """Return a HANDSHAKE of this node without TLVs."""
        return Handshake(
            flags, ttl0, c.HANDSHAKE_INTERVAL, interface.mtu, self.nonce, self.seq, token, slot=interface.slot
        )

    def send_handshake(self, interface: Interface, mac: bytes, dest: bytes, handshake: Handshake) -> None:
        """Send a HANDSHAKE to an Ethernet address; `dest`: whom it is for."""
        frame = self.new_frame(c.TYPE_HANDSHAKE, dest, encode_handshake(handshake))
        self.send(interface, mac, frame._replace(ttl=handshake.ttl0))

    def echo_payload(self, flags: int, token: int, *, is_short: bool = False) -> bytes:
        """Return the payload of a HANDSHAKE that is routed like data; a short answer has neither name nor ports."""
        handshake = self.new_handshake(self.interfaces[0], flags, c.TTL_ROUTED, token)._replace(slot=0)
        if flags & c.FLAG_REPLY and not is_short:
            handshake = handshake._replace(name=self.name, ports=self.ports)
        return encode_handshake(handshake)


class Part:
    """One of the parts of a router, which finds the others here."""

    local: Local
    neighbours: "Neighbours"
    routes: "Routes"
    forwarder: "Forwarder"
    messages: "Messages"

    def join(self, router: "Router") -> None:
        """Learn who the others are."""
        self.local = router.local
        self.neighbours, self.routes = router.neighbours, router.routes
        self.forwarder, self.messages = router.forwarder, router.messages


# --- Neighbours -----------------------------------------------------------------------------------------------------


class Neighbours(Part):
    """Who is heard on each interface: HANDSHAKEs in and out, the state of each link, probes."""

    def __init__(self, local: Local, *, now: float) -> None:
        self.local = local
        self.indirect_nodes: Dict[bytes, NodeInfo] = {}  # known only by what v1.0 nodes relayed
        self._unknown_sender = Neighbour(local.interfaces[0], c.EVERYONE, c.EVERYONE, now)
        self.asked_at: Dict[bytes, float] = {}  # when a directed HANDSHAKE last went to a node
        # Newcomers that list us have heard us: they do not wait behind thousands that were only invented.
        self.newcomers = [TokenBucket(c.NEWCOMERS_PER_SECOND, c.NEWCOMERS_AT_ONCE) for _ in (False, True)]
        self.announced = (0, -INFINITY)  # token, time

    def all(self) -> List[Neighbour]:
        """Return the state of the link to each neighbour, to be looked at only."""
        return [n for interface in self.local.interfaces for n in interface.neighbours.values()]

    # HANDSHAKEs in

    def process_hello(
        self, interface: Interface, source: bytes, origin: bytes, h: Handshake, directed: bool, now: float
    ) -> None:
        """Process a HANDSHAKE straight from a node on this LAN."""
        knows_us = h.heard is not None and Heard(interface.mac, self.local.nonce) in h.heard
        n = interface.neighbours.get(origin) or self.add(interface, source, origin, now, knows_us=knows_us)
        if n.nonce != h.nonce:
            self.flush_node(origin, h.nonce, now)
        if n.leaving:
            return
        self._note_source(n, source, h.slot, now)
        if h.flags & c.FLAG_BYE:
            self._on_bye(n, now)
            return
        if (
            source == interface.mac
            and h.slot == interface.slot != c.NO_SLOT
            and (h.seq, origin) < (self.local.seq, self.local.address)
        ):
            self.choose_slot(interface, now)  # the other program has run for longer
        self._update(n, h, now)
        self._process_heard(n, h.heard, directed, now)
        self.routes.process_routes(n, h, now)
        self.routes.process_requests(n, h.requests, now)
        if h.flags & c.FLAG_REPLY:
            self._on_reply(n, h.token, now)
        elif h.flags & c.FLAG_PROBE and n.replies.take(now=now):
            self.send_hello_to(n, c.FLAG_REPLY, h.token)
            self.local.credit.owe(0 if n.srtt else PROBE_BYTES)
        if n.state is DEAD and n.probe_deadline > now and n.replies.take(now=now):
            self.send_probe(n, now)  # it is there, so ask again now
        self.set_timer(n)

    def process_v1_hello(self, interface: Interface, source: bytes, frame: Frame, directed: bool, now: float) -> None:
        """Process an empty HANDSHAKE. With a full ttl it comes straight from a v1.0 node on this LAN."""
        origin = frame.origin
        if frame.ttl == c.TTL_V1:
            n = interface.neighbours.get(origin) or self.add(interface, source, origin, now)
            if not n.v1:
                self.flush_node(origin, 0, now)
            self._note_source(n, source, c.NO_SLOT, now)
            self._update(n, None, now)
            if n.state is HEARD:
                self._move(n, UP, now)
            elif directed:
                self._on_reply(n, next(iter(n.probes), 0), now)
            self.routes.update_route(
                n, Route(origin, max(n.seq, int(self.local.epoch + now) // c.V1_SEQ_SECONDS, 1), 0, n.mtu), now
            )
            self.set_timer(n)
        else:
            self.note_indirect(interface, source, origin, c.TTL_V1 - frame.ttl + 1, now)
        if not directed:
            self.forwarder.receive_flood(interface, source, frame, now)
            return
        for token, echo in list(self.messages.echoes.items()):
            if echo.dest == origin:
                del self.messages.echoes[token]
                hops = max(c.TTL_V1 - frame.ttl, 0) + 1
                self.local.events.append(Echoed(token, origin, hops, now - echo.sent, "", ()))
        payload = self.local.echo_payload(c.FLAG_REPLY, 0, is_short=True)
        is_asked = now - self.asked_at.get(origin, -INFINITY) < c.ASK_QUIET  # else two answerers might never end
        if (
            not is_asked
            and self.local.credit.afford(PAYLOAD_OFFSET + len(payload), now=now)
            and self.local.answers.take(now=now)
        ):
            self.note_asked(origin, now)
            self.forwarder.answer(interface, source, self.local.new_frame(c.TYPE_HANDSHAKE, origin, payload), now)

    def note_indirect(self, interface: Interface, source: bytes, origin: bytes, hops: int, now: float) -> None:
        """Note a node whose HANDSHAKE a v1.0 node relayed: it exists, and floods may reach it."""
        neighbour = interface.neighbours.get(origin)
        if neighbour is not None and hops == 2:
            for n in interface.senders.get(source, ()):
                n.overheard.update(dict.fromkeys(neighbour.sources, now))
        elif origin in self.indirect_nodes or len(self.indirect_nodes) < c.DESTINATIONS_MAX:
            hop = self.sender_of(interface, source, origin).address
            rumour = NodeInfo(origin, interface.index, hop, max(hops, 1), c.ETHERNET_MTU, "", (), None, now)
            self.indirect_nodes[origin] = rumour

    def add(
        self, interface: Interface, source: bytes, origin: bytes, now: float, *, knows_us: bool = False
    ) -> Neighbour:
        """Add a neighbour, if need be in place of one that is not up or a v1.0 node."""
        if not (self.newcomers[knows_us].take(now=now) and self.local.credit.afford(c.NEWCOMER_BYTES, now=now)):
            raise FrameError("newcomers")
        if len(interface.neighbours) >= c.NEIGHBOURS_MAX:
            oldest = min(interface.neighbours.values(), key=lambda n: (n.usable and not n.v1, n.usable, n.last_heard))
            if oldest.usable and not oldest.v1:
                raise FrameError("neighbours")
            self.remove(oldest, now)
        n = interface.neighbours[origin] = Neighbour(interface, origin, source, now)
        self.forwarder.clear_caches()
        return n

    def note_asked(self, address: bytes, now: float) -> None:
        """Note that a directed HANDSHAKE goes to a node."""
        if len(self.asked_at) >= c.DESTINATIONS_MAX:
            self.asked_at.clear()
        self.asked_at[address] = now

    def _update(self, n: Neighbour, h: Optional[Handshake], now: float) -> None:
        """Update the neighbour from its HANDSHAKE; None: a v1.0 node's."""
        n.last_heard = now
        n.interval = h.interval if h is not None and h.interval else c.HANDSHAKE_INTERVAL
        n.probe_at = now + n.interval * self.local.rng.uniform(*c.OVERDUE_INTERVALS)
        n.expires = now + n.interval * c.HOLD_INTERVALS
        if h is None or h.ttl0 == c.TTL_V1:
            self._count_missed(n, now)
        offered = c.ETHERNET_MTU if h is None else max(h.mtu, c.MESH_MTU_MIN)
        if offered != n.offered:
            n.offered = offered
            n.mtu = min(offered, n.interface.mtu if n.interface.loopback else c.ETHERNET_MTU)
            self.routes.reselect_via(n, now)
            self.probe_mtu(n, now)
        d = self.routes.table.get(n.address)
        if h is not None and d is not None:
            d.name = d.name if h.name is None else h.name
            d.ports = d.ports if h.ports is None else h.ports

    def _count_missed(self, n: Neighbour, now: float) -> None:
        """Count the periodic HANDSHAKEs that should have come since the last one; a lossy link costs more."""
        missed = min(8, max(0, int((now - n.last_hello_at) / n.interval - 0.1))) if n.last_hello_at > -INFINITY else 0
        n.last_hello_at = now
        n.history = (n.history << missed | (1 << missed) - 1) << 1 & 0xFF
        cost = c.LOSSY_COST if bin(n.history).count("1") >= c.LOSSY_MISSES else c.HOP_COST
        if cost != n.cost:
            n.cost = cost
            self.routes.reselect_via(n, now)

    def _process_heard(self, n: Neighbour, heard: Optional[Tuple[Heard, ...]], directed: bool, now: float) -> None:
        """Process HEARD: the link is usable once our current nonce is listed."""
        if heard is None:
            return
        interface = n.interface
        us = Heard(interface.mac, self.local.nonce)
        listed = frozenset(heard)
        if directed:
            listed = n.heard | listed & {us}  # no list of all
        elif now - n.listed_at < c.HEARD_GATHER and len(n.heard) < c.NEIGHBOURS_MAX:
            listed |= n.heard  # the second frame of a long list
        else:
            n.listed_at = now
        if listed != n.heard:
            interface.set_heard(n, listed)
            interface.recompute_all = True
            self.routes.schedule_updates(self.local.rng.uniform(*c.UPDATE_DELAY), now)
        if us in listed and n.state is HEARD:
            self._move(n, UP, now)
        elif us not in listed and n.usable:
            self._move(n, HEARD, now)

    def _on_bye(self, n: Neighbour, now: float) -> None:
        """Process BYE. The node still forwards for a moment, so its routes are the last choice until then."""
        d = self.routes.table.get(n.address)
        if d is not None:
            d.left_at = now
        for interface in self.local.interfaces:
            m = interface.neighbours.get(n.address)
            if m is None or m.leaving:
                continue
            if m.state is HEARD and len(interface.senders[m.mac]) > 1:  # it must not hold up the others on its card
                self.remove(m, now)
                continue
            m.leaving = True
            m.probe_deadline = INFINITY
            m.expires = now + c.BYE_GRACE
            if m.state in (UP, PROBING):
                self._move(m, SUSPECT, now)
            self.routes.withdraw_route(m, n.address, now)
            self.set_timer(m)

    # Ethernet addresses and slots

    def sender_of(self, interface: Interface, source: bytes, origin: bytes) -> Neighbour:
        """Return the neighbour that sent a frame, as far as its MAC says."""
        senders = interface.senders.get(source, ())
        if len(senders) == 1 and not interface.loopback:
            return senders[0]
        return next((n for n in senders if n.address == origin), self._unknown_sender)

    def _note_source(self, n: Neighbour, source: bytes, slot: int, now: float) -> None:
        """Note the Ethernet address that the neighbour sent with, and its slot there."""
        known = n.sources.get(source)
        n.sources[source] = Source(now, slot)
        if known is None:
            n.interface.senders[source] = (*n.interface.senders.get(source, ()), n)
            n.interface.set_heard_entries(n, tuple(Heard(mac, n.nonce) for mac in n.sources))
            self._schedule_hello_for(n, now)
        self._switch_mac(n, source, now)
        if known is None or known.slot != slot:
            self._take_slot(n, source, slot, now)
            self.forwarder.clear_caches()
            self.routes.reselect_via(n, now)

    def _switch_mac(self, n: Neighbour, source: bytes, now: float) -> None:
        """Send to another Ethernet address of the neighbour from now on if the one used so far is silent."""
        if source != n.mac and (not n.usable or now - n.sources[n.mac].heard_at > n.interval * c.OVERDUE_INTERVALS[1]):
            self._drop_source(n, n.mac)
            n.mac = source
        elif len(n.sources) > c.SOURCES_MAX:
            self._drop_source(n, next(mac for mac in n.sources if mac not in (n.mac, source)))

    def _take_slot(self, n: Neighbour, source: bytes, slot: int, now: float) -> None:
        """Remove the neighbour that had this slot at this Ethernet address before: its program has ended."""
        for other in n.interface.senders[source]:
            if other is not n and other.sources[source].slot == slot != c.NO_SLOT:
                self.remove(other, now)

    def choose_slot(self, interface: Interface, now: float) -> None:
        """Take the lowest slot that no other program with this MAC has; for where there are no lock files.

        Neighbours may still send to a dead program that had it. So this is another incarnation: nothing is forwarded
        for a neighbour before it lists the new nonce, and has therefore heard of the slot.
        """
        taken = {n.sources[interface.mac].slot for n in interface.senders.get(interface.mac, ())}
        before, interface.slot = interface.slot, min(set(range(c.NO_SLOT + 1)) - (taken - {c.NO_SLOT}))
        if interface.slot == before:
            return
        interface.relays = False
        self.local.at(now + c.SLOT_HELD, self._hold_slot, interface, interface.slot)
        self.local.nonce = self.local.token()
        for each in self.local.interfaces:
            self.await_listing(each, now)

    def _hold_slot(self, interface: Interface, slot: int, now: float) -> None:
        """A chosen slot was announced: it is ours unless a program that has run for longer chose it too."""
        if interface.slot == slot != c.NO_SLOT:
            interface.relays = True
            self.routes.recompute(interface, now)

    def await_listing(self, interface: Interface, now: float) -> None:
        """Our nonce, MAC or slot is new on an interface: no link there is up until the neighbour lists it."""
        for n in interface.neighbours.values():
            if n.state is not HEARD and not n.v1:
                self._move(n, HEARD, now)
        interface.recompute_all = True
        self.forwarder.clear_caches()
        self.schedule_hello(interface, now)

    def _drop_source(self, n: Neighbour, mac: bytes) -> None:
        del n.sources[mac]
        n.interface.set_heard_entries(n, tuple(Heard(mac, n.nonce) for mac in n.sources))
        others = tuple(m for m in n.interface.senders[mac] if m is not n)
        if others:
            n.interface.senders[mac] = others
        else:
            del n.interface.senders[mac]
        self.forwarder.clear_caches()

    # The state of a link

    def _move(self, n: Neighbour, state: LinkState, now: float) -> None:
        """Change the state of a link, and what depends on it: routes, advertisements, HEARD."""
        if state not in LINK_MOVES[n.state]:
            raise RuntimeError(f"a neighbour goes from {n.state} to {state}")
        before, n.state = n.state, state
        was_usable, n.usable = n.usable, state in USABLE
        if state is UP:
            n.misses = 0
            n.unanswered_since = 0.0
            n.confirm_at = now + c.CONFIRM_SECONDS
            n.backoff = c.ASK_FIRST
        elif not n.usable:
            n.backoff = c.ASK_FIRST
            n.probe_deadline = now + n.backoff
        if n.usable != was_usable or before is DEAD:
            self.forwarder.clear_caches()
        if n.usable != was_usable:
            interface = n.interface
            interface.listening = interface.listening | n.bit if n.usable and not n.v1 else interface.listening & ~n.bit
            interface.recompute_all = True
            if n.usable:
                self._resend_all_for(n, now)
            self.routes.schedule_updates(self.local.rng.uniform(*c.UPDATE_DELAY), now)
            if DEAD in (before, state):
                self._schedule_hello_for(n, now, delay=0.0)  # HEARD changes
            if n.usable:
                self.probe_mtu(n, now)
        if n.usable != was_usable or SUSPECT in (before, state):
            self.routes.reselect_via(n, now)

    def _resend_all_for(self, n: Neighbour, now: float) -> None:
        """Advertise all routes to a neighbour whose link has come up; a large table only once it has answered."""
        if n.srtt or self.local.credit.afford(c.ROUTE_BYTES * len(n.interface.advertised), now=now):
            n.interface.resend_all = True
        else:
            n.repeats_later = True
            self.send_probe(n, now)

    def flush_node(self, address: bytes, nonce: int, now: float) -> None:
        """A node restarted: drop all that its last incarnation said, on every interface."""
        for interface in self.local.interfaces:
            n = interface.neighbours.get(address)
            if n is not None and n.nonce != nonce:
                self.reset(n, nonce, now)

    def reset(self, n: Neighbour, nonce: int, now: float) -> None:
        """Begin another incarnation of a neighbour: nothing that it said before holds."""
        interface = n.interface
        interface.set_heard(n, frozenset())
        n.restart(nonce, now)
        interface.set_heard_entries(n, tuple(Heard(mac, nonce) for mac in n.sources))
        interface.recent |= n.bit
        if n.state is not HEARD:
            self._move(n, HEARD, now)
        self.routes.withdraw_all(n, now)
        if n.sources:  # else its source is noted next
            self._schedule_hello_for(n, now)
        self.local.at(now + c.MEET_SECONDS, self._settle, n)

    def _settle(self, n: Neighbour, now: float) -> None:
        """A newcomer has had time to list its neighbours."""
        if now >= n.met + c.MEET_SECONDS and n.interface.neighbours.get(n.address) is n:
            n.interface.recent &= ~n.bit
            self.routes.recompute(n.interface, now)

    def remove(self, n: Neighbour, now: float) -> None:
        """Remove a neighbour."""
        interface = n.interface
        del interface.neighbours[n.address]
        for mac in list(n.sources):
            self._drop_source(n, mac)
        interface.drop_from_sets(n)
        n.usable = False
        n.deadline = INFINITY
        self.routes.withdraw_all(n, now)
        interface.recompute_all = True
        interface.full_hellos_left = c.FULL_HELLOS
        self.routes.schedule_updates(self.local.rng.uniform(*c.UPDATE_DELAY), now)

    # Probes

    def on_data_sent(self, n: Neighbour, now: float) -> None:
        """Start the liveness timer of a neighbour: if nothing comes back for DELAY_SECONDS, it is probed."""
        n.unanswered_since = n.sent = now
        if n.confirm_at < now:
            n.confirm_at = now + c.CONFIRM_SECONDS
        if n.deadline > now + c.DELAY_SECONDS:
            self.set_timer(n)

    def timer_due(self, n: Neighbour) -> float:
        """Return when the timer of a neighbour is due if nothing arrives before."""
        if n.state is not UP:
            return min(n.expires, n.probe_deadline)
        due = min(n.expires, n.probe_at)
        if n.unanswered_since:
            due = min(due, n.unanswered_since + c.DELAY_SECONDS)
        if n.sent > n.confirm_at - c.CONFIRM_SECONDS:
            due = min(due, n.confirm_at)
        return due

    def set_timer(self, n: Neighbour) -> None:
        """Set the timer of a neighbour if it is due earlier than set."""
        due = self.timer_due(n)
        if due < n.deadline and not self.local.has_left:
            n.deadline = due
            self.local.at(due, self.on_timer, n, due)

    def on_timer(self, n: Neighbour, due: float, now: float) -> None:
        """The timer of a neighbour is due: probe it, count what it missed, probe again, or remove it."""
        if due != n.deadline:
            return  # another timer was set for earlier
        n.deadline = INFINITY
        if now >= n.expires:
            self.remove(n, now)
            return
        if now >= self.timer_due(n):
            if n.state is UP:
                self.probe(n, now)
            elif n.state in (HEARD, DEAD):
                n.backoff = min(2 * n.backoff, c.HANDSHAKE_INTERVAL)
                self.send_probe(n, now)
            elif now > n.probe_deadline + c.LATE_SECONDS:
                n.probe_deadline = now + c.LATE_SECONDS  # we were held up ourselves; its answer may wait to be read
            else:
                self._on_probe_lost(n, now)
        self.set_timer(n)

    def probe(self, n: Neighbour, now: float) -> None:
        """Probe a neighbour that is up."""
        self._move(n, PROBING, now)
        self.send_probe(n, now)

    def _on_probe_lost(self, n: Neighbour, now: float) -> None:
        """A PROBE went unanswered."""
        n.misses += 1
        latest = max(n.sources, key=lambda mac: n.sources[mac].heard_at)
        if latest != n.mac:  # its interface may have got another Ethernet address
            self._drop_source(n, n.mac)
            n.mac = latest
        if n.misses == 1:
            self._move(n, SUSPECT, now)
        if n.misses < c.PROBE_TRIES:
            self.send_probe(n, now)
        else:
            self._move(n, DEAD, now)

    def send_probe(self, n: Neighbour, now: float) -> None:
        """Send a PROBE. A neighbour that never answered, and to which nothing is sent, must have paid for that."""
        token = self.local.token()
        n.probe_deadline = now + (n.backoff if n.state in (HEARD, DEAD) else max(c.PROBE_TIMEOUT, 4 * n.srtt))
        if n.srtt or n.sent > -INFINITY or self.local.credit.afford(PROBE_BYTES, now=now):
            n.probes[token] = now
            if len(n.probes) > c.PROBE_TRIES:
                del n.probes[next(iter(n.probes))]
            self.note_asked(n.address, now)
            self.send_hello_to(n, c.FLAG_PROBE, token)
        self.set_timer(n)

    def _on_reply(self, n: Neighbour, token: int, now: float) -> None:
        """Process a REPLY: if it answers our PROBE, the link works in both directions."""
        if token and token == n.big_token:
            n.big_token = 0
            n.mtu = min(n.offered, n.interface.mtu)
            self.routes.reselect_via(n, now)
            return
        sent = n.probes.get(token)
        if sent is None:
            announced, sent = self.announced
            if token != announced or now - sent > c.HANDSHAKE_INTERVAL:
                return
        n.srtt = (7 * n.srtt + now - sent) / 8 if n.srtt else now - sent
        n.probes.clear()
        if n.state not in (HEARD, UP):
            self._move(n, UP, now)
        if now >= n.grows_at:
            n.grows_at = INFINITY
            self.probe_mtu(n, now)
        if n.repeats_later:
            n.repeats_later = False
            n.interface.resend_all = True
            self.routes.schedule_updates(0.0, now)
        if not n.is_introduced:
            n.is_introduced = True
            self.routes.changed[n.address] = None
            self.routes.schedule_updates(0.0, now)

    def probe_mtu(self, n: Neighbour, now: float) -> None:
        """Find out by padded PROBEs whether frames of more than 1500 bytes reach the neighbour.

        It answers a small one first: else a few forged bytes would send thousands to a third node.
        """
        size = min(n.offered, n.interface.mtu)
        if n.mtu < size and not n.big_token and not n.srtt:
            n.grows_at = now
            self.send_probe(n, now)
        elif n.mtu < size and not n.big_token:
            n.big_token = self.local.token()
            self._send_padded_probe(n, n.big_token, size, c.PROBE_TRIES, now)

    def _send_padded_probe(self, n: Neighbour, token: int, size: int, tries: int, now: float) -> None:
        if token != n.big_token:
            return  # it was answered
        if not tries or not n.usable:
            n.big_token, n.grows_at = 0, now + c.MTU_RETRY_SECONDS
            return
        pad = (
            size
            - c.MESH_HEADER_BYTES
            - c.HANDSHAKE_FIXED_BYTES
            - 2 * c.TLV_BYTES
            - c.HEARD_BYTES * len(n.heard_entries)
        )
        self.send_hello_to(n, c.FLAG_PROBE, token, pad=pad)
        # Each try has twice the time of the one before: beside a transfer at full speed the first may get lost.
        patience = max(c.PROBE_TIMEOUT, 4 * n.srtt) * 2 ** (c.PROBE_TRIES - tries + 1)
        self.local.at(now + patience, self._send_padded_probe, n, token, size, tries - 1)

    # HANDSHAKEs out

    def send_hello_to(self, n: Neighbour, flags: int = 0, token: int = 0, **tlvs: Any) -> None:
        """Send a HANDSHAKE to one neighbour."""
        handshake = self.local.new_handshake(n.interface, flags, 0, token)._replace(**tlvs)
        if n.state is not DEAD and not n.v1:
            handshake = handshake._replace(heard=n.heard_entries)
        if flags & c.FLAG_REPLY and n.usable:
            handshake = handshake._replace(name=self.local.name, ports=self.local.ports)
        self.local.send_handshake(n.interface, n.mac, n.address, handshake)

    def schedule_hello(self, interface: Interface, now: float, delay: Optional[float] = None) -> None:
        """Send the next HANDSHAKE soon, with HEARD, name and ports: there is a newcomer."""
        interface.full_hellos_left = c.FULL_HELLOS
        when = now + (self.local.rng.uniform(*c.START_DELAY) if delay is None else delay)
        self._set_hello_timer(interface, max(when, interface.last_hello_at + c.HELLO_GAP))

    def _schedule_hello_for(self, n: Neighbour, now: float, delay: Optional[float] = None) -> None:
        """Send HEARD soon because of a neighbour; one that has never answered must have paid for that."""
        interface = n.interface
        interface.full_hellos_left = c.FULL_HELLOS
        is_soon = interface.next_hello_at <= now + c.START_DELAY[1]  # one HANDSHAKE answers all newcomers
        if n.srtt or is_soon or self.local.credit.afford(interface.hello_bytes, now=now):
            self.schedule_hello(interface, now, delay)

    def _set_hello_timer(self, interface: Interface, when: float) -> None:
        if when < interface.next_hello_at and not self.local.has_left:
            interface.next_hello_at = when
            self.local.at(when, self._on_hello_timer, interface, when)

    def _on_hello_timer(self, interface: Interface, when: float, now: float) -> None:
        """The periodic HANDSHAKE is due."""
        if when == interface.next_hello_at:
            interface.next_hello_at = INFINITY
            interface.hello_pending = interface.recompute_all = True
            self.routes.updates_at = now
            self.routes.send_updates(now)

    def send_hello(self, interface: Interface, now: float, flags: int = 0, token: int = 0) -> bool:
        """Send the HANDSHAKE to everyone; return True if it held all routes that are advertised on this interface."""
        interface.hello_count += 1
        interface.last_hello_at = now
        interface.hello_pending = interface.resend_all = interface.seqno_changed = False
        interface.next_hello_at = INFINITY
        self._set_hello_timer(interface, now + c.HANDSHAKE_INTERVAL * self.local.rng.uniform(*c.JITTER))
        handshake = self.local.new_handshake(interface, flags, c.TTL_V1, token)
        room = routes_room(interface)
        lists = interface.full_hellos_left or interface.hello_count % c.HEARD_EVERY == 0
        if interface.full_hellos_left:
            interface.full_hellos_left -= 1
            handshake = handshake._replace(name=self.local.name, ports=self.local.ports)
            room -= 2 * c.TLV_BYTES + len(self.local.name.encode("utf-8", "replace")) + 2 * len(self.local.ports)
        if lists:
            listed = [n for n in interface.neighbours.values() if n.state is not DEAD and not n.leaving]
            heard = [entry for n in listed for entry in n.heard_entries]
            self._send_long_heard(interface, heard, (room - c.TLV_BYTES) // c.HEARD_BYTES)
            handshake = handshake._replace(heard=tuple(heard))
            room -= c.TLV_BYTES + c.HEARD_BYTES * len(heard)
        fit = max(room // c.ROUTE_BYTES, 0)
        routes = list(interface.advertised.values()) if interface.listening else []
        full = len(routes) <= fit
        if full:
            handshake = handshake._replace(flags=flags | c.FLAG_FULL)
        else:
            start = interface.cursor % len(routes)
            interface.cursor = start + fit
            routes = (routes[start:] + routes[:start])[:fit]
        self.local.send_handshake(interface, c.BROADCAST_ADDRESS, c.EVERYONE, handshake._replace(routes=tuple(routes)))
        interface.hello_bytes = len(self.local.out[-1].frame)
        return full

    def _send_long_heard(self, interface: Interface, heard: List[Heard], most: int) -> None:
        """Send HEARD in frames of its own until no more than `most` entries are left in `heard`."""
        part = max(routes_room(interface) // c.HEARD_BYTES, 1)
        while len(heard) > max(most, 0):
            handshake = self.local.new_handshake(interface, 0, c.TTL_V1)._replace(heard=tuple(heard[:part]))
            self.local.send_handshake(interface, c.BROADCAST_ADDRESS, c.EVERYONE, handshake)
            del heard[:part]


# --- Routes ---------------------------------------------------------------------------------------------------------


class Routes(Part):
    """The routing table: what neighbours advertise, which route is selected, and what is advertised in turn."""

    def __init__(self) -> None:
        self.table: Dict[bytes, Destination] = {}
        self.tells_changes = False
        self.changed: Dict[bytes, None] = {}  # destinations to compare with what was advertised; ordered, unlike a set
        self.updates_at = INFINITY
        self._last_updates_at = -INFINITY
        self._jump_at = self._afresh_at = -INFINITY

    # Routes in

    def path_to(self, dest: bytes) -> Optional[Path]:
        """Return the selected route to a node, if there is one."""
        d = self.table.get(dest)
        return d.best if d is not None else None

    def process_routes(self, n: Neighbour, h: Handshake, now: float) -> None:
        """Process the routes of a HANDSHAKE."""
        self.update_route(n, Route(n.address, h.seq, 0, n.offered), now)
        for route in h.routes:
            if route.dest == self.local.address:
                self._on_own_route(route, now)
            elif route.dest == n.address or not is_unicast(route.dest):
                self.local.drops["route"] += 1
            elif route.metric >= c.METRIC_UNREACHABLE:
                self.withdraw_route(n, route.dest, now)
            else:
                self.update_route(n, route, now)
        if h.flags & c.FLAG_FULL:
            listed = {route.dest for route in h.routes}
            for d in self.table.values():
                if n in d.adverts and d.address not in listed and d.address != n.address:
                    self.withdraw_route(n, d.address, now)

    def update_route(self, n: Neighbour, route: Route, now: float) -> None:
        """The neighbour advertises a route, or is the destination itself (metric 0)."""
        d = self.table.get(route.dest) or self._add_destination(route.dest, n, now)
        if d is None:
            self.local.drops["destinations"] += 1
            return
        old = d.adverts.get(n)
        n.adverts += old is None
        d.adverts[n] = Advert(route.seq, route.metric, route.mtu, now)
        if route.metric == 0:
            d.left_at = -INFINITY
        if old is not None and old[:3] == (route.seq, route.metric, route.mtu):
            if d.best is None or d.requests_sent:
                self._request_if_starved(d, now)
        elif d.best is None or d.best.neighbour is n or self.is_better(d, n, d.best.neighbour):
            self.select(d, now)

    def withdraw_route(self, n: Neighbour, dest: bytes, now: float) -> None:
        """Remove the route to a destination that a neighbour advertised."""
        d = self.table.get(dest)
        if d is not None and d.adverts.pop(n, None) is not None:
            n.adverts -= 1
            d.touched = now
            if d.best is None or d.best.neighbour is n:
                self.select(d, now)

    def withdraw_all(self, n: Neighbour, now: float) -> None:
        """Remove all routes that a neighbour advertised."""
        for dest in self.table if n.adverts else ():
            self.withdraw_route(n, dest, now)

    def _add_destination(self, dest: bytes, n: Neighbour, now: float) -> Optional[Destination]:
        """Enter a destination in the table; if it is full, in place of one that was not used for long.

        A neighbour that filled half of the table itself gets no more.
        """
        if len(self.table) >= c.DESTINATIONS_MAX:
            if n.adverts >= c.DESTINATIONS_MAX // 2:
                return None
            for _ in range(c.EVICT_TRIES):  # the front of the table; what is in use goes back to its end
                oldest = self.table.pop(next(iter(self.table)))
                direct = oldest.best is not None and oldest.best.neighbour.address == oldest.address
                if not direct and not oldest.in_use(now):
                    break
                self.table[oldest.address] = oldest
            else:
                return None
            self._evict(oldest, now)
        d = self.table[dest] = Destination(dest, now)
        return d

    def _evict(self, d: Destination, now: float) -> None:
        """Remove a destination; send a retraction where it was advertised."""
        for n in d.adverts:
            n.adverts -= 1
        d.adverts.clear()
        d.best = None
        self.forwarder.clear_caches()
        self.changed[d.address] = None
        self.schedule_updates(self.local.rng.uniform(*c.UPDATE_DELAY), now)
        self._on_lost(d, now)

    # Selection

    def is_feasible(self, d: Destination, n: Neighbour) -> bool:
        """Return whether a neighbour's route is feasible (RFC 8966 section 3.5.1): nearer than all we ever advertised.

        With `_record_advertised` this keeps routes free of loops. Sequence numbers are plain integers here: the proof
        wants a total order, and seconds fit u32 until 2106.
        """
        advert = d.adverts[n]
        return d.feasibility_distance is None or (-advert.seq, advert.metric) < d.feasibility_distance

    def _record_advertised(self, interface: Interface, d: Destination, route: Route) -> None:
        """Record a route that is advertised from now on: the feasibility distance falls to it, and never rises."""
        interface.advertised[d.address] = route
        distance = (-route.seq, route.metric)
        d.feasibility_distance = distance if d.feasibility_distance is None else min(d.feasibility_distance, distance)

    def _rank(self, d: Destination, n: Neighbour) -> Optional[Tuple[Any, ...]]:
        """Return the preference of the route through a neighbour, lowest best, or None if it must not be used."""
        advert = d.adverts[n]
        metric = advert.metric + n.cost
        if not n.usable or metric >= c.METRIC_UNREACHABLE or not self.is_feasible(d, n):
            return None
        if n.slot == c.NO_SLOT and n.address != d.address:
            return None  # it forwards nothing
        known = -d.feasibility_distance[0] if d.feasibility_distance is not None else advert.seq
        far = advert.metric > 0 and advert.seq > known + c.SEQ_JUMP_MAX  # believed only if there is nothing else
        new = d.best is None or n is not d.best.neighbour
        mtu = min(advert.mtu, n.mtu, n.interface.mtu)
        return n.state is SUSPECT, far, metric, -mtu, new, -advert.seq, n.mac, n.address

    def is_better(self, d: Destination, n: Neighbour, than: Neighbour) -> bool:
        """Return whether a next hop is better than the one in use, or that one must not be used any more."""
        rank, other = self._rank(d, n), self._rank(d, than)
        return other is None or (rank is not None and rank < other)

    def select(self, d: Destination, now: float) -> None:
        """Select the best of the feasible routes."""
        old = d.best
        best: Optional[Neighbour] = None
        best_rank: Tuple[Any, ...] = ()
        for n in d.adverts:
            rank = self._rank(d, n)
            if rank is not None and (best is None or rank < best_rank):
                best, best_rank = n, rank
        d.best = Path(best, d.adverts[best].seq, best_rank[2], -best_rank[3]) if best is not None else None
        if d.best != old:
            self._on_route_changed(d, old, now)
        self._request_if_starved(d, now)

    def reselect_via(self, n: Neighbour, now: float) -> None:
        """Select again wherever the neighbour advertises a route."""
        for d in self.table.values() if n.adverts else ():
            if n in d.adverts:
                self.select(d, now)

    def _on_route_changed(self, d: Destination, old: Optional[Path], now: float) -> None:
        """The selected route has changed: bring up to date what depends on it."""
        best = d.best
        if best is not None and old is None:
            self.messages.on_route_found(d.address, now)
        if best is None or old is None or best.neighbour is not old.neighbour or best.mtu != old.mtu:
            self.forwarder.clear_caches()
        if best is None:
            self.local.at(now + (0.0 if d.left(now) else c.LOST_GRACE), self._on_lost, d)
        else:
            self._report_route(d, best, old)
        self.changed[d.address] = None
        urgent = (best is None and d.in_use(now)) or now - d.requested_at <= c.REQUEST_FRESH
        self.schedule_updates(0.0 if urgent else self.local.rng.uniform(*c.UPDATE_DELAY), now)

    def _report_route(self, d: Destination, best: Path, old: Optional[Path]) -> None:
        """Post the events of a route that is selected now."""
        hop, events = best.neighbour, self.local.events
        if (old is None or hop is not old.neighbour or best.mtu != old.mtu) and d.used > -INFINITY:
            events.append(PathChanged(d.address, best.mtu))
        if not d.found:
            d.found = True
            events.append(NodeFound(d.address, hops_of(best), best.mtu, d.name))
        if self.tells_changes and (old is None or best._replace(seq=old.seq) != old):
            events.append(RouteChanged(d.address, hop.interface.index, hop.address, hops_of(best), best.mtu))

    def _on_lost(self, d: Destination, now: float) -> None:
        if d.best is None and d.found:
            d.found = False
            self.local.events.append(NodeLost(d.address, "left" if d.left(now) else "unreachable"))

    # Sequence numbers: a neighbour has a route, and it is not feasible (RFC 8966 section 3.8.2)

    def _request_targets(self, d: Destination, now: float) -> List[Neighbour]:
        """Return the neighbours to be asked for a newer sequence number; none if the selected route will do."""
        if d.left(now) or (d.best is not None and not (d.best.neighbour.state is SUSPECT and d.in_use(now))):
            return []
        return [n for n in d.adverts if n.usable and (d.best is None or n is not d.best.neighbour)]

    def _request_if_starved(self, d: Destination, now: float) -> None:
        """Send a seqno request if no route is feasible; a few in a row, then one a second at most."""
        if not self._request_targets(d, now):
            d.requests_sent = 0
        elif d.requests_sent == 0 or now >= d.next_request_at:
            self._send_seqno_request(d, 0.0, now)

    def _send_seqno_request(self, d: Destination, due: float, now: float) -> None:
        """Ask all targets for a newer sequence number. `due`: of the timer, 0 if it is not that."""
        targets = self._request_targets(d, now)
        if (due and due != d.next_request_at) or not targets:
            return
        d.requests_sent += 1
        d.requested_at = now
        again = d.requests_sent < c.REQUEST_TRIES
        d.next_request_at = now + (c.REQUEST_RETRY if again else c.REQUEST_AGAIN)
        if again:
            self.local.at(d.next_request_at, self._send_seqno_request, d, d.next_request_at)
        seq = d.newest_seq + 1
        is_in_vain = seq > c.SEQ_MAX or not again
        if is_in_vain and d.newest_seq > max(d.adverts[n].seq for n in targets) + c.SEQ_JUMP_MAX:
            self._start_afresh(now)
        elif seq <= c.SEQ_MAX:
            for n in targets:
                n.interface.requests[d.address] = Request(d.address, seq, c.REQUEST_HOPS)
            self.schedule_updates(0.0 if d.in_use(now) else self.local.rng.uniform(*c.UPDATE_DELAY), now)

    def process_requests(self, n: Neighbour, requests: Tuple[Request, ...], now: float) -> None:
        """Answer or forward the seqno requests of a neighbour (RFC 8966 section 3.8.1.2)."""
        onward: Dict[Neighbour, List[Request]] = {}
        for request in requests:
            d = self.table.get(request.dest)
            if request.dest == self.local.address:
                if request.seq <= self._highest_seq(now) and self.local.answers.take(now=now):
                    self._raise_seqno(request.seq, now)
            elif d is not None:
                target = self._request_target(d, n, request)
                again = d.passed_seq == request.seq and now - d.passed_at < c.REQUEST_AGAIN
                if target is None:
                    self._answer_request(d, n, request, now)
                elif request.hops and not again and d.passes.take(now=now):
                    d.requested_at = d.passed_at = now
                    d.passed_seq = request.seq
                    onward.setdefault(target, []).append(request._replace(hops=request.hops - 1))
        for to, passed in onward.items():
            for start in range(0, len(passed), c.ROUTES_PER_FRAME):
                self.neighbours.send_hello_to(to, requests=tuple(passed[start : start + c.ROUTES_PER_FRAME]))

    def _request_target(self, d: Destination, n: Neighbour, request: Request) -> Optional[Neighbour]:
        """Return the neighbour to which a request is forwarded; None if it is answered here or there is none."""
        best = d.best
        if best is None or best.neighbour is n:
            return next((m for m in d.adverts if m.usable and m is not n), None)
        return best.neighbour if best.seq < request.seq and not best.neighbour.v1 else None

    def _answer_request(self, d: Destination, n: Neighbour, request: Request, now: float) -> None:
        """Advertise our route again if it is new enough; for a v1.0 neighbour, which has no seqno, we take one."""
        best = d.best
        if best is None or best.neighbour is n or request.seq > best.seq + c.SEQ_JUMP_MAX:
            return
        if best.seq < request.seq:
            best.neighbour.seq = request.seq
            self.update_route(best.neighbour, Route(d.address, request.seq, 0, best.neighbour.mtu), now)
        self.force_readvertise(n.interface, d.address)
        self.schedule_updates(0.0, now)

    def _on_own_route(self, route: Route, now: float) -> None:
        """A neighbour holds a newer sequence number for us than ours: take a higher one. Our clock was set back."""
        is_newer = self.local.seq < route.seq < self._highest_seq(now)
        if is_newer and route.metric < c.METRIC_UNREACHABLE and now >= self._jump_at:
            self._jump_at = now + c.HANDSHAKE_INTERVAL  # two nodes with one address must not chase each other
            self._raise_seqno(route.seq + 1, now)

    def _highest_seq(self, now: float) -> int:
        """Return the highest sequence number that others may move this node to: never near the end of all numbers."""
        clock = int(self.local.epoch + now)
        return (clock if clock > c.CLOCK_MIN else c.SEQ_MAX - 2 * c.SEQ_JUMP_MAX) + c.SEQ_JUMP_MAX

    def _raise_seqno(self, seq: int, now: float) -> None:
        """Take a newer sequence number, or the same again, and advertise it at once."""
        self.local.seq = max(self.local.seq, seq)
        for interface in self.local.up:
            interface.seqno_changed = True
        self.schedule_updates(0.0, now)

    def _start_afresh(self, now: float) -> None:
        """Begin another incarnation, which has advertised nothing yet: so every route that is offered is feasible.

        For where a destination's number once was so far ahead that it does not come again: a node has lied. It is as
        safe as a restart: nothing is forwarded for a neighbour before it lists the new nonce, and has forgotten what
        was advertised before.
        """
        if now < self._afresh_at:
            return
        self._afresh_at = now + c.AFRESH_SECONDS
        self.local.nonce = self.local.token()
        for d in self.table.values():
            d.feasibility_distance = None
        for interface in self.local.interfaces:
            interface.advertised.clear()
            self.neighbours.await_listing(interface, now)
        for d in list(self.table.values()):
            self.select(d, now)

    # Routes out

    def schedule_updates(self, delay: float, now: float) -> None:
        """Send updates in `delay` seconds at the latest, but no closer than UPDATE_GAP to the last ones."""
        when = max(now + delay, self._last_updates_at + c.UPDATE_GAP)
        if when < self.updates_at and not self.local.has_left:
            self.updates_at = when
            self.local.at(when, self.send_updates)

    def send_updates(self, now: float) -> None:
        """Send the triggered updates of each interface, or its HANDSHAKE if that is due."""
        if now < self.updates_at:
            return
        self.updates_at = INFINITY
        self._last_updates_at = now
        changed, self.changed = self.changed, {}
        for interface in self.local.up:
            routes = self.commit_updates(interface, changed, now)
            if interface.resend_all and interface.advertised:
                retractions = [route for route in routes if route.metric == c.METRIC_UNREACHABLE]
                routes = retractions + list(interface.advertised.values())
                interface.hello_pending = True
            if interface.hello_pending and self.neighbours.send_hello(interface, now):
                routes = []  # its table was complete
            interface.resend_all = False
            self._send_update(interface, routes)

    def recompute(self, interface: Interface, now: float) -> None:
        """Compare all that is advertised on an interface with what should be."""
        interface.recompute_all = True
        self.schedule_updates(0.0, now)

    def commit_updates(self, interface: Interface, changed: Dict[bytes, None], now: float) -> List[Route]:
        """Record what is advertised on an interface from now on, and return what must be sent of it at once."""
        if not interface.listening:
            return []
        if interface.recompute_all:
            changed = {**dict.fromkeys(interface.advertised), **dict.fromkeys(self.table)}
            interface.recompute_all = False
        updates = []
        for address in changed:
            d, before = self.table.get(address), interface.advertised.get(address)
            route = self._route_to_advertise(interface, d, now) if d is not None else None
            if d is None or route is None:
                if before is not None:
                    del interface.advertised[address]
                    updates.append(Route(address, d.newest_seq if d is not None else 0, c.METRIC_UNREACHABLE, 0))
                continue
            if route == before or (before is None and not self._may_introduce(d, now)):
                continue
            is_new = before is None or before != route._replace(seq=before.seq)
            urgent = is_new or now - d.requested_at < c.REQUEST_FRESH
            if urgent or interface.hello_pending:  # a mere newer sequence number waits for the periodic HANDSHAKE
                self._record_advertised(interface, d, route)
            if urgent:
                updates.append(route)
        return updates

    def _may_introduce(self, d: Destination, now: float) -> bool:
        """Return whether a node may be advertised; a neighbour that never answered only if it paid for that."""
        n = d.best.neighbour if d.best is not None else None
        if n is None or n.address != d.address or n.is_introduced:
            return True
        n.is_introduced = self.local.credit.afford(c.INTRODUCTION_BYTES * len(self.local.up), now=now)
        if not n.is_introduced and not n.probes:
            self.neighbours.send_probe(n, now)
        return n.is_introduced

    def _route_to_advertise(self, interface: Interface, d: Destination, now: float) -> Optional[Route]:
        """Return the route to be advertised on an interface; None if no neighbour there needs it, or we do not forward.

        If the next hop is on that LAN, only those that do not hear it need the route (split horizon).
        """
        if d.best is None or not interface.relays:
            return None
        hop, direct = d.best.neighbour, interface.neighbours.get(d.address)
        needy = interface.listening & ~direct.bit if direct is not None else interface.listening
        if hop.interface is interface:
            needy &= ~hop.linked_bits
        elif needy and hop.interface.primary(now) is interface.primary(now):
            listeners = [n for n in interface.neighbours.values() if n.bit & needy]
            needy = not all(hop.links(n, now) for n in listeners)
        return Route(d.address, d.best.seq, d.best.metric, d.best.mtu) if needy else None

    def force_readvertise(self, interface: Interface, dest: bytes) -> None:
        """Advertise `dest` on an interface with the next update, whatever was before: its route, or a retraction."""
        interface.advertised[dest] = Route(dest, 0, 0, 0)
        self.changed[dest] = None

    def _send_update(self, interface: Interface, routes: List[Route]) -> None:
        """Send routes and the pending seqno requests on an interface, in as few frames as hold them."""
        requests = list(interface.requests.values())
        interface.requests.clear()
        if not (routes or requests or interface.seqno_changed):
            return
        interface.seqno_changed = False
        fit = max(routes_room(interface) // c.ROUTE_BYTES, 1)  # a REQUEST is smaller than a ROUTE
        for start in range(0, max(len(routes) + len(requests), 1), fit):
            first = start - len(routes)
            handshake = self.local.new_handshake(interface, 0, 0)._replace(
                routes=tuple(routes[start : start + fit]),
                requests=tuple(requests[max(first, 0) : max(first + fit, 0)]),
            )
            self.local.send_handshake(interface, c.BROADCAST_ADDRESS, c.EVERYONE, handshake)

    def send_retraction(self, interface: Interface, source: bytes, dest: bytes, now: float) -> None:
        """Send a retraction to the neighbour that sent a frame we have no route for: it must have missed ours."""
        d = self.table.get(dest)
        if not (self.local.answers if d is None else d.naks).take(now=now):
            return
        retraction = Route(dest, d.newest_seq if d is not None else 0, c.METRIC_UNREACHABLE, 0)
        for n in interface.senders.get(source, ()):
            if not n.v1:
                self.neighbours.send_hello_to(n, routes=(retraction,))
        if dest in interface.advertised:
            self.force_readvertise(interface, dest)


# --- Forwarding -----------------------------------------------------------------------------------------------------


class Forwarder(Part):
    """What becomes of a frame: routed, flooded, taken; and the caches of the fast path."""

    def __init__(self) -> None:
        self.send_cache: Dict[bytes, Flow] = {}  # fast path of `send_streams`, by destination
        self.seen = SeenSet(c.SEEN_KEYS_MAX, c.SEEN_SECONDS)  # floods
        self._flooded_from: Dict[bytes, Interface] = {}  # where the last new flood of an origin came from
        self._floods = TokenBucket(c.FLOODS_PER_SECOND, c.FLOODS_PER_SECOND)
        self._lost_floods = TokenBucket(c.LOST_FLOODS_PER_SECOND, c.LOST_FLOODS_PER_SECOND)
        self.relays: Dict[Tuple[bytes, int], Relay] = {}

    # Routed frames

    def forward(self, interface: Interface, source: bytes, frame: Frame, now: float, data: bytes) -> None:
        """Forward a routed frame of another node."""
        if not is_unicast(frame.dest):
            raise FrameError("dest")
        if not self.is_next_hop(interface, frame):
            raise FrameError("slot")
        if frame.ttl == 0:
            self._answer_expired(interface, source, frame, now)
            raise FrameError("ttl")
        frame = frame._replace(ttl=frame.ttl - 1, slot=0)
        d = self.routes.table.get(frame.dest)
        if not self.may_forward_from(interface, source):
            if self.local.credit.afford(interface.hello_bytes, now=now):
                self.neighbours.schedule_hello(interface, now)
            self._flood_unroutable(frame, now)
        elif d is None or d.best is None:
            self.routes.send_retraction(interface, source, frame.dest, now)
            self._flood_unroutable(frame, now)
        elif d.best.neighbour.interface is interface and self._has_heard(d.best.neighbour, source, frame):
            raise FrameError("back")
        else:
            d.used = now
            hop = d.best.neighbour
            if len(data) > hop.interface.mtu + c.ETHERNET_HEADER_BYTES:
                raise FrameError("mtu")
            self.send_data(hop, frame, now)
            if frame.type == c.TYPE_STREAM:
                flow = Flow(frame.origin, self.neighbours.sender_of(interface, source, frame.origin))
                self._set_next_hop(flow, d, hop, frame)
                self.cache_flow(interface, data, flow)

    def may_forward_from(self, interface: Interface, source: bytes) -> bool:
        """Return whether all programs with this MAC list our nonce: none relies on what we advertised before it.

        Without this rule a restarted node can close a loop. A dead neighbour did list it: a program that was killed
        does not hold up the others on its card.
        """
        senders = interface.senders.get(source, ())
        return any(n.usable for n in senders) and all(n.usable or n.state is DEAD for n in senders)

    def is_next_hop(self, interface: Interface, frame: Frame) -> bool:
        """Return whether this program, not another one with its MAC, is the next hop of a frame."""
        return interface.relays and frame.slot == interface.slot

    def _has_heard(self, hop: Neighbour, source: bytes, frame: Frame) -> bool:
        """Return whether the next hop sent this frame, or got it where we did: it has our MAC and the frame is its."""
        return source in hop.sources or (hop.mac == hop.interface.mac and hop.address == frame.dest)

    def _answer_expired(self, interface: Interface, source: bytes, frame: Frame, now: float) -> None:
        """Answer an `echo` whose hops are used up, in place of the node it is for: so a path is traced."""
        h = decode_handshake(frame.payload) if frame.type == c.TYPE_HANDSHAKE else None
        if h is not None and h.flags & c.FLAG_PROBE:
            self.messages.answer_echo(interface, source, frame.origin, h.token, now)

    def deliver(
        self, interface: Interface, source: bytes, frame: Frame, now: float, data: Optional[bytes] = None
    ) -> Optional[Incoming]:
        """Take a frame for this node or for all. `data`: the whole frame, if its flow may be cached."""
        if frame.type == c.TYPE_STREAM:
            if data is not None:
                sender = self.neighbours.sender_of(interface, source, frame.origin)
                self.cache_flow(interface, data, Flow(frame.origin, sender))
            return Incoming(frame.origin, frame.payload)
        if frame.type != c.TYPE_HANDSHAKE:  # an empty one to everyone is relayed only
            self.messages.receive_text(interface, source, frame, now)
        return None

    def originate(self, frame: Frame, now: float) -> None:
        """Send a frame of our own along the selected route, or flood it."""
        d = self.routes.table.get(frame.dest)
        if d is None or d.best is None:
            self.flood(frame, now)
        else:
            d.used = now
            self.send_data(d.best.neighbour, frame, now)

    def answer(self, interface: Interface, source: bytes, frame: Frame, now: float) -> None:
        """Send a frame along the route; without one, to the Ethernet address that the question came from, as v1.0 does.

        A neighbour of ours would have no route either: then it is flooded, as far as the question pays for that.
        """
        size = PAYLOAD_OFFSET + len(frame.payload)
        path = self.routes.path_to(frame.dest)
        if path is not None:  # no data: an answer that stays unanswered is no reason for a probe
            self.send_to(path.neighbour, frame)
        elif all(n.v1 for n in interface.senders.get(source, ())):
            self.local.credit.owe(size)
            self.local.send(interface, source, frame)
        elif self.local.credit.afford(size * len(self.local.up), now=now):
            self.flood(frame, now)
        else:
            self.local.drops["limit"] += 1

    def send_data(self, n: Neighbour, frame: Frame, now: float) -> None:
        """Send data to a neighbour and start its liveness timer."""
        if not n.unanswered_since:
            self.neighbours.on_data_sent(n, now)
        self.send_to(n, frame)

    def send_to(self, n: Neighbour, frame: Frame) -> None:
        """Send a routed frame to the neighbour that is its next hop."""
        self.local.send(n.interface, n.mac, frame._replace(slot=n.slot_for(frame.dest)))

    def send_unrouted(self, dest: bytes, payload: bytes, now: float) -> None:
        """Flood a STREAM frame, rarely if there was a route and it will come back."""
        bucket = self._lost_floods if dest in self.routes.table else self._floods
        if not is_unicast(dest) or dest == self.local.address:
            self.local.drops["dest"] += 1
        elif bucket.take(now=now):
            self.flood(self.local.new_frame(c.TYPE_STREAM, dest, payload), now)
        else:
            self.local.drops["limit"] += 1

    # Floods

    def receive_flood(self, interface: Interface, source: bytes, frame: Frame, now: float) -> Optional[Incoming]:
        """Process a flooded frame: take it, flood it on, or send it along our route if there is one."""
        key = (frame.origin, frame.msg_id)
        new = self.seen.add(key, now=now)
        if frame.dest == self.local.address:
            if not new and frame.type == c.TYPE_STREAM:
                raise FrameError("seen")
            return self.deliver(interface, source, frame, now)
        if not new:
            self._cancel_relay(key, interface, source, now)
            raise FrameError("seen")
        if len(self._flooded_from) >= c.FLOWS_MAX:
            self._flooded_from.clear()
        self._flooded_from[frame.origin] = interface
        if frame.dest == c.EVERYONE:
            if frame.type == c.TYPE_STREAM:
                raise FrameError("dest")
            self.deliver(interface, source, frame, now)
        elif not is_unicast(frame.dest):
            raise FrameError("dest")
        elif self._redirect_flood(interface, source, frame, now):
            return None
        self._relay(interface, source, frame, now)
        return None

    def _redirect_flood(self, interface: Interface, source: bytes, frame: Frame, now: float) -> bool:
        """Send a flooded frame along our route to its destination; return False if it must be flooded on."""
        path = self.routes.path_to(frame.dest)
        if path is None or frame.ttl == 0:
            return False
        hop = path.neighbour
        if hop.interface.primary(now) is interface.primary(now):
            if interface.loopback or hop.hears(source, now):
                raise FrameError("heard")
            if hop.v1:
                return False  # it may have heard the frame itself; a copy that others can hear cancels theirs
        self.send_data(hop, frame._replace(ttl=frame.ttl - 1), now)
        return True

    def flood(self, frame: Frame, now: float) -> None:
        """Flood a frame of our own. v1.0 nodes know no greater ttl than their own."""
        self.seen.add((frame.origin, frame.msg_id), now=now)
        v1 = any(n.v1 for interface in self.local.interfaces for n in interface.neighbours.values())
        for interface in self.local.up:
            if interface is interface.primary(now):
                self.local.send(interface, c.BROADCAST_ADDRESS, frame._replace(ttl=c.TTL_V1 if v1 else c.TTL_ROUTED))

    def _flood_unroutable(self, frame: Frame, now: float) -> None:
        """Flood a routed frame of another node for which there is no route any more."""
        if not self._lost_floods.take(now=now) or not self._may_relay(frame, len(self.local.up), now):
            raise FrameError("limit")
        self.seen.add((frame.origin, frame.msg_id), now=now)
        for interface in self.local.up:
            if interface is interface.primary(now) and self._is_listened(interface, frame):
                self.local.send(interface, c.BROADCAST_ADDRESS, frame)

    def _is_listened(self, interface: Interface, frame: Frame) -> bool:
        """Return whether a flood may be heard on an interface: a neighbour is up, or its destination was there."""
        return self._flooded_from.get(frame.dest) is interface or any(n.usable for n in interface.neighbours.values())

    def _relay(self, interface: Interface, source: bytes, frame: Frame, now: float) -> None:
        """Flood the frame of another node on, after a moment in which another relay may do it for us."""
        if frame.ttl == 0:
            raise FrameError("ttl")
        targets = set()
        for other in self.local.up:
            if other is interface.primary(now):
                needed = not other.loopback and not other.covered(source, now, v1=True)
            else:
                needed = other is other.primary(now) and self._is_listened(other, frame)
            if needed:
                targets.add(other.index)
        if not targets:
            return
        if not self._floods.take(now=now) or not self._may_relay(frame, len(targets), now):
            raise FrameError("limit")
        key = (frame.origin, frame.msg_id)
        relay = self.relays[key] = Relay(frame._replace(ttl=frame.ttl - 1, slot=0), targets)
        self.local.at(now + self.local.rng.uniform(*c.RELAY_DELAY), self._relay_now, key, relay)

    def _may_relay(self, frame: Frame, copies: int, now: float) -> bool:
        """Return whether a frame may be sent on so many interfaces: a stranger's must be paid for."""
        known = frame.origin in self.routes.table
        return known or self.local.credit.afford(copies * (PAYLOAD_OFFSET + len(frame.payload)), now=now)

    def _relay_now(self, key: Tuple[bytes, int], relay: Relay, _now: float) -> None:
        self.relays.pop(key, None)
        for interface in self.local.up:
            if interface.index in relay.interfaces:
                self.local.send(interface, c.BROADCAST_ADDRESS, relay.frame)

    def _cancel_relay(self, key: Tuple[bytes, int], interface: Interface, source: bytes, now: float) -> None:
        """Another relay flooded the frame here: enough, if all neighbours hear that one."""
        relay = self.relays.get(key)
        if relay is not None and interface.covered(source, now, v1=False):
            relay.interfaces.discard(interface.index)

    # The fast path

    def build_send_entry(self, dest: bytes) -> Optional[Flow]:
        """Prepare the beginning of all STREAM frames to `dest`; None if there is no route."""
        d = self.routes.table.get(dest)
        if d is None or d.best is None:
            return None
        hop = d.best.neighbour
        lane = self.send_cache[dest] = Flow(self.local.address, hop)
        self._set_next_hop(lane, d, hop, Frame(c.TYPE_STREAM, self.local.address, dest, c.TTL_ROUTED, 0, b""))
        return lane

    def cache_flow(self, interface: Interface, data: bytes, flow: Flow) -> None:
        """Take the fast path with all frames that begin as `data` does."""
        if len(interface.flows) >= c.FLOWS_MAX:
            interface.flows.clear()
        interface.flows[data[:FLOW_BYTES]] = flow

    def _set_next_hop(self, flow: Flow, d: Destination, hop: Neighbour, frame: Frame) -> None:
        header = encode_frame(frame._replace(slot=hop.slot_for(frame.dest)))
        flow.out = hop
        flow.destination = d
        flow.head = encode_ethernet(hop.mac, hop.interface.mac, header)[:FLOW_BYTES]
        flow.index = hop.interface.index
        flow.limit = hop.interface.mtu + c.ETHERNET_HEADER_BYTES

    def clear_caches(self) -> None:
        """A route or a neighbour has changed: cached flows may be wrong."""
        self.send_cache.clear()
        for interface in self.local.interfaces:
            interface.flows.clear()


# --- Texts and echoes -----------------------------------------------------------------------------------------------


class Messages(Part):
    """Texts until they are acknowledged, echoes until they are answered."""

    def __init__(self) -> None:
        self.takes_texts = True  # whether there is room for one more
        self.unacknowledged: Dict[int, Message] = {}
        self.renamed: Dict[int, int] = {}  # later ids of a MESSAGE to a v1.0 node -> the first one
        self._delivered = SeenSet(c.SEEN_KEYS_MAX, c.SEEN_SECONDS)  # texts
        self._strange: Set[StrangeNode] = set()
        self.echoes: Dict[int, Echo] = {}

    def send(self, dest: bytes, data: bytes, *, now: float, timeout: float) -> int:
        """Send a text until it is acknowledged, then say `Delivered`, or `Undelivered` after `timeout`; return its id.

        Raise ValueError if `dest` is this node's or no node's address.
        """
        self._check_peer(dest)
        frame = self.local.new_frame(c.TYPE_MESSAGE, dest, data)
        if len(self.unacknowledged) >= c.MESSAGES_MAX:
            self.give_up(next(iter(self.unacknowledged)))
        self.unacknowledged[frame.msg_id] = Message(frame, now, now + timeout)
        self.forwarder.originate(frame, now)
        self.local.at(
            min(now + c.MESSAGE_RETRY_FIRST, now + timeout),
            self._repeat,
            frame.msg_id,
            2 * c.MESSAGE_RETRY_FIRST,
        )
        return frame.msg_id

    def broadcast(self, data: bytes, *, now: float) -> None:
        """Send a text to every node, unacknowledged."""
        self.forwarder.flood(self.local.new_frame(c.TYPE_BROADCAST, c.EVERYONE, data), now)

    def _repeat(self, msg_id: int, wait: float, now: float) -> None:
        message = self.unacknowledged.get(msg_id)
        if message is None:
            return
        if now >= message.deadline:
            self.give_up(msg_id)
            return
        self.send_again(message, now)
        when = min(now + wait, message.deadline)
        self.local.at(when, self._repeat, msg_id, min(2 * wait, c.MESSAGE_RETRY_MAX))

    def send_again(self, message: Message, now: float) -> None:
        """Repeat a MESSAGE; to a v1.0 node, which answers no id twice, under another id."""
        frame = message.frame
        if self._is_v1(frame.dest):
            frame = frame._replace(msg_id=self.local.new_frame(c.TYPE_MESSAGE, frame.dest, b"").msg_id)
            self.renamed[frame.msg_id] = message.frame.msg_id
        self.forwarder.originate(frame, now)

    def _is_v1(self, dest: bytes) -> bool:
        """Return whether a destination is a v1.0 node, near or far, as far as its route shows."""
        path = self.routes.path_to(dest)
        if path is None:
            return False
        # Its neighbours advertise Unix time // 64 for it, which is no seqno of ours: those begin at Unix time, or at 1.
        is_far = c.CLOCK_MIN // c.V1_SEQ_SECONDS <= path.seq <= c.SEQ_MAX // c.V1_SEQ_SECONDS
        return is_far or (path.neighbour.v1 and path.neighbour.address == dest)

    def give_up(self, msg_id: int) -> None:
        """End a MESSAGE that was not acknowledged."""
        message = self.end(msg_id)
        self.local.events.append(Undelivered(msg_id, message.frame.dest))

    def on_route_found(self, dest: bytes, now: float) -> None:
        """Repeat what is for a node at once: its flood may have come before the relays knew the node."""
        for message in [each for each in self.unacknowledged.values() if each.frame.dest == dest]:
            self.send_again(message, now)

    def receive_text(self, interface: Interface, source: bytes, frame: Frame, now: float) -> None:
        """Post a text for this node or for all, once, and acknowledge every copy of a MESSAGE for this node."""
        text = parse_text(frame.payload)
        if not is_text(text):
            self.report_strange(frame.origin, "streams")
            raise FrameError("text")
        key = (frame.origin, frame.msg_id)
        if not self.takes_texts and key not in self._delivered:
            self.local.drops["inbox full"] += 1  # unacknowledged: who sent it tries again
            return
        if self._delivered.add(key, now=now):
            self.local.events.append(MessageReceived(frame.origin, frame.dest, frame.msg_id, text))
        if frame.type == c.TYPE_MESSAGE and frame.dest == self.local.address:
            status = self.local.new_frame(c.TYPE_STATUS, frame.origin, status_payload(frame.msg_id))
            self.forwarder.answer(interface, source, status, now)

    def on_status(self, frame: Frame, now: float) -> None:
        """Process a STATUS for this node, from whatever Ethernet address."""
        msg_id = parse_status(frame.payload)
        first = -1 if msg_id is None else self.renamed.get(msg_id, msg_id)
        message = self.unacknowledged.get(first)
        if message is None or message.frame.dest != frame.origin:
            self.local.drops["status"] += 1
            return
        self.end(first)
        self.local.events.append(Delivered(message.frame.msg_id, frame.origin, now - message.sent))

    def end(self, msg_id: int) -> Message:
        """Remove a MESSAGE and all its ids."""
        self.renamed = {later: first for later, first in self.renamed.items() if first != msg_id}
        return self.unacknowledged.pop(msg_id)

    def echo(self, dest: bytes, *, now: float, ttl: int = c.TTL_ROUTED) -> int:
        """Ask `dest`, wherever it is, to answer, or the relay that is `ttl` + 1 hops away on the path to it.

        Return the token of the `Echoed` to come. Raise ValueError.
        """
        self._check_peer(dest)
        token = self.local.token()
        if len(self.echoes) >= c.MESSAGES_MAX:
            del self.echoes[next(iter(self.echoes))]
        self.echoes[token] = Echo(dest, now, ttl)
        self.neighbours.note_asked(dest, now)
        frame = self.local.new_frame(c.TYPE_HANDSHAKE, dest, self.local.echo_payload(c.FLAG_PROBE, token))
        self.forwarder.originate(frame._replace(ttl=ttl), now)
        return token

    def receive_echo(self, interface: Interface, source: bytes, frame: Frame, h: Handshake, now: float) -> None:
        """Process a HANDSHAKE that was routed here: an `echo` of another node, or the answer to ours."""
        if h.flags & c.FLAG_REPLY:
            echo = self.echoes.get(h.token)
            if echo is None or (echo.dest != frame.origin and echo.ttl == c.TTL_ROUTED):
                raise FrameError("echo")
            del self.echoes[h.token]
            hops = max(h.ttl0 - frame.ttl, 0) + 1
            name, ports, rtt = h.name or "", h.ports or (), now - echo.sent
            d = self.routes.table.get(frame.origin)
            if d is not None:
                d.name, d.ports, d.rtt = name, ports, rtt
            self.local.events.append(Echoed(h.token, frame.origin, hops, rtt, name, ports))
        elif h.flags & c.FLAG_PROBE:
            self.answer_echo(interface, source, frame.origin, h.token, now)

    def answer_echo(self, interface: Interface, source: bytes, origin: bytes, token: int, now: float) -> None:
        """Answer an `echo`, within the limit of answers."""
        if self.local.answers.take(now=now):
            payload = self.local.echo_payload(c.FLAG_REPLY, token)
            extra = len(payload) - c.HANDSHAKE_FIXED_BYTES
            if self.routes.path_to(origin) is None and not self.local.credit.afford(extra, now=now):
                payload = self.local.echo_payload(c.FLAG_REPLY, token, is_short=True)
            self.forwarder.answer(interface, source, self.local.new_frame(c.TYPE_HANDSHAKE, origin, payload), now)

    def report_strange(self, address: bytes, speaks: str) -> None:
        """Post, once, that nothing is possible with a v1.0 program."""
        strange = StrangeNode(address, speaks)
        if strange not in self._strange and len(self._strange) < c.STRANGE_MAX:
            self._strange.add(strange)
            self.local.events.append(strange)

    def _check_peer(self, dest: bytes) -> None:
        if not is_unicast(dest) or dest == self.local.address:
            raise ValueError("not the address of another node")


# --- The router -----------------------------------------------------------------------------------------------------


class Router:
    """One node of the mesh. `seq`: Unix time in seconds at boot; all other times are monotonic seconds.

    Whatever arrives, `receive` does not raise; what is dropped is counted in `drops` by reason.
    """

    def __init__(
        self,
        address: bytes,
        interfaces: Sequence[InterfaceConfig],
        *,
        rng: random.Random,
        now: float,
        seq: int,
        name: str = "",
        ports: Iterable[int] = (),
    ) -> None:
        self.address = address
        self.local = Local(address, interfaces, rng=rng, now=now, seq=seq, name=name, ports=ports)
        self.drops = self.local.drops
        self.events = self.local.events
        self.neighbours = Neighbours(self.local, now=now)
        self.routes = Routes()
        self.forwarder = Forwarder()
        self.messages = Messages()
        for part in (self.neighbours, self.routes, self.forwarder, self.messages):
            part.join(self)
        self._alarm_at = -INFINITY
        for interface, config in zip(self.local.interfaces, interfaces):
            self.neighbours.schedule_hello(interface, now)
            if config.slot is None and not interface.loopback:
                self.local.at(now + rng.uniform(*c.SLOT_WAIT), self.neighbours.choose_slot, interface)
        self.local.at(now + c.SWEEP_SECONDS, self._sweep)

    # What the node calls

    def receive(self, index: int, frame: bytes, *, now: float) -> Optional[Incoming]:
        """Take an Ethernet frame; return the payload of a STREAM frame for this node."""
        interface = self.local.interfaces[index]
        flow = interface.flows.get(frame[:FLOW_BYTES])
        if flow is not None and len(frame) > PAYLOAD_OFFSET:
            flow.neighbour.unanswered_since = 0.0
            out = flow.out
            if flow.reason:
                self.local.drops[flow.reason] += 1
                return None
            if out is None:
                return _new(Incoming, (flow.origin, frame[PAYLOAD_OFFSET:]))
            if len(frame) <= flow.limit:
                if not out.unanswered_since:
                    self.neighbours.on_data_sent(out, now)
                flow.destination.used = now  # type: ignore[union-attr]
                self.local.out.append(_new(Transmit, (flow.index, flow.head + frame[FLOW_BYTES:])))
                return None
        try:
            return self._receive(interface, frame, now)
        except FrameError as error:
            self.local.drops[error.reason] += 1
            if error.reason in ("own", "slot") and frame[c.ETHERNET_HEADER_BYTES + 1] == c.TYPE_STREAM:
                sender = self.neighbours.sender_of(interface, frame[6:12], frame[16:22])
                self.forwarder.cache_flow(
                    interface, frame, Flow(c.EVERYONE, sender, error.reason)
                )  # `lo` has many of these
            return None

    def receive_all(self, index: int, frames: Sequence[bytes], *, now: float) -> List[Tuple[bytes, List[bytes]]]:
        """Take Ethernet frames; return those with STREAM payloads for this node, in order, by the origin.

        Their payloads, from PAYLOAD_OFFSET on, are not copied here: that was a twentieth of all it costs to receive.
        """
        runs: List[Tuple[bytes, List[bytes]]] = []
        flows = self.local.interfaces[index].flows
        beginning = None  # of frames that go to `run`
        run: List[bytes] = []
        for frame in frames:
            if frame[:FLOW_BYTES] == beginning and len(frame) > PAYLOAD_OFFSET:
                run.append(frame)
                continue
            incoming = self.receive(index, frame, now=now)
            beginning = None
            if incoming is not None:
                run = [frame]
                runs.append((incoming.origin, run))
                if frame[:FLOW_BYTES] in flows:  # not a flooded one
                    beginning = frame[:FLOW_BYTES]
        return runs

    def send_stream(self, dest: bytes, payload: bytes, *, now: float) -> Optional[Transmit]:
        """Return the frame that takes a STREAM payload one hop towards `dest`, or None where it was flooded."""
        interface, frames = self.send_streams(dest, [(payload, b"")], now=now)
        return Transmit(interface, frames[0]) if frames else None

    def send_streams(
        self, dest: bytes, payloads: Sequence[Tuple[bytes, Union[bytes, memoryview]]], *, now: float
    ) -> Tuple[int, List[bytes]]:
        """Return the interface, and the frames that take STREAM payloads one hop towards `dest`; none if flooded.

        Each payload is in two parts, so that what it carries is copied once.
        """
        lane = self.forwarder.send_cache.get(dest) or self.forwarder.build_send_entry(dest)
        if lane is None:
            for parts in payloads:
                self.forwarder.send_unrouted(dest, b"".join(parts), now)
            return 0, []
        if not lane.neighbour.unanswered_since:
            self.neighbours.on_data_sent(lane.neighbour, now)
        lane.destination.used = now  # type: ignore[union-attr]
        head, first = lane.head, self.local.msg_id + 1
        self.local.msg_id += len(payloads)
        return lane.index, [
            b"".join((head, msg_id.to_bytes(8, "big"), start, rest))
            for msg_id, (start, rest) in enumerate(payloads, first)
        ]

    def send_message(self, dest: bytes, data: bytes, *, now: float, timeout: float) -> int:
        """Send a text: see `Messages.send`."""
        return self.messages.send(dest, data, now=now, timeout=timeout)

    def broadcast(self, data: bytes, *, now: float) -> None:
        """Send a text to every node, unacknowledged."""
        self.messages.broadcast(data, now=now)

    def echo(self, dest: bytes, *, now: float, ttl: int = c.TTL_ROUTED) -> int:
        """Ask a node to answer: see `Messages.echo`."""
        return self.messages.echo(dest, now=now, ttl=ttl)

    def announce(self, *, now: float) -> None:
        """Ask every neighbour to answer at once."""
        token = self.local.token()
        self.neighbours.announced = (token, now)
        self.routes.updates_at = now
        self.routes.send_updates(now)
        for interface in self.local.up:
            self.neighbours.send_hello(interface, now, c.FLAG_PROBE, token)
            for n in interface.neighbours.values():
                if n.v1:
                    self.neighbours.send_probe(n, now)

    def hint(self, dest: bytes, *, now: float) -> None:
        """Probe the next hop towards `dest`: a retransmission timer fired."""
        path = self.routes.path_to(dest)
        if path is not None and path.neighbour.state is UP:
            self.neighbours.probe(path.neighbour, now)

    def leave(self, *, now: float) -> None:  # noqa: ARG002  the one set of verbs
        """Say goodbye. What still arrives for others is forwarded, but nothing is said any more."""
        for interface in self.local.up:
            handshake = self.local.new_handshake(interface, c.FLAG_BYE, 0)
            self.local.send_handshake(interface, c.BROADCAST_ADDRESS, c.EVERYONE, handshake)
        for msg_id in list(self.messages.unacknowledged):
            self.messages.give_up(msg_id)
        self.local.has_left = True
        self.local.timers.clear()

    def set_ports(self, ports: Iterable[int]) -> None:
        """Announce from now on that this node listens on `ports`."""
        self.local.ports = tuple(ports)
        for interface in self.local.interfaces:
            interface.full_hellos_left = c.FULL_HELLOS

    def interface_changed(
        self,
        index: int,
        *,
        mac: Optional[bytes] = None,
        slot: Optional[int] = None,
        mtu: Optional[int] = None,
        up: Optional[bool] = None,
        now: float,
    ) -> None:
        """Learn that an interface has another MAC, with its slot there if a lock gave one, another MTU or carrier."""
        interface = self.local.interfaces[index]
        if mac is not None:
            interface.mac = mac
            if slot is None:
                self.neighbours.choose_slot(interface, now)
            else:
                interface.slot, interface.relays = slot, slot != c.NO_SLOT
                self.neighbours.await_listing(interface, now)
        if mtu is not None:
            interface.mtu = min(mtu, 0xFFFF)
            self.forwarder.clear_caches()
            for n in list(interface.neighbours.values()):
                if not interface.loopback:
                    n.mtu = min(n.mtu, c.ETHERNET_MTU)  # whether more gets through is to be found out anew
                self.routes.reselect_via(n, now)
                self.neighbours.probe_mtu(n, now)
        if up is False and interface in self.local.up:
            self.local.up.remove(interface)
            for n in list(interface.neighbours.values()):
                self.neighbours.remove(n, now)
            interface.next_hello_at = INFINITY
        elif up and interface not in self.local.up:
            self.local.up.append(interface)
        if interface in self.local.up:
            self.neighbours.schedule_hello(interface, now)

    def path_to(self, dest: bytes) -> Optional[Path]:
        """Return the selected route to a node, if there is one."""
        return self.routes.path_to(dest)

    def knows(self, address: bytes) -> bool:
        """Return whether a node was heard of lately, though there may be no route to it at the moment."""
        return address in self.routes.table or address in self.neighbours.indirect_nodes

    def mtu_to(self, dest: bytes) -> int:
        """Return the largest frame (AlexMesh header included) that fits the path, or the interfaces if unknown."""
        path = self.routes.path_to(dest)
        return path.mtu if path is not None else min(interface.mtu for interface in self.local.interfaces)

    def nodes(self) -> List[NodeInfo]:
        """Return every node that there is a route to, with the selected route, and those that only floods may reach."""
        infos = [info for info in self.neighbours.indirect_nodes.values() if self.routes.path_to(info.address) is None]
        for d in self.routes.table.values():
            if d.best is None:
                continue
            n = d.best.neighbour
            direct = n.address == d.address
            rtt = (n.srtt or None) if direct else d.rtt
            heard = n.last_heard if direct else d.adverts[n].time
            hop = (n.interface.index, n.address)
            infos.append(NodeInfo(d.address, *hop, hops_of(d.best), d.best.mtu, d.name, d.ports, rtt, heard))
        return infos

    def next_event(self) -> Optional[MeshEvent]:
        """Return what happened next, or None."""
        return self.local.events.popleft() if self.local.events else None

    # Time

    def next_deadline(self) -> Optional[float]:
        """Return when `tick` has something to do, or None for never."""
        timers = self.local.timers
        while timers and timers[0].action == self.neighbours.on_timer:
            n, due = timers[0].arguments
            if due == n.deadline and self.neighbours.timer_due(n) <= due:
                break
            heappop(timers)  # it was heard meanwhile: among fifty nodes this halves the wake-ups
            if due == n.deadline:
                n.deadline = INFINITY
                self.neighbours.set_timer(n)
        return timers[0].when if timers else None

    def tick(self, *, now: float) -> None:
        """Do what is due."""
        timers = self.local.timers
        while timers and timers[0].when <= now:
            timer = heappop(timers)
            timer.action(*timer.arguments, now)

    def frames_to_send(self, *, now: float) -> List[Transmit]:
        """Do what is due, and return the frames that are to be sent now."""
        if self.local.timers and self.local.timers[0].when <= now:
            self.tick(now=now)
        if not self.local.out:
            return []
        out, self.local.out = self.local.out, []
        return out

    def _sweep(self, now: float) -> None:
        """Remove what is old: routes, destinations, echoes."""
        self.local.at(now + c.SWEEP_SECONDS, self._sweep)
        for d in list(self.routes.table.values()):
            for n, advert in list(d.adverts.items()):
                frames = n.adverts // c.ROUTES_PER_FRAME + 1
                if now - advert.time > max(c.ADVERT_SECONDS, 3 * n.interval * frames):
                    self.routes.withdraw_route(n, d.address, now)
            if not d.adverts and now - d.touched > c.SOURCE_GC_SECONDS:
                del self.routes.table[d.address]
        hold = c.HOLD_INTERVALS * c.HANDSHAKE_INTERVAL
        self.neighbours.indirect_nodes = {
            address: info for address, info in self.neighbours.indirect_nodes.items() if now - info.last_heard < hold
        }
        for token in [token for token, echo in self.messages.echoes.items() if now - echo.sent > c.ECHO_SECONDS]:
            del self.messages.echoes[token]

    # Frames in

    def _receive(self, interface: Interface, data: bytes, now: float) -> Optional[Incoming]:
        """Process a frame that no cached flow fits: from which neighbour, for whom, of which type."""
        destination, source, payload = decode_ethernet(data)
        flooded = destination == c.BROADCAST_ADDRESS
        if not flooded and destination not in (interface.mac, self.local.address):
            raise FrameError("foreign")
        frame = decode_frame(payload)
        if frame.origin == self.local.address:
            self._on_own_frame(interface, source, frame, now)
            raise FrameError("own")
        if frame.type == c.TYPE_STATUS and frame.dest == self.local.address:
            self.messages.on_status(frame, now)
            return None
        is_from_group = source[0] & 1 and frame.type != c.TYPE_STATUS  # v1.0 answers a flood from the broadcast address
        if not is_unicast(frame.origin) or is_from_group:
            is_hello = frame.type == c.TYPE_HANDSHAKE and frame.dest == c.EVERYONE
            if is_hello and frame.origin[0] & 1 and is_unicast(source):
                self.messages.report_strange(frame.origin, "group")
            raise FrameError("origin")
        n = interface.neighbours.get(frame.origin)
        if not n.srtt if n is not None else frame.origin not in self.routes.table:
            self.local.credit.earn(len(data))  # a stranger, or a neighbour that has never answered
        self.neighbours.sender_of(interface, source, frame.origin).unanswered_since = 0.0
        if frame.type == c.TYPE_HANDSHAKE and frame.dest in (c.EVERYONE, self.local.address):
            self._receive_handshake(interface, source, frame, flooded, now)
            return None
        if frame.dest == c.EVERYONE or flooded:
            return self.forwarder.receive_flood(interface, source, frame, now)
        if frame.dest == self.local.address:
            return self.forwarder.deliver(interface, source, frame, now, data)
        self.forwarder.forward(interface, source, frame, now, data)
        return None

    def _on_own_frame(self, interface: Interface, source: bytes, frame: Frame, now: float) -> None:
        """Process a HANDSHAKE with our own id: ours, heard on another interface, or that of a node with the same id."""
        if frame.type != c.TYPE_HANDSHAKE:
            return
        h = decode_handshake(frame.payload)
        if h is not None and h.nonce == self.local.nonce:
            for other in self.local.interfaces:
                if other.mac == source != interface.mac:
                    low, high = sorted((interface, other), key=lambda w: w.index)
                    high.same_lan_as, high.same_lan_until = low, now + c.SAME_LAN_SECONDS
        elif h is None and self.local.first_msg_id < frame.msg_id <= self.local.msg_id:
            return  # one of ours that lost its end
        elif frame.ttl == (c.TTL_V1 if h is None else h.ttl0) and now >= self._alarm_at:
            self._alarm_at = now + c.DUPLICATE_QUIET
            self.local.events.append(DuplicateAddress(source))

    def _receive_handshake(self, interface: Interface, source: bytes, frame: Frame, flooded: bool, now: float) -> None:
        """Dispatch a HANDSHAKE: a neighbour's, an echo, one that a v1.0 node relayed, or a v1.0 node's own."""
        h = decode_handshake(frame.payload)
        directed = frame.dest == self.local.address
        if self.local.has_left:
            raise FrameError("gone")
        if h is None:
            self.neighbours.process_v1_hello(interface, source, frame, directed, now)
        elif directed and (h.ttl0 == c.TTL_ROUTED or frame.ttl != h.ttl0):
            if flooded and not self.forwarder.seen.add((frame.origin, frame.msg_id), now=now):
                raise FrameError("seen")
            self.messages.receive_echo(interface, source, frame, h, now)
        elif frame.ttl != h.ttl0:
            self.neighbours.note_indirect(interface, source, frame.origin, h.ttl0 - frame.ttl + 1, now)
        else:
            self.neighbours.process_hello(interface, source, frame.origin, h, directed, now)


def hops_of(path: Path) -> int:
    """Return about how many hops a path has: lossy links count twice."""
    return max(path.metric // c.HOP_COST, 1)


def routes_room(interface: Interface) -> int:
    """Return the bytes for TLVs in one HANDSHAKE, before the routes."""
    return min(interface.mtu, c.ETHERNET_MTU) - c.MESH_HEADER_BYTES - c.HANDSHAKE_FIXED_BYTES - c.TLV_BYTES
