"""The AlexStream segment written from its drawing alone: the tests' own codec, an oracle for alexstream's.

It checks nothing and refuses nothing: tests need wrong segments too.
"""

import struct
import zlib
from typing import List, NamedTuple, Optional, Sequence, Tuple

SYN, ACK, FIN, DATA, RST, PUSH, INIT, RESERVED = 1, 2, 4, 8, 16, 32, 64, 128
HEADER = struct.Struct(">HBBHHIIIIIII")  # stream flags words port length seq ack window tag ts echo crc
WRAP = 1 << 32


class Wire(NamedTuple):
    """A segment as it travels: every number modulo 2**32."""

    stream: int = 0x1234
    flags: int = ACK
    port: int = 7
    seq: int = 0
    ack: int = 0
    window: int = 0x80000
    tag: int = 0
    ts: int = 1
    echo: int = 0
    segment_size: Optional[int] = None
    sacks: Tuple[Tuple[int, int], ...] = ()
    payload: bytes = b""

    def end(self) -> int:
        """The position after the last one that this segment takes, modulo 2**32."""
        taken = len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)
        return (self.seq + taken) % WRAP

    def describe(self) -> str:
        """One line of a trace."""
        names = "SAFDRPI?"
        flags = "".join(names[bit] for bit in range(8) if self.flags >> bit & 1)
        text = f"{self.stream:5d} {flags:5s} seq {self.seq:10d}+{len(self.payload):<5d} ack {self.ack:10d} "
        text += f"win {self.window:6d} ts {self.ts:10d} echo {self.echo:10d}"
        return text + "".join(" sack {}-{}".format(*sack) for sack in self.sacks)


def pack_options(segment_size: Optional[int], sacks: Sequence[Tuple[int, int]]) -> bytes:
    """Kind, length, value of each; zeros to a multiple of 4."""
    options = b"" if segment_size is None else struct.pack(">BBH", 2, 4, segment_size)
    if sacks:
        options += struct.pack(">BB", 5, 2 + 8 * len(sacks))
        options += b"".join(struct.pack(">II", start % WRAP, stop % WRAP) for start, stop in sacks)
    return options + bytes(-len(options) % 4)


def pack(
    wire: Wire,
    origin: bytes,
    destination: bytes,
    *,
    options: Optional[bytes] = None,
    words: Optional[int] = None,
    length: Optional[int] = None,
) -> bytes:
    """The bytes of `wire`; `options`, `words`, `length` replace what would be right; the checksum is right always."""
    options = pack_options(wire.segment_size, wire.sacks) if options is None else options
    numbers = [number % WRAP for number in (wire.seq, wire.ack, wire.window, wire.tag, wire.ts, wire.echo)]
    words = 9 + len(options) // 4 if words is None else words
    length = len(wire.payload) if length is None else length
    blank = HEADER.pack(wire.stream, wire.flags, words, wire.port, length, *numbers, 0)
    return seal(blank + options + wire.payload, origin, destination)


def seal(segment: bytes, origin: bytes, destination: bytes) -> bytes:
    """`segment` with the checksum that belongs to it (over its declared length, where it has that much)."""
    end = segment[3] * 4 + int.from_bytes(segment[6:8], "big")
    blank = segment[:32] + bytes(4) + segment[36:]
    crc = zlib.crc32(origin + destination + blank[:end])
    return segment[:32] + crc.to_bytes(4, "big") + segment[36:]


def unpack(data: bytes) -> Wire:
    """The segment in `data`; the checksum is not looked at."""
    stream, flags, words, port, length, seq, ack, window, tag, ts, echo, _ = HEADER.unpack_from(data)
    start = words * 4
    size: Optional[int] = None
    sacks: List[Tuple[int, int]] = []
    at = HEADER.size
    while at < start and data[at]:
        kind, span = data[at], data[at + 1]
        value = data[at + 2 : at + span]
        if kind == 2:
            size = int.from_bytes(value, "big")
        elif kind == 5:
            sacks = [struct.unpack_from(">II", value, place) for place in range(0, len(value) - 7, 8)]
        at += span
    payload = bytes(data[start : start + length])
    return Wire(stream, flags, port, seq, ack, window, tag, ts, echo, size, tuple(sacks), payload)


def is_whole(data: bytes) -> bool:
    """Whether the segment is as long as it says, no shorter and no longer."""
    _, _, words, _, length, *_ = HEADER.unpack_from(data)
    return bool(4 * words + length == len(data))


def checksum_is_right(data: bytes, origin: bytes, destination: bytes) -> bool:
    """Whether the checksum inside `data` is the one that `seal` would write."""
    return seal(data, origin, destination)[32:36] == data[32:36]
