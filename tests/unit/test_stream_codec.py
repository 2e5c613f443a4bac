"""The segment codec against golden vectors, against an encoder of the tests' own, and every way to spoil a segment."""

import random
from typing import List

import pytest
import streamwire
from hypothesis import HealthCheck, given, settings, strategies as st
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, SYN, Wire

import alexstream
from alexstream import Segment, SegmentError, decode_segment, encode_segment
from utils import Range

A, B = b"\x02\x00\x00\x00\x00\x01", b"\x02\x00\x00\x00\x00\x02"

GOLDEN = [
    (
        "SYN",
        A,
        B,
        "1234410a00070000fffffff0000000000008000000000000000f42400000000008b4ef3602040578",
        Wire(0x1234, SYN | INIT, 7, 0xFFFFFFF0, 0, 0x80000, 0, 1000000, 0, 1400),
    ),
    (
        "SYN-ACK",
        B,
        A,
        "1234030a0007000001020304fffffff100080000fffffff0004c4b40000f4240c2d964fd02040578",
        Wire(0x1234, SYN | ACK, 7, 0x01020304, 0xFFFFFFF1, 0x80000, 0xFFFFFFF0, 5000000, 1000000, 1400),
    ),
    (
        "cookie echo",
        A,
        B,
        "1234620a00070000fffffff1010203050008000001020304000f4434004c4b4088cbc4ba02040578",
        Wire(0x1234, ACK | INIT | PUSH, 7, 0xFFFFFFF1, 0x01020305, 0x80000, 0x01020304, 1000500, 5000000, 1400),
    ),
    (
        "DATA hello FIN",
        A,
        B,
        "12346e0900070005fffffff1010203050008000001020304000f4498004c4b407a8cb69268656c6c6f",
        Wire(
            0x1234,
            ACK | INIT | PUSH | DATA | FIN,
            7,
            0xFFFFFFF1,
            0x01020305,
            0x80000,
            0x01020304,
            1000600,
            5000000,
            payload=b"hello",
        ),
    ),
    (
        "ACK and 2 SACKs",
        B,
        A,
        "1234020e0007000001020305fffffff100080000fffffff0004c4dfc000f449802340ea6"
        "0512fffffff60000000500000010000000200000",
        Wire(
            0x1234,
            ACK,
            7,
            0x01020305,
            0xFFFFFFF1,
            0x80000,
            0xFFFFFFF0,
            5000700,
            1000600,
            sacks=((0xFFFFFFF6, 5), (0x10, 0x20)),
        ),
    ),
    (
        "RST of a live A",
        A,
        B,
        "1234520900070000fffffff7010203050000000001020304000f44fc004c4dfcb57c8f14",
        Wire(0x1234, RST | ACK | INIT, 7, 0xFFFFFFF7, 0x01020305, 0, 0x01020304, 1000700, 5000700),
    ),
    (
        "RST of a stateless B",
        B,
        A,
        "1234100900070000010203050000000000000000010203040000000000000000cb97cc70",
        Wire(0x1234, RST, 7, 0x01020305, 0, 0, 0x01020304, 0, 0),
    ),
]


def to_segment(wire: Wire) -> Segment:
    """The same record in alexstream's type."""
    return Segment(**dict(wire._asdict(), sacks=tuple(Range(*sack) for sack in wire.sacks)))


def flags_are_valid(flags: int, length: int) -> bool:
    """The validity table, straight from its sentences."""
    syn, ack, fin, data, rst = (bool(flags & bit) for bit in (SYN, ACK, FIN, DATA, RST))
    return (
        flags < 128
        and data == (length > 0)
        and not (syn and (fin or rst or data))
        and not (rst and (fin or data))
        and (syn or rst or ack)
    )


VALID_FLAGS = [flags for flags in range(256) if flags_are_valid(flags, 0) or flags_are_valid(flags, 1)]
U32 = st.integers(0, 2**32 - 1)


@st.composite
def wires(draw: "st.DrawFn") -> Wire:
    """Any valid segment."""
    flags = draw(st.sampled_from(VALID_FLAGS))
    payload = draw(st.binary(min_size=1, max_size=1500)) if flags & DATA else b""
    return Wire(
        draw(st.integers(1, 65535)),
        flags,
        draw(st.integers(0, 65535)),
        draw(U32),
        draw(U32),
        draw(U32),
        draw(U32),
        draw(U32),
        draw(U32),
        draw(st.none() | st.integers(0, 65535)),
        tuple(draw(st.lists(st.tuples(U32, U32), max_size=16))),
        payload,
    )


def random_wires(count: int, seed: int) -> List[Wire]:
    """Valid segments of up to 40 bytes of payload."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        flags = rng.choice(VALID_FLAGS)
        payload = bytes(rng.getrandbits(8) for _ in range(rng.randint(1, 40))) if flags & DATA else b""
        numbers = [rng.getrandbits(32) for _ in range(6)]
        size = rng.choice([None, rng.getrandbits(16)])
        sacks = tuple((rng.getrandbits(32), rng.getrandbits(32)) for _ in range(rng.randint(0, 3)))
        wire = Wire(rng.randint(1, 65535), flags, rng.getrandbits(16), *numbers)  # type: ignore[arg-type]
        made.append(wire._replace(segment_size=size, sacks=sacks, payload=payload))
    return made


def reason_of(data: bytes) -> str:
    """Why `data` is refused; "" when it is not."""
    try:
        decode_segment(data, A, B)
    except SegmentError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(("name", "origin", "destination", "text", "wire"), GOLDEN, ids=[row[0] for row in GOLDEN])
def test_golden_encode(name: str, origin: bytes, destination: bytes, text: str, wire: Wire) -> None:
    assert encode_segment(to_segment(wire), origin, destination).hex() == text
    assert streamwire.pack(wire, origin, destination).hex() == text


@pytest.mark.parametrize(("name", "origin", "destination", "text", "wire"), GOLDEN, ids=[row[0] for row in GOLDEN])
def test_golden_decode(name: str, origin: bytes, destination: bytes, text: str, wire: Wire) -> None:
    assert decode_segment(bytes.fromhex(text), origin, destination) == to_segment(wire)
    assert streamwire.unpack(bytes.fromhex(text)) == wire


@settings(
    max_examples=max(1000, 20 * settings().max_examples), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(wires())
def test_round_trip(wire: Wire) -> None:
    segment = to_segment(wire)
    data = encode_segment(segment, A, B)
    assert data == streamwire.pack(wire, A, B)
    assert decode_segment(data, A, B) == segment


def test_every_single_bit_flipped() -> None:
    for wire in random_wires(200, seed=25):
        data = bytearray(streamwire.pack(wire, A, B))
        for bit in range(8 * len(data)):
            data[bit >> 3] ^= 1 << (bit & 7)
            assert reason_of(bytes(data)) in ("checksum", "length"), (wire, bit)
            data[bit >> 3] ^= 1 << (bit & 7)
        assert reason_of(bytes(data)) == ""


def test_every_truncation() -> None:
    for wire in random_wires(50, seed=26):
        data = streamwire.pack(wire, A, B)
        for size in range(len(data)):
            assert reason_of(data[:size]) == ("short" if size < 36 else "length"), (wire, size)


@pytest.mark.parametrize("filler", [b"\x00", b"\xff"])
def test_padding_0_to_1500_is_ignored(filler: bytes) -> None:
    for wire in random_wires(3, seed=27):
        data = streamwire.pack(wire, A, B)
        for padding in range(1501):
            assert decode_segment(data + filler * padding, A, B) == to_segment(wire)


def test_bytes_like_input_is_decoded_alike() -> None:
    data = streamwire.pack(random_wires(1, seed=28)[0], A, B)
    assert decode_segment(memoryview(data), A, B) == decode_segment(data, A, B)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 1, 5])
def test_all_256_flags(length: int) -> None:
    for flags in range(256):
        data = streamwire.pack(Wire(flags=flags, payload=b"x" * length), A, B)
        assert (reason_of(data) == "") == flags_are_valid(flags, length), flags


def test_words_0_to_255() -> None:
    for words in range(256):
        blank = streamwire.pack(Wire(), A, B, options=bytes(64), words=words)  # 100 bytes; the checksum is right
        assert reason_of(blank) == ("" if 9 <= words <= 25 else "length"), words


def test_words_255_with_all_its_bytes() -> None:
    data = streamwire.pack(Wire(), A, B, options=bytes(255 * 4 - 36))
    assert decode_segment(data, A, B) == to_segment(Wire())


def test_length_beyond_what_was_received() -> None:
    for length in (6, 1000, 0xFFFF):
        data = streamwire.pack(Wire(flags=ACK | DATA, payload=b"hello"), A, B, length=length)
        assert reason_of(data) == "length"


def test_checksum_covers_both_addresses() -> None:
    data = streamwire.pack(Wire(), A, B)
    for origin, destination in ((B, A), (A, A), (b"\x02\0\0\0\0\x03", B)):
        with pytest.raises(SegmentError) as caught:
            decode_segment(data, origin, destination)
        assert caught.value.reason == "checksum"


def test_stream_0_is_refused() -> None:
    assert reason_of(streamwire.pack(Wire(stream=0), A, B)) == "stream"


def test_refusals_name_a_reason() -> None:
    assert reason_of(b"") == "short"
    assert reason_of(streamwire.pack(Wire(flags=0), A, B)) == "flags"
    assert reason_of(streamwire.pack(Wire(), A, B, options=b"\x05\x01\0\0")) == "option"


@pytest.mark.parametrize(
    "options", ["09040000", "0906000000000000", "fe020000", "0904000002040578", "0204057809040000"]
)
def test_unknown_option_is_skipped(options: str) -> None:
    data = streamwire.pack(Wire(), A, B, options=bytes.fromhex(options))
    assert decode_segment(data, A, B) == to_segment(Wire(segment_size=1400 if "0578" in options else None))


@pytest.mark.parametrize("options", ["02000000", "02010578", "05c80000", "09ff0000", "00000002", "02040578050a0000"])
def test_bad_option_length_drops_the_segment(options: str) -> None:
    if options == "00000002":  # zeros are padding: what follows them is not an option, or one cut short
        options = "09030002"
    assert reason_of(streamwire.pack(Wire(), A, B, options=bytes.fromhex(options))) == "option"


@pytest.mark.parametrize("options", ["05070000000000000000"[:16], "050b000000000000000000" + "00", "05020000"])
def test_sack_that_is_no_multiple_of_8_is_ignored(options: str) -> None:
    data = streamwire.pack(Wire(), A, B, options=bytes.fromhex(options))
    assert decode_segment(data, A, B).sacks == ()


def test_segment_size_of_a_wrong_length_is_ignored() -> None:
    data = streamwire.pack(Wire(), A, B, options=bytes.fromhex("0203050002060578ffff0000"))
    assert decode_segment(data, A, B).segment_size is None


def test_more_than_16_sacks_are_cut() -> None:
    sacks = tuple((10 * n, 10 * n + 5) for n in range(31))
    segment = decode_segment(streamwire.pack(Wire(sacks=sacks), A, B), A, B)
    assert segment.sacks == tuple(Range(*sack) for sack in sacks[:16])


def test_crc_is_the_common_one() -> None:
    """Bit by bit, as IEEE 802.3 writes it: zlib's is the one meant."""

    def bitwise(data: bytes) -> int:
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
        return crc ^ 0xFFFFFFFF

    rng = random.Random(32)
    for size in range(1, 200):
        payload = bytes(rng.getrandbits(8) for _ in range(size))
        sacks = tuple(Range(rng.getrandbits(32), rng.getrandbits(32)) for _ in range(rng.randint(0, 3)))
        wire = Wire(seq=rng.getrandbits(32), ts=rng.getrandbits(32), sacks=sacks, payload=payload, flags=ACK | DATA)
        data = encode_segment(to_segment(wire), A, B)
        assert bitwise(A + B + data[:32] + bytes(4) + data[36:]) == int.from_bytes(data[32:36], "big")
        assert decode_segment(data, A, B).payload == payload


def test_random_bytes_never_raise_anything_else() -> None:
    rng = random.Random(29)
    for _ in range(5000):
        data = bytes(rng.getrandbits(8) for _ in range(rng.randint(36, 80)))
        data = streamwire.seal(data[:3] + bytes([rng.randint(9, 12)]) + data[4:6] + b"\0\4" + data[8:], A, B)
        reason_of(data)


def test_codec_is_the_only_one() -> None:
    assert issubclass(alexstream.SegmentError, ValueError)
