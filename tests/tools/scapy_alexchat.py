# scapy.contrib.description = AlexChat: AlexMesh and AlexStream over Ethernet
# scapy.contrib.status = loads
# ruff: noqa: ERA001, RUF012  scapy's ways: what contrib files say of themselves, and fields_desc
"""AlexMesh and AlexStream as layers of scapy, written from the drawings in README.md: an oracle for our own codecs.

    >>> from scapy_alexchat import *
    >>> frame = Ether() / AlexMesh(origin="02:00:00:00:00:01", dest="02:00:00:00:00:02") / AlexStream(flags="S")
    >>> Ether(raw(frame)).summary()

Lengths, padding of options and the CRC are filled in when a packet is built, as long as they are None.
"""

import struct
import zlib
from typing import Any, List, Optional, Tuple, Type

from scapy.config import conf
from scapy.error import warning
from scapy.fields import (
    BitField,
    ByteEnumField,
    ByteField,
    FieldLenField,
    FieldListField,
    FlagsField,
    IntField,
    LongField,
    MACField,
    PacketListField,
    ScalingField,
    ShortEnumField,
    ShortField,
    StrField,
    StrLenField,
    XByteField,
    XIntField,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, bind_layers
from scapy.utils import strxor

__all__ = [
    "AlexMesh",
    "AlexMeshAuth",
    "AlexMeshBroadcast",
    "AlexMeshHandshake",
    "AlexMeshHeard",
    "AlexMeshHeardEntry",
    "AlexMeshMessage",
    "AlexMeshName",
    "AlexMeshPad",
    "AlexMeshPorts",
    "AlexMeshRequest",
    "AlexMeshRequestEntry",
    "AlexMeshRoute",
    "AlexMeshRouteEntry",
    "AlexMeshStatus",
    "AlexMeshUnknown",
    "AlexStream",
    "AlexStreamOption",
    "AlexStreamOptionsEnd",
    "AlexStreamSack",
    "AlexStreamSackBlock",
    "AlexStreamSegmentSize",
    "Ether",
]

EVERYONE = "00:00:00:00:00:00"
TYPES = {1: "HANDSHAKE", 2: "MESSAGE", 3: "BROADCAST", 4: "STATUS", 5: "STREAM"}
TLVS = {1: "HEARD", 2: "ROUTE", 3: "REQUEST", 4: "NAME", 5: "PAD", 6: "AUTH", 7: "PORTS"}
SERVICES = {1: "chat", 2: "pipe"}
HANDSHAKE_FIXED, SEGMENT_FIXED, MAGIC = 20, 36, 0xA2


class _Piece(Packet):
    """Part of a list: what follows it is the next part, not its payload."""

    def extract_padding(self, s: bytes) -> Tuple[bytes, bytes]:
        return b"", s


# --- AlexMesh -------------------------------------------------------------------------------------------------------


class AlexMesh(Packet):
    """The 23-byte header, that of v1.0."""

    name = "AlexMesh"
    fields_desc = [
        ByteField("version", 1),
        ByteEnumField("type", 1, TYPES),
        MACField("origin", EVERYONE),
        MACField("dest", EVERYONE),
        BitField("slot", 0, 3),
        BitField("ttl", 5, 5),
        LongField("msg_id", 0),
    ]

    def guess_payload_class(self, payload: bytes) -> Type[Packet]:
        """A v1.0 HANDSHAKE is empty: what is there is padding."""
        if self.version != 1 or (self.type == 1 and payload[0] != MAGIC):
            return conf.padding_layer if payload[:1] == b"\0" else conf.raw_layer
        return super().guess_payload_class(payload)

    def hashret(self) -> bytes:
        return strxor(_bytes_of(self.origin), _bytes_of(self.dest)) + self.payload.hashret()

    def answers(self, other: Packet) -> int:
        if not isinstance(other, AlexMesh) or self.origin != other.dest or self.dest != other.origin:
            return 0
        return int(self.payload.answers(other.payload))

    def mysummary(self) -> Any:
        return self.sprintf("AlexMesh %AlexMesh.type% %AlexMesh.origin% > %AlexMesh.dest% ttl=%AlexMesh.ttl%"), [Ether]


def _bytes_of(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


class _TextField(StrField):
    """Everything but the trailing NULs, which are padding."""

    def getfield(self, pkt: Optional[Packet], s: bytes) -> Tuple[bytes, bytes]:
        text = s.rstrip(b"\0")
        return s[len(text) :], text


class AlexMeshMessage(_Piece):
    """Text for one node; a STATUS answers it."""

    name = "AlexMesh MESSAGE"
    fields_desc = [_TextField("text", b"")]

    def mysummary(self) -> Any:
        return f"{self.name} {self.text!r}", [AlexMesh]


class AlexMeshBroadcast(AlexMeshMessage):
    """Text for everyone."""

    name = "AlexMesh BROADCAST"


class AlexMeshStatus(AlexMeshMessage):
    """`ACK:<msg_id in decimal>`: the MESSAGE of that number has arrived."""

    name = "AlexMesh STATUS"

    def answers(self, other: Packet) -> int:
        asked = other.underlayer
        return int(isinstance(asked, AlexMesh) and asked.type == 2 and self.text == b"ACK:%d" % asked.msg_id)


# --- HANDSHAKE ------------------------------------------------------------------------------------------------------


class AlexMeshHeardEntry(_Piece):
    """A neighbour that is heard, and which incarnation of it."""

    name = "heard"
    fields_desc = [MACField("mac", EVERYONE), XIntField("nonce", 0)]


class AlexMeshRouteEntry(_Piece):
    """A way to a node; metric 65535 takes it back."""

    name = "route"
    fields_desc = [
        MACField("dest", EVERYONE),
        IntField("seq", 0),
        ShortEnumField("metric", 10, {0xFFFF: "retracted"}),
        ShortField("mtu", 1500),
    ]


class AlexMeshRequestEntry(_Piece):
    """Somebody wants a route that is at least this new."""

    name = "request"
    fields_desc = [MACField("dest", EVERYONE), IntField("seq", 0), ByteField("hops", 64)]


def _tlv(number: int, value: Any) -> List[Any]:
    """The fields of a TLV whose value is that field."""
    length = FieldLenField("length", None, length_of=value.name)
    return [ByteEnumField("type", number, TLVS), length, value]


def _length(tlv: Packet) -> int:
    return int(tlv.length)


class AlexMeshUnknown(_Piece):
    """A TLV that nobody knows: to be skipped."""

    name = "TLV"
    fields_desc = _tlv(255, StrLenField("value", b"", length_from=_length))


class AlexMeshHeard(_Piece):
    """Whom the sender hears on this interface."""

    name = "HEARD"
    fields_desc = _tlv(1, PacketListField("entries", [], AlexMeshHeardEntry, length_from=_length))


class AlexMeshRoute(_Piece):
    """The sender's routes."""

    name = "ROUTE"
    fields_desc = _tlv(2, PacketListField("entries", [], AlexMeshRouteEntry, length_from=_length))


class AlexMeshRequest(_Piece):
    """Routes that the sender wants."""

    name = "REQUEST"
    fields_desc = _tlv(3, PacketListField("entries", [], AlexMeshRequestEntry, length_from=_length))


class AlexMeshName(_Piece):
    """Nickname, UTF-8."""

    name = "NAME"
    fields_desc = _tlv(4, StrLenField("value", b"", length_from=_length))


class AlexMeshPad(_Piece):
    """Zeros that try what size gets through."""

    name = "PAD"
    fields_desc = _tlv(5, StrLenField("value", b"", length_from=_length))


class AlexMeshAuth(_Piece):
    """Key number and BLAKE2s-128."""

    name = "AUTH"
    fields_desc = _tlv(6, StrLenField("value", bytes(17), length_from=_length))


class AlexMeshPorts(_Piece):
    """AlexStream ports that are listened on."""

    name = "PORTS"
    fields_desc = _tlv(7, FieldListField("ports", [], ShortField("port", 0), length_from=_length))


_TLV_CLASSES = {
    1: AlexMeshHeard, 2: AlexMeshRoute, 3: AlexMeshRequest, 4: AlexMeshName, 5: AlexMeshPad, 6: AlexMeshAuth,
    7: AlexMeshPorts,
}  # fmt: skip


def _next_tlv(_packet: Packet, _before: Any, _last: Any, left: bytes) -> Optional[Type[Packet]]:
    """A TLV that is longer than what is left ends the list."""
    if len(left) < 3 or 3 + int.from_bytes(left[1:3], "big") > len(left):
        return None
    return _TLV_CLASSES.get(left[0], AlexMeshUnknown)


class AlexMeshHandshake(_Piece):
    """The announcement of a node; also question (PROBE) and answer (REPLY) with one token."""

    name = "AlexMesh HANDSHAKE"
    fields_desc = [
        XByteField("magic", MAGIC),
        BitField("reserved", 0, 1),
        BitField("slot", 0, 3),
        FlagsField("flags", 0, 4, ["PROBE", "REPLY", "FULL", "BYE"]),
        ShortField("length", None),
        ByteField("ttl0", 5),
        ScalingField("interval", 5, scaling=0.1, unit="s", fmt="B"),
        ShortField("mtu", 1500),
        XIntField("nonce", 1),
        IntField("seq", 1),
        XIntField("token", 0),
        PacketListField(
            "tlvs", [], next_cls_cb=_next_tlv, length_from=lambda packet: max(0, packet.length - HANDSHAKE_FIXED)
        ),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.length is None:
            pkt = pkt[:2] + struct.pack(">H", len(pkt)) + pkt[4:]
        return pkt + pay

    def hashret(self) -> bytes:
        return struct.pack(">I", self.token)

    def answers(self, other: Packet) -> int:
        is_asked = isinstance(other, AlexMeshHandshake) and other.flags.PROBE and self.flags.REPLY
        return int(bool(is_asked and self.token == other.token))

    def mysummary(self) -> Any:
        return self.sprintf("HANDSHAKE %AlexMeshHandshake.flags% seq=%AlexMeshHandshake.seq%"), [AlexMesh]


# --- AlexStream -----------------------------------------------------------------------------------------------------


class AlexStreamOption(_Piece):
    """An option that nobody knows: to be skipped. `length` counts the whole option."""

    name = "option"
    fields_desc = [
        ByteField("kind", 255),
        FieldLenField("length", None, length_of="value", fmt="B", adjust=lambda _, size: size + 2),
        StrLenField("value", b"", length_from=lambda option: max(0, option.length - 2)),
    ]


class AlexStreamSegmentSize(_Piece):
    """The largest payload that the sender takes."""

    name = "segment size"
    fields_desc = [ByteField("kind", 2), ByteField("length", 4), ShortField("size", 1400)]


class AlexStreamSackBlock(_Piece):
    """What has arrived beyond a gap: from `left` to before `right`."""

    name = "block"
    fields_desc = [IntField("left", 0), IntField("right", 0)]


class AlexStreamSack(_Piece):
    """Up to 16 blocks, the newest first."""

    name = "SACK"
    fields_desc = [
        ByteField("kind", 5),
        FieldLenField("length", None, length_of="blocks", fmt="B", adjust=lambda _, size: size + 2),
        PacketListField("blocks", [], AlexStreamSackBlock, length_from=lambda option: max(0, option.length - 2)),
    ]


class AlexStreamOptionsEnd(_Piece):
    """Zeros up to the next multiple of 4; also what cannot be read."""

    name = "padding"
    fields_desc = [StrField("zeros", b"")]


def _next_option(_packet: Packet, _before: Any, _last: Any, left: bytes) -> Optional[Type[Packet]]:
    if not left:
        return None
    size = left[1] if len(left) > 1 else 0
    if left[0] == 0 or not 2 <= size <= len(left):
        return AlexStreamOptionsEnd
    if left[0] == 2 and size == 4:
        return AlexStreamSegmentSize
    return AlexStreamSack if left[0] == 5 and size % 8 == 2 else AlexStreamOption


class AlexStream(Packet):
    """A segment; its payload follows as Raw, and what the frame has beyond that as Padding."""

    name = "AlexStream"
    fields_desc = [
        ShortField("stream", 1),
        FlagsField("flags", 2, 8, "SAFDRPI!"),
        ByteField("words", None),
        ShortEnumField("port", 1, SERVICES),
        ShortField("length", None),
        IntField("seq", 0),
        IntField("ack", 0),
        IntField("window", 0x80000),
        IntField("tag", 0),
        IntField("ts", 1),
        IntField("echo", 0),
        XIntField("crc", None),
        PacketListField(
            "options", [], next_cls_cb=_next_option, length_from=lambda packet: max(0, packet.words * 4 - SEGMENT_FIXED)
        ),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        pkt += bytes(-len(pkt) % 4)
        words = len(pkt) // 4 if self.words is None else self.words
        length = len(pay) if self.length is None else self.length
        pkt = pkt[:3] + struct.pack(">B", words) + pkt[4:6] + struct.pack(">H", length) + pkt[8:]
        if self.crc is None:
            pkt = pkt[:32] + struct.pack(">I", self.right_crc(pkt + pay)) + pkt[36:]
        return pkt + pay

    def right_crc(self, segment: bytes) -> int:
        """The CRC-32 over both addresses and the segment, its own field as zeros."""
        if not isinstance(self.underlayer, AlexMesh):
            warning("No AlexMesh underlayer to compute the CRC. Leave null.")
            return 0
        addresses = _bytes_of(self.underlayer.origin) + _bytes_of(self.underlayer.dest)
        return zlib.crc32(addresses + segment[:32] + bytes(4) + segment[36:])

    def extract_padding(self, s: bytes) -> Tuple[bytes, bytes]:
        return s[: self.length], s[self.length :]

    def hashret(self) -> bytes:
        return struct.pack(">HH", self.stream, self.port)

    def answers(self, other: Packet) -> int:
        """Whether this acknowledges that transmission: its `echo` names it."""
        if not isinstance(other, AlexStream) or (self.stream, self.port) != (other.stream, other.port):
            return 0
        return int(self.flags.I != other.flags.I and bool(self.flags.A) and self.echo == other.ts)

    def mysummary(self) -> Any:
        return self.sprintf(
            "AlexStream %AlexStream.stream% > %AlexStream.port% %AlexStream.flags% "
            "seq=%AlexStream.seq% ack=%AlexStream.ack%"
        ), [AlexMesh]


bind_layers(Ether, AlexMesh, type=0x88B5)
bind_layers(AlexMesh, AlexMeshHandshake, type=1)
bind_layers(AlexMesh, AlexMeshMessage, type=2)
bind_layers(AlexMesh, AlexMeshBroadcast, type=3)
bind_layers(AlexMesh, AlexMeshStatus, type=4)
bind_layers(AlexMesh, AlexStream, type=5)
