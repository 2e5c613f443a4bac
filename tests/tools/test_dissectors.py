"""Two more readers of the wire: the scapy layer agrees with our codecs; Wireshark's dissector, with real captures.

What needs tshark and namespaces is marked `root`.
"""

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import pytest
from hypothesis import given, strategies as st
from lab import Host, Lab
from paths import ROOT
from pictures import HERE, SAMPLE, record_traffic
from scapy.packet import Padding, Raw
from scapy.utils import RawPcapReader
from scapy_alexchat import (
    AlexMesh,
    AlexMeshBroadcast,
    AlexMeshHandshake,
    AlexMeshHeard,
    AlexMeshHeardEntry,
    AlexMeshMessage,
    AlexMeshName,
    AlexMeshPad,
    AlexMeshPorts,
    AlexMeshRequest,
    AlexMeshRequestEntry,
    AlexMeshRoute,
    AlexMeshRouteEntry,
    AlexMeshStatus,
    AlexStream,
    AlexStreamSack,
    AlexStreamSackBlock,
    AlexStreamSegmentSize,
    Ether,
)
from test_protocol import handshakes
from test_real_frames import address_of, finish, hindrance, lab as lab_fixture, pair as pair_fixture, script, start
from test_stream_codec import to_segment, wires

from alexstream import Segment, decode_segment, encode_segment
from node import Capture, SetupError
from protocol import (
    Frame,
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
    parse_text,
    status_payload,
)
from utils import format_address, parse_address

lab, pair = lab_fixture, pair_fixture
ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"
U8, U64 = st.integers(0, 255), st.integers(0, 2**64 - 1)
ADDRESSES = st.binary(min_size=6, max_size=6)
PADDING = st.integers(0, 40).map(bytes)

# --- the scapy layer -------------------------------------------------------------------------------------------------


def mesh(kind: int, origin: bytes = b"\x02\0\0\0\0\x01", dest: bytes = b"\x02\0\0\0\0\x02") -> Any:
    return AlexMesh(type=kind, origin=format_address(origin), dest=format_address(dest))


def whole(frame: Frame, padding: bytes) -> Ether:
    """Our frame as scapy dissects it, from the Ethernet header on."""
    return Ether(encode_ethernet(parse_address(TWO), parse_address(ONE), encode_frame(frame)) + padding)


def padding_of(packet: Any) -> bytes:
    return bytes(packet[Padding]) if Padding in packet else b""


def to_scapy(h: Handshake) -> AlexMeshHandshake:
    tlvs: List[Any] = []
    if h.heard is not None:
        entries = [AlexMeshHeardEntry(mac=format_address(mac), nonce=nonce) for mac, nonce in h.heard]
        tlvs.append(AlexMeshHeard(entries=entries))
    if h.routes:
        ways = [
            AlexMeshRouteEntry(dest=format_address(r.dest), seq=r.seq, metric=r.metric, mtu=r.mtu) for r in h.routes
        ]
        tlvs.append(AlexMeshRoute(entries=ways))
    if h.requests:
        asked = [AlexMeshRequestEntry(dest=format_address(r.dest), seq=r.seq, hops=r.hops) for r in h.requests]
        tlvs.append(AlexMeshRequest(entries=asked))
    if h.name is not None:
        tlvs.append(AlexMeshName(value=h.name.encode()))
    if h.ports is not None:
        tlvs.append(AlexMeshPorts(ports=list(h.ports)))
    if h.pad:
        tlvs.append(AlexMeshPad(value=bytes(h.pad)))
    return AlexMeshHandshake(
        reserved=h.flags >> 7, slot=h.slot, flags=h.flags & 15, ttl0=h.ttl0, interval=h.interval, mtu=h.mtu,
        nonce=h.nonce, seq=h.seq, token=h.token, tlvs=tlvs,
    )  # fmt: skip


def from_scapy(packet: AlexMeshHandshake) -> Handshake:
    flags = int(packet.flags) | packet.reserved << 7
    h = Handshake(flags, packet.ttl0, packet.interval, packet.mtu, packet.nonce, packet.seq, packet.token)
    h = h._replace(slot=packet.slot)
    for tlv in packet.tlvs:
        if isinstance(tlv, AlexMeshHeard):
            h = h._replace(heard=tuple(Heard(parse_address(e.mac), e.nonce) for e in tlv.entries))
        elif isinstance(tlv, AlexMeshRoute):
            h = h._replace(routes=tuple(Route(parse_address(e.dest), e.seq, e.metric, e.mtu) for e in tlv.entries))
        elif isinstance(tlv, AlexMeshRequest):
            h = h._replace(requests=tuple(Request(parse_address(e.dest), e.seq, e.hops) for e in tlv.entries))
        elif isinstance(tlv, AlexMeshName):
            h = h._replace(name=tlv.value.decode())
        elif isinstance(tlv, AlexMeshPorts):
            h = h._replace(ports=tuple(tlv.ports))
        else:
            assert isinstance(tlv, AlexMeshPad)
            h = h._replace(pad=len(tlv.value))
    return h


@given(handshakes, PADDING)
def test_scapy_reads_our_handshakes(h: Handshake, padding: bytes) -> None:
    frame = Frame(1, parse_address(ONE), bytes(6), 5, 7, encode_handshake(h))
    packet = whole(frame, padding)
    assert from_scapy(packet[AlexMeshHandshake]) == h
    assert packet[AlexMeshHandshake].length == len(frame.payload)
    assert padding_of(packet) == padding


@given(handshakes, PADDING)
def test_we_read_scapys_handshakes(h: Handshake, padding: bytes) -> None:
    frame = decode_frame(bytes(mesh(1) / to_scapy(h)) + padding)
    assert decode_handshake(frame.payload) == h


@given(st.integers(1, 5), ADDRESSES, ADDRESSES, st.integers(0, 31), U64, st.integers(0, 7))
def test_headers_agree(kind: int, origin: bytes, dest: bytes, ttl: int, msg_id: int, slot: int) -> None:
    frame = Frame(kind, origin, dest, ttl, msg_id, b"", slot)
    header = whole(frame, b"")[AlexMesh]
    assert header.fields == {
        "version": 1, "type": kind, "origin": format_address(origin), "dest": format_address(dest),
        "slot": slot, "ttl": ttl, "msg_id": msg_id,
    }  # fmt: skip
    assert decode_frame(bytes(header)) == frame


def test_handshake_of_a_v1_node_is_padding() -> None:
    packet = whole(Frame(1, parse_address(ONE), bytes(6), 5, 7, b""), bytes(23))
    assert packet[AlexMesh].payload.__class__ is Padding
    assert packet[AlexMesh].mysummary()[0] == f"AlexMesh HANDSHAKE {ONE} > 00:00:00:00:00:00 ttl=5"


@pytest.mark.parametrize(("kind", "layer"), [(2, AlexMeshMessage), (3, AlexMeshBroadcast), (4, AlexMeshStatus)])
@pytest.mark.parametrize("text", [b"", b"hi", "süß \0 x".encode(), b"\xff\xfe"])
@pytest.mark.parametrize("padding", [0, 20])
def test_texts_agree(kind: int, layer: Any, text: bytes, padding: int) -> None:
    packet = whole(Frame(kind, parse_address(ONE), bytes(6), 5, 7, text), bytes(padding))
    assert (packet[layer].text if layer in packet else b"") == text
    assert padding_of(packet) == bytes(padding)
    assert parse_text(decode_frame(bytes(mesh(kind) / layer(text=text)) + bytes(padding)).payload) == text


def to_scapy_segment(segment: Segment, origin: bytes, dest: bytes) -> Any:
    options: List[Any] = []
    if segment.segment_size is not None:
        options.append(AlexStreamSegmentSize(size=segment.segment_size))
    if segment.sacks:
        blocks = [AlexStreamSackBlock(left=left, right=right) for left, right in segment.sacks]
        options.append(AlexStreamSack(blocks=blocks))
    layer = AlexStream(
        stream=segment.stream, flags=segment.flags, port=segment.port, seq=segment.seq, ack=segment.ack,
        window=segment.window, tag=segment.tag, ts=segment.ts, echo=segment.echo, options=options,
    )  # fmt: skip
    return mesh(5, origin, dest) / layer / Raw(segment.payload)


def from_scapy_segment(packet: Any) -> Segment:
    layer = packet[AlexStream]
    size: Optional[int] = None
    sacks: Tuple[Any, ...] = ()
    for option in layer.options:
        if isinstance(option, AlexStreamSegmentSize):
            size = option.size
        elif isinstance(option, AlexStreamSack):
            sacks = tuple((block.left, block.right) for block in option.blocks)
    payload = bytes(packet[Raw]) if Raw in packet else b""
    payload = payload[: layer.length]
    return Segment(
        layer.stream, int(layer.flags), layer.port, layer.seq, layer.ack, layer.window, layer.tag, layer.ts, layer.echo,
        size, sacks, payload,
    )  # fmt: skip


@given(wires(), ADDRESSES, ADDRESSES, PADDING)
def test_scapy_reads_our_segments(wire: Any, origin: bytes, dest: bytes, padding: bytes) -> None:
    segment = to_segment(wire)
    data = encode_segment(segment, origin, dest)
    packet = whole(Frame(5, origin, dest, 5, 7, data), padding)
    assert from_scapy_segment(packet) == segment
    assert padding_of(packet) == padding
    assert packet[AlexStream].right_crc(data) == packet[AlexStream].crc


@given(wires(), ADDRESSES, ADDRESSES, PADDING)
def test_we_read_scapys_segments(wire: Any, origin: bytes, dest: bytes, padding: bytes) -> None:
    segment = to_segment(wire)
    frame = decode_frame(bytes(to_scapy_segment(segment, origin, dest)) + padding)
    assert decode_segment(frame.payload, origin, dest) == segment


def test_scapy_notices_a_wrong_crc() -> None:
    origin, dest = parse_address(ONE), parse_address(TWO)
    data = bytearray(encode_segment(Segment(1, 10, 1, 5, payload=b"hello"), origin, dest))
    data[-1] ^= 1
    layer = whole(Frame(5, origin, dest, 5, 7, bytes(data)), b"")[AlexStream]
    assert layer.right_crc(bytes(data)) != layer.crc


def test_what_answers_what() -> None:
    message = mesh(2) / AlexMeshMessage(text=b"hi")
    message.msg_id = 77
    status = mesh(4, parse_address(TWO), parse_address(ONE)) / AlexMeshStatus(text=status_payload(77))
    other = mesh(4, parse_address(TWO), parse_address(ONE)) / AlexMeshStatus(text=status_payload(78))
    assert status.answers(message)
    assert not other.answers(message)
    assert not message.answers(status)
    probe = mesh(1) / AlexMeshHandshake(flags="PROBE", token=5)
    reply = mesh(1, parse_address(TWO), parse_address(ONE)) / AlexMeshHandshake(flags="REPLY", token=5)
    assert reply.answers(probe)
    assert reply.hashret() == probe.hashret()
    assert not probe.answers(reply)
    data = mesh(5) / AlexStream(stream=9, flags="ADI", ts=1000)
    ack = mesh(5, parse_address(TWO), parse_address(ONE)) / AlexStream(stream=9, flags="A", echo=1000)
    assert ack.answers(data)
    assert ack.hashret() == data.hashret()
    assert not data.answers(ack)


@given(st.binary(max_size=120), st.integers(0, 2000))
def test_scapy_takes_any_bytes_and_gives_them_back(data: bytes, at: int) -> None:
    """As hostile as it gets: a valid frame with something else in the middle."""
    entries = [AlexMeshHeardEntry(nonce=1)] * 3
    frames = [
        bytes(mesh(1) / AlexMeshHandshake(tlvs=[AlexMeshHeard(entries=entries), AlexMeshPorts(ports=[1, 2])])),
        bytes(mesh(5) / AlexStream(options=[AlexStreamSack(blocks=[AlexStreamSackBlock()])]) / Raw(b"hello")),
    ]
    frame = frames[at % 2]
    at %= len(frame)
    spoilt = frame[:at] + data + frame[at + len(data) :]
    assert bytes(AlexMesh(spoilt)) == spoilt


# --- the file of --pcap ----------------------------------------------------------------------------------------------


def frames_in(path: str) -> List[bytes]:
    with contextlib.closing(RawPcapReader(path)) as reader:
        return [frame for frame, _ in reader]


def test_a_capture_holds_whole_frames_at_once_and_replaces_what_was_there(tmp_path: Any) -> None:
    path = str(tmp_path / "file.pcap")
    with open(path, "wb") as file:
        file.write(b"an older and longer file" * 100)
    capture = Capture(path)
    capture.add([b"first", b"second"])
    assert frames_in(path) == [b"first", b"second"]
    capture.add([b"third"])
    assert frames_in(path) == [b"first", b"second", b"third"]
    capture.close()
    capture.add([b"too late"])
    assert frames_in(path) == [b"first", b"second", b"third"]


def test_a_capture_that_cannot_be_made_says_why(tmp_path: Any) -> None:
    with pytest.raises(SetupError, match=r"^cannot write .*/no/file\.pcap: No such file or directory$"):
        Capture(str(tmp_path / "no" / "file.pcap"))


def test_a_full_disk_ends_the_capture_with_one_line(tmp_path: Any) -> None:
    path = str(tmp_path / "file.pcap")
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); from node import Capture\n"
        "capture = Capture(sys.argv[1])\n"
        "for _ in range(9): capture.add([bytes(300)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], cwd=ROOT, stderr=subprocess.PIPE, universal_newlines=True, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
    )  # fmt: skip
    assert done.stderr == f"alexmesh: capture ended, cannot write {path}: File too large\n"
    assert frames_in(path) == [bytes(300)] * 3


@pytest.mark.root
def test_a_file_that_cannot_be_made_is_wrong_use(pair: Tuple[Host, Host]) -> None:
    program = finish(pair[0], "node.py", "eth0", "--pcap", "/no/file.pcap", status=2)
    assert program.err == "node.py: cannot write /no/file.pcap: No such file or directory\n"


@pytest.mark.root
def test_a_capture_can_be_read_while_it_grows_and_goes_on_after_an_outage(
    pair: Tuple[Host, Host], tmp_path: Any
) -> None:
    path = str(tmp_path / "file.pcap")
    node = start(pair[1], "node.py", "eth0", "--pcap", path)
    for up, said in ((False, "eth0: Network is down"), (True, "eth0: works again")):
        pair[1].lab.set_up(pair[1].ports[0], up)
        node.expect(said, where="err")
    finish(pair[0], "send_message.py", "eth0", address_of(node), "supper is ready")
    infos = column(path, "_ws.col.Info")
    assert "MESSAGE supper is ready" in infos
    assert any(re.fullmatch(r"STATUS ACK:\d+", info) for info in infos)
    finish(pair[0], "send_message.py", "eth0", "ff:ff:ff:ff:ff:ff", "to all")
    node.expect("to all")
    assert column(path, "_ws.col.Info").count("BROADCAST to all") == 1
    assert node.process.poll() is None


@pytest.mark.root
def test_a_full_disk_does_not_stop_the_node(pair: Tuple[Host, Host], tmp_path: Any) -> None:
    path = str(tmp_path / "file.pcap")
    node = pair[1].start(["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *script("node.py", "eth0", "--pcap", path)])
    address = address_of(node)
    finish(pair[0], "send_handshake.py", "eth0", address, "--count", "9", "--interval", "0.02")
    node.expect("^alexmesh: capture ended, cannot write .*: File too large$", where="err")
    finish(pair[0], "send_message.py", "eth0", address, "still there?")
    node.expect("still there")
    assert node.err.count("capture") == 1
    assert len(column(path, "_ws.col.Info")) > 2


# --- Wireshark's dissector -------------------------------------------------------------------------------------------

DISSECTOR = os.path.join(HERE, "alexchat.lua")
WARNING_TO_ROOT = 'Running as user "root" and group "root". This could be dangerous.\n'
needs_tshark = pytest.mark.root  # once is enough: not on every interpreter
NUMBERS = ("stream", "flags", "port", "seq", "ack", "window", "tag", "ts", "echo")
SHOWN_NUMBERS = ("id", "flags", "port", "seq_raw", "ack_raw", "window", "tag", "ts", "echo")


def tshark(path: str, *arguments: str, dissector: str = DISSECTOR, **environment: str) -> str:
    """What tshark prints of a capture. A Lua error, which leaves its exit status 0, fails the test."""
    if shutil.which("tshark") is None:
        hindered = "not installed: tshark"
        pytest.fail(hindered) if os.environ.get("ALEXCHAT_ROOT_TESTS") == "required" else pytest.skip(hindered)
    done = subprocess.run(
        ["tshark", "-n", *["-X", "lua_script:" + dissector] * bool(dissector), "-r", path, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=True,
        env=dict(os.environ, TZ="UTC", LC_ALL="C.UTF-8", **environment),
    )
    shown = done.stdout.decode()
    assert done.stderr.decode().replace(WARNING_TO_ROOT, "") == ""
    assert "Lua Error" not in shown
    assert "Dissector bug" not in shown
    return shown


def fields(path: str, *names: str, only: str = "") -> List[List[str]]:
    """The values of fields, a list for each frame; several of one name have commas between them."""
    wanted = [word for name in (*names, "_ws.expert") for word in ("-e", name)]  # Lua's errors are in there
    shown = tshark(path, *(("-Y", only) if only else ()), "-T", "fields", "-E", "separator=|", *wanted)
    return [line.split("|")[: len(names)] for line in shown.splitlines()]


def column(path: str, name: str, *, only: str = "") -> List[str]:
    return [row[0] for row in fields(path, name, only=only)]


@needs_tshark
@pytest.mark.parametrize("spoilt", ["tvb(14, 1)", "local TYPES"])
def test_an_error_in_lua_would_be_seen(spoilt: str, tmp_path: Any) -> None:
    with open(DISSECTOR, encoding="utf-8") as file:
        source = file.read()
    (tmp_path / "bad.lua").write_text(source.replace(spoilt, "tvb(14, 9999)"), encoding="utf-8")
    with pytest.raises((AssertionError, subprocess.CalledProcessError)):
        tshark(SAMPLE, "-V", dissector=str(tmp_path / "bad.lua"))


@needs_tshark
@pytest.mark.parametrize("also_named", ["", DISSECTOR])
def test_installed_for_good(also_named: str, tmp_path: Any) -> None:
    """As the README says, and where -X names the dissector all the same: nothing on stderr, the same columns."""
    plugins = tmp_path / ".local/lib/wireshark/plugins"
    plugins.mkdir(parents=True)
    shutil.copy(DISSECTOR, str(plugins))
    shown = tshark(SAMPLE, dissector=also_named, HOME=str(tmp_path))
    assert shown == tshark(SAMPLE)
    assert {row.split()[5] for row in shown.splitlines()} == {"AlexMesh", "AlexStream"}


class Captures(NamedTuple):
    """Two captures of the same traffic, and the bytes of the stream in it."""

    on_cable: str
    in_relay: str
    data: bytes


class Reading(NamedTuple):
    """A capture, and what tshark says of each of its frames: a field's values joined by commas, empty for none."""

    path: str
    frames: List[Dict[str, str]]

    def column(self, name: str) -> List[str]:
        """The values of a field in the frames that have it."""
        return [frame[name] for frame in self.frames if frame[name]]


READ = (
    "_ws.col.Protocol", "_ws.col.Info", "_ws.malformed", "_ws.expert.severity", "frame.number",
    "alexmesh.type", "alexmesh.msg_id", "alexmesh.name", "alexmesh.text", "alexmesh.route.dest",
    "alexmesh.request_frame", "alexmesh.response_time",
    *("alexstream." + name for name in SHOWN_NUMBERS),
    "alexstream.crc.status", "alexstream.stream", "alexstream.option.sack_le", "alexstream.option.sack_re",
    "alexstream.rtt",
)  # fmt: skip
SEVERITY_ERROR = str(0x800000)


@pytest.fixture(scope="module")
def captures(tmp_path_factory: Any) -> Captures:
    reason = hindrance() or ("" if shutil.which("dumpcap") else "not installed: tshark")
    if reason and os.environ.get("ALEXCHAT_ROOT_TESTS") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("captures")
    made = Captures(str(folder / "cable.pcap"), str(folder / "relay.pcap"), os.urandom(60000))
    with Lab() as place:  # the fixture `lab` is made anew for every test
        record_traffic(place, made.on_cable, made.in_relay, data=made.data, loss=15, mtu=900)
    return made


@pytest.fixture(scope="module", params=["on_cable", "in_relay"])
def capture(request: Any, captures: Captures) -> Reading:
    path = str(getattr(captures, request.param))
    return Reading(path, [dict(zip(READ, row)) for row in fields(path, *READ)])


@needs_tshark
def test_a_node_records_each_frame_that_was_on_its_cable(captures: Captures) -> None:
    on_cable, in_relay = Counter(frames_in(captures.on_cable)), Counter(frames_in(captures.in_relay))
    assert len(on_cable) > 100
    assert on_cable - in_relay == Counter()


@needs_tshark
def test_every_frame_is_ours_and_whole(capture: Reading) -> None:
    assert set(capture.column("_ws.col.Protocol")) == {"AlexMesh", "AlexStream"}
    assert {frame["alexstream.crc.status"] for frame in capture.frames if frame["alexmesh.type"] == "5"} == {"1"}
    assert capture.column("_ws.malformed") == []
    assert [each for each in capture.column("_ws.expert.severity") if SEVERITY_ERROR in each.split(",")] == []


@needs_tshark
def test_wireshark_reads_the_numbers_that_we_read(capture: Reading) -> None:
    names = ["alexmesh.type", "alexmesh.msg_id", *("alexstream." + name for name in SHOWN_NUMBERS)]
    for data, shown in zip(frames_in(capture.path), capture.frames):
        frame = decode_frame(decode_ethernet(data).payload)
        numbers = [str(frame.type), str(frame.msg_id)]
        if frame.type == 5:
            segment = decode_segment(frame.payload, frame.origin, frame.dest)
            numbers += [str(getattr(segment, name)) for name in NUMBERS]
            numbers[3] = f"0x{segment.flags:02x}"
        assert [shown[name] for name in names if shown[name]] == numbers


@needs_tshark
def test_a_stream_can_be_followed_by_its_index(capture: Reading, captures: Captures) -> None:
    indices = {(frame["alexstream.port"], frame["alexstream.stream"]) for frame in capture.frames}
    assert indices == {("", ""), ("1", "0"), ("2", "1")}
    only = "alexstream.stream == 1 and alexstream.flags.init == 1 and alexstream.payload"
    rows = fields(capture.path, "alexstream.seq", "alexstream.payload", only=only)
    pieces = {int(seq): bytes.fromhex(payload) for seq, payload in rows}
    data = b""
    while 1 + len(data) in pieces:  # byte 1 is the first after the SYN
        data += pieces[1 + len(data)]
    assert data == captures.data


@needs_tshark
def test_loss_shows_as_sack_and_retransmissions(capture: Reading) -> None:
    lefts = ",".join(capture.column("alexstream.option.sack_le")).split(",")
    rights = ",".join(capture.column("alexstream.option.sack_re")).split(",")
    assert len(lefts) == len(rights)
    assert all(1 < int(left) < int(right) <= 60002 for left, right in zip(lefts, rights))
    again = r"\[Retransmission\] \d+ → 2 \[ACK, DATA(, PUSH)?, INIT\] Seq=\d+ Ack=1 Win=\d+ Len=\d+"
    assert [info for info in capture.column("_ws.col.Info") if re.fullmatch(again, info)]


@needs_tshark
def test_answers_point_to_their_questions(capture: Reading) -> None:
    kinds = {frame["frame.number"]: frame["alexmesh.type"] for frame in capture.frames}
    asked = "alexmesh.request_frame"
    pairs = {(kinds[frame[asked]], frame["alexmesh.type"]) for frame in capture.frames if frame[asked]}
    assert pairs == {("1", "1"), ("2", "4")}
    round_trips = capture.column("alexstream.rtt")
    assert len(round_trips) > 10
    assert all(0 <= float(seconds) < 10 for seconds in round_trips + capture.column("alexmesh.response_time"))


@needs_tshark
def test_what_nodes_say_of_themselves(capture: Reading) -> None:
    assert set(",".join(capture.column("alexmesh.name")).split(",")) >= {"alice", "bob", "relay"}
    assert "supper is ready" in capture.column("alexmesh.text")
    assert "02:00:00:00:00:03" in ",".join(capture.column("alexmesh.route.dest")).split(",")


def write(path: Any, payloads: List[bytes], *, padding: int = 0) -> str:
    """A capture of frames with these payloads, from ONE to TWO."""
    capture = Capture(str(path))
    capture.add([encode_ethernet(parse_address(TWO), parse_address(ONE), data) + bytes(padding) for data in payloads])
    capture.close()
    return str(path)


@needs_tshark
def test_a_wrong_crc_is_shown_and_not_believed(tmp_path: Any) -> None:
    good = bytes(
        to_scapy_segment(Segment(9, 10, 1, 1000, window=1, payload=b"hello"), parse_address(ONE), parse_address(TWO))
    )
    path = write(tmp_path / "file.pcap", [good, good[:-1] + b"O", good[:40] + b"\xff" + good[41:]], padding=7)
    shown = fields(path, "alexstream.crc.status", "alexstream.stream", "_ws.expert.severity", "alexmesh.padding")
    padding = "00" * 7
    assert shown == [["1", "0", "", padding], *[["0", "", SEVERITY_ERROR, padding]] * 2]
    infos = column(path, "_ws.col.Info", only="alexstream.crc.bad")
    assert [info[:10] for info in infos] == ["[Bad CRC] "] * 2


@needs_tshark
def test_bad_segments_are_pointed_out(tmp_path: Any) -> None:
    faults = [
        (b"", "A segment has 36 bytes at least"),
        (bytes(35), "A segment has 36 bytes at least"),
        (b"\0\x01\x02\xff" + bytes(40), "Header and payload do not fit into the frame"),
        (b"\0\x01\x02\x08" + bytes(40), "Header and payload do not fit into the frame"),
        (b"\0\x01\x82\x09" + bytes(32), "The reserved flag must be 0"),
        (b"\0\x01\x05\x09" + bytes(32), "SYN excludes FIN, RST and DATA"),
        (b"\0\x01\x16\x09" + bytes(32), "RST excludes FIN and DATA"),
        (b"\0\x01\x20\x09" + bytes(32), "All but SYN and RST acknowledge"),
        (b"\0\x01\x0a\x09" + bytes(32), "DATA stands where there is a payload, and only there"),
        (b"\0\0\x02\x09" + bytes(32), "No stream has number 0"),
        (b"\0\x01\x03\x0a" + bytes(32) + b"\x05\xff\0\0", "The length of an option is wrong"),
    ]
    path = write(tmp_path / "file.pcap", [bytes(mesh(5)) + segment for segment, _ in faults])
    messages = column(path, "_ws.expert.message")
    assert [fault for (_, fault), shown in zip(faults, messages) if fault not in shown] == []
    assert len(messages) == len(faults)


@needs_tshark
def test_a_v1_handshake_and_padded_texts(tmp_path: Any) -> None:
    message = mesh(2) / AlexMeshMessage(text="süß\x1b[2J".encode())
    status = mesh(4) / AlexMeshStatus(text=status_payload(2**64 - 1))
    path = write(tmp_path / "file.pcap", [bytes(mesh(1)), bytes(message), bytes(status)], padding=11)
    padding = "00" * 11
    assert fields(path, "_ws.col.Info", "alexmesh.acked_id", "alexmesh.padding") == [
        ["HANDSHAKE v1.0", "", padding],
        ["MESSAGE süß.[2J", "", padding],
        ["STATUS ACK:18446744073709551615", "18446744073709551615", padding],
    ]


@needs_tshark
def test_a_second_stream_of_one_number_has_an_index_of_its_own(tmp_path: Any) -> None:
    syns = [(9, 7000, 1), (9, 7000, 2), (9, 9000, 3), (8, 7000, 4)]
    segments = [Segment(stream, 65, 1, seq, ts=ts) for stream, seq, ts in syns]
    ends = parse_address(ONE), parse_address(TWO)
    path = write(tmp_path / "file.pcap", [bytes(to_scapy_segment(segment, *ends)) for segment in segments])
    shown = fields(path, "alexstream.stream", "alexstream.seq")
    assert shown == [["0", "0"], ["0", "0"], ["1", "0"], ["2", "0"]]


@needs_tshark
def test_no_frame_makes_the_dissector_fail(tmp_path: Any) -> None:
    """Every truncation of what is in the sample, and thousands of frames with something wrong in them."""
    rng = random.Random(0x88B5)
    sample = [frame[14:] for frame in frames_in(SAMPLE)]
    kinds = {frame[1]: frame for frame in sample}
    payloads = [frame[:size] for frame in kinds.values() for size in range(1, min(120, len(frame)))]
    for _ in range(2500):
        frame = bytearray(rng.choice(sample)[: rng.choice([60, 120, 2000])])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(frame))
            frame[at : at + rng.randint(0, 4)] = rng.choice(
                [b"\0", b"\xff\xff", bytes((rng.randrange(256),)), b"\x05\x0a"]
            )
        payloads.append(bytes(frame))
    path = write(tmp_path / "file.pcap", payloads)
    assert tshark(path, "-V").count("\nFrame ") == len(payloads) - 1
    assert set(column(path, "_ws.col.Protocol")) <= {"AlexMesh", "AlexStream"}


@needs_tshark
def test_what_the_readme_shows_of_the_sample() -> None:
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = file.read().split("## See the bytes")[1].split("\n## ")[0]
    shown = re.findall(r"^     *(\d+ +\d+\.\d{6} .*)$", section, re.MULTILINE)
    assert len(shown) > 3
    lines = [line.strip() for line in tshark(SAMPLE).splitlines()]
    assert [line for line in shown if line not in lines] == []
    assert os.path.getsize(SAMPLE) < 20000
