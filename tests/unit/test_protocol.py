"""protocol.py: the AlexMesh codec against vectors written out by hand, and against a second decoder."""

import struct
from typing import Callable

import pytest
import v1
from hypothesis import given, strategies as st

from constants import DESTINATIONS_MAX
from protocol import (
    Ethernet,
    Frame,
    FrameError,
    Handshake,
    Heard,
    Request,
    Route,
    decode_ethernet,
    decode_frame,
    decode_handshake,
    encode_ethernet,
    encode_frame,
    encode_handshake,
    parse_status,
    parse_text,
    status_payload,
    text_payload,
)

A, B, C, D, E = (bytes([0x6A, 0, 0, 0, 0, last]) for last in range(1, 6))

# --- Ethernet -------------------------------------------------------------------------------------------------------


def test_ethernet_golden() -> None:
    data = encode_ethernet(B, A, b"abc")
    assert data == bytes.fromhex("6a0000000002 6a0000000001 88b5 616263".replace(" ", ""))
    assert decode_ethernet(data) == Ethernet(destination=B, source=A, payload=b"abc")


@pytest.mark.parametrize("size", range(14))
def test_ethernet_short(size: int) -> None:
    with pytest.raises(FrameError) as error:
        decode_ethernet(encode_ethernet(B, A, b"")[:size])
    assert error.value.reason == "short"


def test_ethernet_without_payload() -> None:
    assert decode_ethernet(encode_ethernet(B, A, b"")).payload == b""


@pytest.mark.parametrize("ethertype", [0x0000, 0x0800, 0x88B4, 0x88B6, 0xB588, 0xFFFF])
def test_ethernet_of_another_protocol(ethertype: int) -> None:
    with pytest.raises(FrameError) as error:
        decode_ethernet(B + A + struct.pack(">H", ethertype) + bytes(46))
    assert error.value.reason == "ethertype"


# --- The frame ------------------------------------------------------------------------------------------------------

#                      version type origin dest ttl msg_id payload
FRAME_HEX = "01 02 6a0000000001 6a0000000002 05 0000018bcfe56800 6869"
FRAME = Frame(type=2, origin=A, dest=B, ttl=5, msg_id=1700000000000, payload=b"hi")
FRAME_DATA = bytes.fromhex(FRAME_HEX.replace(" ", ""))

addresses = st.binary(min_size=6, max_size=6)
u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
u3, u5 = st.integers(0, 7), st.integers(0, 31)
frames = st.builds(Frame, st.integers(1, 5), addresses, addresses, u5, u64, st.binary(max_size=100), u3)


def reason_of(decode: Callable[[bytes], object], data: bytes) -> str:
    with pytest.raises(FrameError) as error:
        decode(data)
    assert str(error.value) == error.value.reason
    return error.value.reason


def test_frame_golden() -> None:
    assert encode_frame(FRAME) == FRAME_DATA
    assert decode_frame(FRAME_DATA) == FRAME
    assert len(encode_frame(FRAME._replace(payload=b""))) == 23


def test_frame_keeps_padding() -> None:
    assert decode_frame(FRAME_DATA.ljust(46, b"\0")).payload == b"hi" + bytes(21)


@given(frames)
def test_frame_round_trip(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(frames)
def test_frame_as_v1_sees_it(frame: Frame) -> None:
    """The octet that is the ttl there holds the slot in its high three bits."""
    seen = frame._replace(ttl=frame.ttl + 32 * frame.slot)[:6]
    assert v1.decode(encode_frame(frame)) == (1, *seen)
    assert v1.encode(*seen) == encode_frame(frame)


@pytest.mark.parametrize("size", range(23))
def test_frame_cut(size: int) -> None:
    assert reason_of(decode_frame, FRAME_DATA[:size]) == "short"


@pytest.mark.parametrize("version", [0, 2, 3, 0xA2, 255])
def test_frame_of_another_version(version: int) -> None:
    assert reason_of(decode_frame, bytes([version]) + FRAME_DATA[1:]) == "version"


def test_frame_types() -> None:
    for kind in range(256):
        data = FRAME_DATA[:1] + bytes([kind]) + FRAME_DATA[2:]
        if kind in (1, 2, 3, 4, 5):
            assert decode_frame(data).type == kind
        else:
            assert reason_of(decode_frame, data) == "type"


@given(st.one_of(st.binary(max_size=80), st.binary(min_size=21, max_size=80).map(lambda data: b"\x01\x01" + data)))
def test_frame_from_any_bytes(data: bytes) -> None:
    try:
        frame = decode_frame(data)
    except FrameError:
        return
    assert encode_frame(frame) == data


# --- Text and STATUS ------------------------------------------------------------------------------------------------


def test_text_payload() -> None:
    assert text_payload("", 0) == b""
    assert text_payload("zo\u00eb \U0001f600", 9) == b"zo\xc3\xab \xf0\x9f\x98\x80"
    assert text_payload("\udcc3\udcab", 10) == b"\xc3\xab"  # what a C locale makes of a typed e with diaeresis


@pytest.mark.parametrize("text", ["a\0", "\0", "\0a", "a\0b"])
def test_text_payload_refuses_nul(text: str) -> None:
    with pytest.raises(ValueError, match=r"^the text contains a NUL character$"):
        text_payload(text, 100)


@pytest.mark.parametrize("text", ["a\ud800", "\udcff", "a\udc80b"])
def test_text_payload_refuses_what_is_no_text(text: str) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        text_payload(text, 100)


def test_text_payload_counts_bytes() -> None:
    assert text_payload("\u00eb" * 5, 10) == b"\xc3\xab" * 5
    with pytest.raises(ValueError, match=r"^too long: the text has 10 bytes, a frame to there has room for 9$"):
        text_payload("\u00eb" * 5, 9)


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), st.integers(0, 40))
def test_text_round_trip(text: str, padding: int) -> None:
    assert parse_text(text_payload(text, 1 << 20) + bytes(padding)).decode("utf-8") == text


def test_parse_text_cuts_only_the_end() -> None:
    assert parse_text(b"\0a\0b\0\0") == b"\0a\0b"
    assert parse_text(bytes(30)) == b""
    for last in range(1, 256):
        assert parse_text(bytes([65, last, 0, 0])) == bytes([65, last])


def test_status_golden() -> None:
    assert status_payload(0) == b"ACK:0"
    assert status_payload((1 << 64) - 1) == b"ACK:18446744073709551615"
    assert parse_status(b"ACK:1700000000000" + bytes(6)) == 1700000000000


@given(u64, st.integers(0, 30))
def test_status_round_trip(msg_id: int, padding: int) -> None:
    assert parse_status(status_payload(msg_id) + bytes(padding)) == msg_id


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0",
        b"ACK",
        b"ACK:",
        b"ACK:\0",
        b"ack:1",
        b"NAK:1",
        b"ACK:-1",
        b"ACK: 1",
        b"ACK:1 ",
        b"ACK:1\n",
        b"ACK:1_0",
        b"ACK:0x1",
        b"ACK:1\x002",
        b" ACK:1",
        b"ACK:\xd9\xa1",
        b"ACK:" + b"1" * 21,
    ],
)
def test_status_of_something_else(payload: bytes) -> None:
    assert parse_status(payload) is None


# --- HANDSHAKE ------------------------------------------------------------------------------------------------------

HANDSHAKE = Handshake(
    flags=5,
    ttl0=5,
    interval=5.0,
    mtu=1500,
    nonce=0xDEADBEEF,
    seq=1700000000,
    token=0x01020304,
    heard=(Heard(mac=B, nonce=0x0BADCAFE),),
    routes=(Route(dest=C, seq=1700000001, metric=10, mtu=1500), Route(dest=D, seq=1, metric=0xFFFF, mtu=9000)),
    requests=(Request(dest=E, seq=1700000002, hops=64),),
    name="zo\u00eb",
    ports=(1, 2),
    pad=3,
)
HANDSHAKE_HEX = [
    # magic flags length ttl0 interval mtu nonce seq token
    "a2 05 0062 05 32 05dc deadbeef 6553f100 01020304",
    "01 000a 6a0000000002 0badcafe",  # HEARD
    "02 001c 6a0000000003 6553f101 000a 05dc 6a0000000004 00000001 ffff 2328",  # ROUTE
    "03 000b 6a0000000005 6553f102 40",  # REQUEST
    "04 0004 7a6fc3ab",  # NAME
    "07 0004 0001 0002",  # PORTS
    "05 0003 000000",  # PAD
]
PARTS = [bytes.fromhex(part.replace(" ", "")) for part in HANDSHAKE_HEX]
HANDSHAKE_DATA = b"".join(PARTS)
BARE = Handshake(flags=0, ttl0=0, interval=0.0, mtu=0, nonce=1, seq=0)

texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
handshakes = st.builds(
    Handshake,
    flags=u8.map(lambda flags: flags & 0x8F),
    ttl0=u8,
    interval=u8.map(lambda tenths: tenths / 10),
    mtu=u16,
    nonce=st.integers(1, 0xFFFFFFFF),
    seq=u32,
    token=u32,
    heard=st.one_of(st.none(), st.lists(st.builds(Heard, addresses, u32), max_size=5).map(tuple)),
    routes=st.lists(st.builds(Route, addresses, u32, st.integers(1, 0xFFFF), u16), max_size=5).map(tuple),
    requests=st.lists(st.builds(Request, addresses, u32, u8), max_size=5).map(tuple),
    name=st.one_of(st.none(), texts),
    ports=st.one_of(st.none(), st.lists(u16, max_size=5).map(tuple)),
    pad=st.integers(0, 50),
    slot=u3,
)


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def read_tlvs(data: bytes) -> Handshake:
    """A second decoder, byte by byte: what these TLVs say, in a HANDSHAKE that says nothing else."""
    found = BARE
    at = 0
    while len(data) - at >= 3 and at + 3 + number(data[at + 1 : at + 3]) <= len(data):
        kind, size = data[at], number(data[at + 1 : at + 3])
        value, at = data[at + 3 : at + 3 + size], at + 3 + size
        if kind == 1:
            rows = [value[i : i + 10] for i in range(0, size - 9, 10)]
            heard = tuple(Heard(row[:6], number(row[6:])) for row in rows)
            found = found._replace(heard=(found.heard or ()) + heard)
        elif kind == 2:
            rows = [value[i : i + 14] for i in range(0, size - 13, 14)]
            routes = [Route(r[:6], number(r[6:10]), number(r[10:12]), number(r[12:])) for r in rows]
            found = found._replace(routes=(*found.routes, *(route for route in routes if route.metric)))
        elif kind == 3:
            rows = [value[i : i + 11] for i in range(0, size - 10, 11)]
            requests = tuple(Request(row[:6], number(row[6:10]), row[10]) for row in rows)
            found = found._replace(requests=found.requests + requests)
        elif kind == 4:
            found = found._replace(name=value.decode("utf-8", "replace"))
        elif kind == 5:
            found = found._replace(pad=found.pad + size)
        elif kind == 7:
            ports = tuple(number(value[i : i + 2]) for i in range(0, size - 1, 2))
            found = found._replace(ports=(found.ports or ()) + ports)
    return found


def assert_read_alike(decoded: Handshake, tlvs: bytes) -> None:
    found = read_tlvs(tlvs)
    names = ("heard", "routes", "requests", "name", "ports", "pad")
    assert [getattr(decoded, name) for name in names] == [getattr(found, name) for name in names]


def read(payload: bytes) -> Handshake:
    """Decode a HANDSHAKE that is not one of v1.0."""
    handshake = decode_handshake(payload)
    assert handshake is not None
    return handshake


def with_tlvs(tlvs: bytes) -> bytes:
    """A valid fixed part whose length covers `tlvs`."""
    return b"\xa2\x00" + struct.pack(">H", 20 + len(tlvs)) + bytes([5, 50, 5, 0xDC, 0, 0, 0, 7]) + bytes(8) + tlvs


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def test_handshake_golden() -> None:
    assert encode_handshake(HANDSHAKE) == HANDSHAKE_DATA
    assert decode_handshake(HANDSHAKE_DATA) == HANDSHAKE


def test_handshake_golden_bare() -> None:
    data = bytes.fromhex("a200001400000000000000010000000000000000")
    assert encode_handshake(BARE) == data
    assert decode_handshake(data) == BARE


def test_handshake_says_that_lists_are_there_and_empty() -> None:
    handshake = BARE._replace(heard=(), ports=(), name="")
    data = encode_handshake(handshake)
    assert data[20:] == bytes.fromhex("010000 040000 070000".replace(" ", ""))
    assert decode_handshake(data) == handshake


@given(handshakes, st.binary(max_size=40))
def test_handshake_round_trip(handshake: Handshake, padding: bytes) -> None:
    assert decode_handshake(encode_handshake(handshake) + padding) == handshake


def test_handshake_interval_is_exact() -> None:
    for tenths in range(256):
        handshake = BARE._replace(interval=tenths / 10)
        data = encode_handshake(handshake)
        assert data[5] == tenths
        assert decode_handshake(data) == handshake


def test_handshake_with_100_routes_fits_an_ethernet_frame() -> None:
    routes = tuple(Route(B, seq, 10, 1500) for seq in range(100))
    data = encode_handshake(BARE._replace(routes=routes))
    assert len(data) + 23 <= 1500
    assert read(data).routes == routes


@pytest.mark.parametrize("payload", [b"", b"\0", bytes(23), bytes(1477), b"\0\xa2garbage"])
def test_handshake_of_v1(payload: bytes) -> None:
    assert decode_handshake(payload) is None


def test_handshake_of_another_magic() -> None:
    for magic in set(range(1, 256)) - {0xA2}:
        assert reason_of(decode_handshake, bytes([magic]) + HANDSHAKE_DATA[1:]) == "magic"


def test_handshake_cut_anywhere() -> None:
    for size in range(1, len(HANDSHAKE_DATA)):
        assert reason_of(decode_handshake, HANDSHAKE_DATA[:size]) == ("short" if size < 20 else "length")


def test_handshake_lies_about_its_length() -> None:
    for length in range(0x10000):
        data = HANDSHAKE_DATA[:2] + struct.pack(">H", length) + HANDSHAKE_DATA[4:]
        if 20 <= length <= len(HANDSHAKE_DATA):
            assert_read_alike(read(data), HANDSHAKE_DATA[20:length])
        else:
            assert reason_of(decode_handshake, data) == "length"


def test_handshake_without_nonce() -> None:
    assert reason_of(decode_handshake, HANDSHAKE_DATA[:8] + bytes(4) + HANDSHAKE_DATA[12:]) == "nonce"


def test_handshake_keeps_what_came_before_a_tlv_that_crosses_the_end() -> None:
    whole = [HANDSHAKE._replace(pad=0)]
    whole.append(whole[-1]._replace(ports=None))
    whole.append(whole[-1]._replace(name=None))
    whole.append(whole[-1]._replace(requests=()))
    whole.append(whole[-1]._replace(routes=()))
    whole.append(whole[-1]._replace(heard=None))
    for missing, expected in enumerate(whole, 1):
        kept, crossing = b"".join(PARTS[:-missing]), PARTS[-missing]
        for size in range(len(crossing)):
            data = kept + crossing[:size]
            data = data[:2] + struct.pack(">H", len(data)) + data[4:]
            assert decode_handshake(data + bytes(100)) == expected


@pytest.mark.parametrize("part", range(1, len(PARTS)))
def test_handshake_lies_about_the_length_of_a_tlv(part: int) -> None:
    at = sum(map(len, PARTS[:part]))
    for size in [*range(200), *range(200, 0x10000, 997), 0x7FFF, 0x8000, 0xFFFF]:
        data = HANDSHAKE_DATA[: at + 1] + struct.pack(">H", size) + HANDSHAKE_DATA[at + 3 :]
        assert_read_alike(read(data), data[20:])


def test_handshake_skips_unknown_tlvs() -> None:
    for kind in set(range(256)) - {1, 2, 3, 4, 5, 7}:
        unknown = tlv(kind, b"\x01\x00\x02xy")
        data = with_tlvs(unknown + PARTS[1] + unknown + PARTS[4] + unknown)
        decoded = read(data)
        assert decoded == decode_handshake(with_tlvs(PARTS[1] + PARTS[4]))
        assert (decoded.heard, decoded.name) == (HANDSHAKE.heard, "zo\u00eb")


@pytest.mark.parametrize("extra", range(14))
def test_handshake_ignores_what_is_too_short_for_an_item(extra: int) -> None:
    rest = b"\x01" * extra
    lists = [(1, PARTS[1], 10), (2, PARTS[2], 14), (3, PARTS[3], 11), (7, PARTS[5], 2)]
    for kind, part, item in lists:
        data = with_tlvs(tlv(kind, part[3:] + rest[: item - 1]) + PARTS[4])
        assert decode_handshake(data) == decode_handshake(with_tlvs(part + PARTS[4]))


def test_handshake_joins_lists_that_come_in_pieces() -> None:
    route = PARTS[2][3:17]
    data = with_tlvs(tlv(2, route + b"rest") + tlv(1, b"") + tlv(2, route) + tlv(5, b"\0") + tlv(5, b"\0\0"))
    decoded = read(data)
    assert decoded.routes == HANDSHAKE.routes[:1] * 2
    assert decoded.heard == ()
    assert decoded.pad == 3


def test_handshake_takes_the_last_name() -> None:
    assert read(with_tlvs(tlv(4, b"first") + tlv(4, b"last"))).name == "last"


def test_handshake_ignores_routes_of_metric_0() -> None:
    routes = [Route(B, 1, 10, 1500), Route(C, 2, 0, 1500), Route(D, 3, 0xFFFF, 0)]
    data = encode_handshake(BARE._replace(routes=tuple(routes)))
    assert read(data).routes == (routes[0], routes[2])


def test_handshake_lists_are_capped() -> None:
    assert DESTINATIONS_MAX == 4096
    item = b"\x02\0\0\0\0\x01" + b"\x01" * 8
    decoded = read(with_tlvs(tlv(2, item * 4200)))
    assert len(decoded.routes) == 4096
    assert len(read(with_tlvs(tlv(1, item[:10] * 5000))).heard or ()) == 4096
    assert len(read(with_tlvs(tlv(3, item[:11] * 5000))).requests) == 4096
    assert len(read(with_tlvs(tlv(7, b"\0\1" * 5000))).ports or ()) == 256
    assert len(read(with_tlvs(tlv(7, b"\0\1") * 5000)).ports or ()) == 256
    assert read(with_tlvs(tlv(4, b"x" * 255))).name == "x" * 255
    assert read(with_tlvs(tlv(4, b"x" * 60000))).name == "x" * 255


def test_handshake_name_that_is_no_utf8() -> None:
    assert read(with_tlvs(tlv(4, b"\xffbob\xc3"))).name == "\ufffdbob\ufffd"
    assert encode_handshake(BARE._replace(name="a\ud800b"))[20:] == tlv(4, b"a?b")


def test_handshake_that_is_too_long() -> None:
    longest = BARE._replace(pad=0xFFFF - 20 - 3)
    assert len(encode_handshake(longest)) == 0xFFFF
    with pytest.raises(ValueError, match=r"^a HANDSHAKE of 65536 bytes$"):
        encode_handshake(longest._replace(pad=longest.pad + 1))


@given(st.binary(max_size=200))
def test_handshake_from_any_bytes(data: bytes) -> None:
    for payload in (data, b"\xa2" + data):
        try:
            decoded = decode_handshake(payload)
        except FrameError:
            continue
        assert (decoded is None) == (payload[:1] in (b"", b"\0"))


tlv_bytes = st.one_of(st.binary(max_size=40), st.builds(tlv, st.integers(0, 8), st.binary(max_size=60)))


@given(st.lists(tlv_bytes, max_size=8).map(b"".join), st.binary(max_size=20))
def test_handshake_with_any_tlvs(tlvs: bytes, padding: bytes) -> None:
    assert_read_alike(read(with_tlvs(tlvs) + padding), tlvs)


@given(handshakes, st.data())
def test_handshake_with_a_changed_byte(handshake: Handshake, data: st.DataObject) -> None:
    encoded = bytearray(encode_handshake(handshake))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(u8)
    try:
        decode_handshake(bytes(encoded))
    except FrameError as error:
        reason = error.reason
    else:
        reason = ""
    assert reason in ("", "magic", "length", "nonce")


# --- The v1.0 node of the tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [False, True])
def test_v1_node_prints_and_acknowledges(padded: bool) -> None:
    node, peer = v1.V1Node(B, padded=padded), v1.V1Node(A, padded=padded)
    sent = peer.send_message(B, "hi", 1.0)
    assert len(sent) == (60 if padded else 39)
    (status,) = node.receive(sent, 1.0)
    assert node.printed == [(A, "hi")]
    assert decode_ethernet(status)[:2] == (A, b"\xff" * 6)
    assert node.receive(sent, 1.1) == []
    assert parse_status(decode_frame(decode_ethernet(status).payload).payload) == peer.last_id(sent)
    assert peer.receive(status, 1.0) == []
    assert peer.acked == [peer.last_id(sent)]


def test_v1_node_has_an_id_of_its_own_and_answers_from_the_address_it_was_asked_at() -> None:
    node = v1.V1Node(B, node_id=C)
    assert decode_frame(decode_ethernet(node.tick(0.0)[0]).payload).origin == C
    peer = v1.V1Node(A)
    assert node.receive(peer.send_message(B, "hi", 1.0), 1.0) != []  # not for it: relayed
    (status,) = node.receive(peer.send_message(C, "hi", 1.1, to=B), 1.1)
    assert decode_ethernet(status)[:2] == (A, B)


@pytest.mark.parametrize(("kind", "dest"), [(5, B), (1, bytes(6))])
def test_v1_chat_server_takes_any_payload_for_a_segment(kind: int, dest: bytes) -> None:
    node = v1.V1ChatServer(B)
    payload = b"\0\0\0\x07\0\0\0\x01\x01\0\0" + bytes(30)
    frame = encode_frame(Frame(kind, A, dest, 0, 9, payload))
    (answer,) = node.receive(encode_ethernet(b"\xff" * 6, A, frame), 1.0)
    segment = decode_frame(decode_ethernet(answer).payload)
    assert (segment.type, segment.dest, segment.payload) == (2, A, b"\0\0\0\x07\0\0\0\x02\x03\0\0")


def test_v1_node_announces_answers_and_relays() -> None:
    node = v1.V1Node(B, started=2.0)
    assert node.tick(1.9) == []
    (announced,) = node.tick(2.0)
    assert node.tick(6.9) == []
    assert len(node.tick(7.0)) == 1
    assert node.next_deadline() == 12.0
    frame = decode_frame(decode_ethernet(announced).payload)
    assert (frame.type, frame.origin, frame.dest, frame.ttl, frame.payload) == (1, B, bytes(6), 5, b"")
    directed = encode_ethernet(B, A, encode_frame(Frame(1, A, B, 0, 9, HANDSHAKE_DATA)))
    (answer,) = node.receive(directed, 8.0)
    assert decode_ethernet(answer)[:2] == (A, B)
    assert decode_frame(decode_ethernet(answer).payload)[:4] == (1, B, A, 5)
    other = Frame(5, A, C, 2, 10, b"stream")
    heard = encode_ethernet(b"\xff" * 6, A, encode_frame(other))
    relayed = encode_ethernet(b"\xff" * 6, B, encode_frame(other._replace(ttl=1)))
    assert node.receive(heard, 8.0) == [relayed]
    assert node.receive(heard, 8.0) == []
    spent = encode_ethernet(b"\xff" * 6, A, encode_frame(other._replace(ttl=0, msg_id=11)))
    assert node.receive(spent, 8.0) == []
    assert node.receive(encode_ethernet(C, A, encode_frame(other._replace(msg_id=12))), 8.0) == []
    assert node.known == {A}
