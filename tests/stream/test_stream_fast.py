"""The fast paths of AlexStream come to the same as the general ones: every frame of whole conversations is compared."""

import heapq
import random
from typing import Any, Callable, Dict, List, Set, Tuple, Type

import pytest
import streamwire
from invariants import check_endpoint
from streamscript import MSS, OURS, THEIRS, WINDOW, Script, opened
from streamwire import ACK, DATA, FIN, PUSH, RST, SYN, WRAP

import alexstream
from alexstream import Accepted, EndOfStream, Endpoint, SegmentRun, Sender, Session
from constants import FLAG_SYN

A, B = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
PORT = 2

Frame = Tuple[float, bytes, bytes]


class HighNumbers(random.Random):
    """Initial sequence numbers are soon at their end."""

    def getrandbits(self, count: int) -> int:
        return (1 << 32) - 50_000 if count == 32 else super().getrandbits(count)


def converse(
    seed: int,
    *,
    loss: float = 0.0,
    jitter: float = 0.0,
    echo: bool = False,
    size: int = 150_000,
    begin: float = 1.0,
    rng_type: Type[random.Random] = random.Random,
) -> List[Frame]:
    """Every frame sent while A sends `size` bytes to B, which sends them back (`echo`) or nothing."""
    rng = rng_type(seed)
    ends = {A: Endpoint(A, rng=rng), B: Endpoint(B, rng=rng)}
    ends[B].listen(PORT)
    data = bytes(rng.getrandbits(8) for _ in range(1000)) * (size // 1000)
    session = ends[A].connect(B, PORT, now=begin)
    way: List[Tuple[float, int, bytes, bytes, bytes]] = []
    frames: List[Frame] = []
    got = {A: bytearray(), B: bytearray()}
    ended: Set[Session] = set()
    written, now = 0, begin
    while now < begin + 100:
        for address, end in ends.items():
            for peer, payload in end.segments_to_send(now=now):
                frames.append((now, address, payload))
                if rng.random() >= loss:
                    arrival = now + 0.0005 + len(frames) * 1e-9 + rng.random() * jitter
                    heapq.heappush(way, (arrival, len(frames), peer, address, payload))
            check_endpoint(end)
        due = [at for at in [end.next_deadline() for end in ends.values()] if at is not None]
        if not due and not way:
            break
        now = max(now, min([*due, *(entry[0] for entry in way[:1])]))
        while way and way[0][0] <= now + 1e-5:  # a batch
            _, _, peer, origin, payload = heapq.heappop(way)
            ends[peer].receive(origin, payload, now=now)
        written += session.send(data[written : written + 40_000]) if written < len(data) else 0
        if written == len(data):
            session.finish()
        for address, end in ends.items():
            for event in iter(end.next_event, None):
                ended |= {event.session} if isinstance(event, EndOfStream) else set()
            for open_session in list(end.sessions.values()):
                arrived = open_session.read(rng.choice((1, 5000, 1 << 20)))
                got[address] += arrived
                if echo and address == B and arrived:
                    assert open_session.send(arrived) == len(arrived)
                if open_session in ended and not open_session.readable:
                    open_session.finish()
    got[A] += session.read(size)  # what had arrived when the stream was closed
    assert got[B] == data
    assert not echo or got[A] == data
    return frames


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "circumstances",
    [
        {},
        {"loss": 0.05},
        {"jitter": 0.002},
        {"loss": 0.02, "jitter": 0.001, "echo": True},
        {"rng_type": HighNumbers},
    ],
    ids=["clean", "loss", "reordering", "both ways", "sequence numbers wrap"],
)
def test_fast_path_sends_what_the_general_path_sends(
    circumstances: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = converse(seed, **circumstances)
    calls: List[int] = []

    def receive_nothing(self: Session, *_: Any, **__: Any) -> int:
        calls.append(1)
        return 0

    monkeypatch.setattr(Session, "receive_expected", receive_nothing)
    monkeypatch.setattr(Session, "_run_stop", lambda self: 0)
    on_run_sent = Sender.on_run_sent

    def launch_segments(self: Sender, *arguments: Any, **options: Any) -> SegmentRun:
        run = on_run_sent(self, *arguments, **options)
        assert len(run) == 1
        self._expand_runs()
        return run

    monkeypatch.setattr(Sender, "on_run_sent", launch_segments)
    assert converse(seed, **circumstances) == fast
    assert len(calls) > 20


@pytest.mark.parametrize("echo", [False, True])
def test_every_frame_is_what_encode_segment_makes_of_its_fields(echo: bool) -> None:
    for _, origin, payload in converse(1, loss=0.02, echo=echo):
        destination = B if origin == A else A
        segment = alexstream.decode_segment(payload, origin, destination)
        assert alexstream.encode_segment(segment, origin, destination) == payload


def test_stamps_that_wrap_reach_into_no_other_field() -> None:
    segments = [
        alexstream.decode_segment(payload, origin, B if origin == A else A)
        for _, origin, payload in converse(1, begin=((1 << 32) - 2000) / 1e6)
    ]
    stamps = [segment.ts for segment in segments]
    assert max(stamps) > (1 << 32) - 2000
    assert 0 < min(stamps) < 1000
    assert len({segment.tag for segment in segments if not segment.flags & FLAG_SYN}) == 2


def test_fast_path_takes_most_of_a_clean_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: List[int] = []
    general = alexstream.decode_segment

    def count(*arguments: Any) -> Any:
        slow.append(1)
        return general(*arguments)

    monkeypatch.setattr(alexstream, "decode_segment", count)
    frames = converse(1)
    data = [payload for _, origin, payload in frames if origin == A and len(payload) > 100]
    assert len(slow) < len(frames) - 0.8 * len(data)


def test_runs_whose_numbers_wrap_arrive_like_others() -> None:
    rng = HighNumbers(1)
    a, b = Endpoint(A, rng=rng), Endpoint(B, rng=rng)
    b.listen(PORT)
    session = a.connect(B, PORT, now=1.0)
    session.send(bytes(100_000))
    sent, now = 0, 1.0
    while session.acked < 100_000:
        assert now < 1.02
        now += 0.0001
        for end, other in ((a, b), (b, a)):
            for _, payload in end.segments_to_send(now=now):
                sent += len(streamwire.unpack(payload).payload)
                other.receive(end.address, payload, now=now)
    assert a.drops == b.drops == {}
    assert sent == 100_000  # nothing twice


@pytest.mark.parametrize("offset", [8, 12, 16, 20, 24, 28, 32, 40])
def test_expected_segment_with_a_flipped_bit_goes_the_general_way(offset: int) -> None:
    rng = random.Random(1)
    a, b = Endpoint(A, rng=rng), Endpoint(B, rng=rng)
    b.listen(PORT)
    session = a.connect(B, PORT, now=1.0)
    for now in (1.0, 1.1, 1.2):
        for end, other in ((a, b), (b, a)):
            for _, payload in end.segments_to_send(now=now):
                other.receive(end.address, payload, now=now)
    accepted = next(event.session for event in iter(b.next_event, None) if isinstance(event, Accepted))
    session.send(bytes(100_000))
    first, second = [payload for _, payload in a.segments_to_send(now=2.0)][:2]
    b.receive(A, first, now=2.0)
    flipped = bytearray(second)
    flipped[offset] ^= 1
    b.receive(A, bytes(flipped), now=2.0)
    assert b.drops == {"checksum": 1}
    held = accepted.readable
    b.receive(A, second + b"padding", now=2.0)
    assert accepted.readable == 2 * held > 0


# --- Batches that header prediction must not take whole -------------------------------------------------------------


def fill(script: Script, room: int) -> None:
    """Leave so much of the window."""
    while WINDOW - script.seq > room:
        script.give(ACK, payload=bytes(min(65000, WINDOW - script.seq - room)))


def in_vain(script: Script, **fields: Any) -> bytes:
    """The data that is next, but for some fields; the peer knows that it will not be taken."""
    segment = script.packed(ACK, payload=b"!" * 100, **fields)
    script.seq -= 100
    return segment


def flip(script: Script) -> bytes:
    """A segment that is expected but for its checksum."""
    good = bytearray(in_vain(script))
    good[-1] ^= 1
    return bytes(good)


def with_length(script: Script, length: int, size: int = 100) -> bytes:
    """A segment of `size` bytes that says another length."""
    good = streamwire.unpack(in_vain(script))
    script.seq += length
    return streamwire.pack(good._replace(payload=good.payload[:size]), THEIRS, OURS, length=length)


DEVIANTS: Dict[str, Callable[[Script], bytes]] = {
    "data": lambda script: script.packed(ACK, payload=b"!" * 100),
    "acknowledgement": lambda script: script.packed(ACK),
    "larger window": lambda script: script.packed(ACK, window=WINDOW + 1000),
    "data with a smaller window": lambda script: script.packed(ACK, payload=b"!", window=WINDOW - 1000),
    "data that acknowledges": lambda script: script.packed(ACK, payload=b"!", ack=script.ack + 10),
    "pushed data": lambda script: script.packed(ACK | PUSH, payload=b"!" * 100),
    "FIN": lambda script: script.packed(ACK | FIN),
    "reset": lambda script: script.packed(RST | ACK),
    "SYN": lambda script: script.packed(SYN | ACK),
    "again": lambda script: script.packed(ACK, payload=b"!" * 100, seq=script.seq - 100),
    "overlap": lambda script: script.packed(ACK, payload=b"!" * 100, seq=script.seq - 1),
    "gap": lambda script: script.packed(ACK, payload=b"!" * 100, seq=script.seq + 150),
    "half the circle ahead": lambda script: script.packed(ACK, payload=b"!" * 100, seq=script.seq + WRAP // 2),
    "wrong tag": lambda script: in_vain(script, tag=script.our_isn + 1),
    "acknowledgement with a wrong tag": lambda script: script.packed(ACK, seq=script.seq, tag=script.our_isn + 1),
    "other stream": lambda script: in_vain(script, stream=script.stream + 1),
    "other port": lambda script: in_vain(script, port=PORT + 1),
    "ts as the last": lambda script: script.packed(ACK, payload=b"!" * 100, ts=script.last_stamp),
    "ts before the last": lambda script: script.packed(ACK, payload=b"!" * 100, ts=script.last_stamp - 1),
    "ts from half the circle": lambda script: script.packed(ACK, seq=script.seq, ts=script.last_stamp + WRAP // 2),
    "ts from a little less": lambda script: script.packed(ACK, seq=script.seq, ts=script.last_stamp + WRAP // 2 - 1),
    "ts from a little more": lambda script: script.packed(ACK, seq=script.seq, ts=script.last_stamp + WRAP // 2 + 1),
    "SACK": lambda script: script.packed(ACK, sacks=[(5 * MSS, 6 * MSS)]),
    "acknowledges what was never sent": lambda script: script.packed(ACK, payload=b"!", ack=10 * MSS + 1),
    "acknowledges all": lambda script: script.packed(ACK, ack=10 * MSS),
    "acknowledges less": lambda script: script.packed(ACK, ack=script.ack - 1),
    "nonsense in ack": lambda script: script.packed(ACK, ack=WRAP // 2),
    "DATA without any": lambda script: script.packed(ACK | DATA, seq=script.seq),
    "one byte": lambda script: script.packed(ACK, payload=b"!"),
    "broken": flip,
    "padded": lambda script: script.packed(ACK, payload=b"!" * 100) + b"padding",
    "says less than it has": lambda script: with_length(script, 40),
    "says more than it has": lambda script: with_length(script, 140),
    "has less than it says and all do": lambda script: with_length(script, 100, 60),
    "header only": lambda script: in_vain(script)[:36],
    "cut": lambda script: in_vain(script)[:35],
    "nothing": lambda _: b"",
}


def outcome(name: str, place: int, *, data: bool, room: int) -> Any:
    """All that shows after a batch with a deviant in it; `room`: of the window, when it comes."""
    script = opened()
    script.session.send(bytes(10 * MSS))
    assert len(script.take()) == 10
    script.echo = 0  # of acknowledgements that come together only the last is measured
    fill(script, room)
    script.take()
    batch = []
    for number in range(4):
        if number == place:
            batch.append(DEVIANTS[name](script))
        if data:
            batch.append(script.packed(ACK, payload=bytes([number]) * 100))
        else:
            batch.append(script.packed(ACK, ack=max(script.ack, (number + 1) * MSS)))
    script.endpoint.receive_all(THEIRS, batch, now=script.now)
    check_endpoint(script.endpoint)
    sender = script.session.sender
    seen = sorted(repr(event._replace(session=None)) for event in script.events())
    state = sender.una, sender.edge, sender.bytes_in_flight, sender.congestion.window, dict(script.endpoint.drops)
    sent = script.take_raw()
    script.endpoint.receive_all(THEIRS, [script.packed(ACK | PUSH, payload=b"end")], now=script.now)
    return seen, state, sent, script.take_raw(), script.session.read(WINDOW), script.run(0.5)


@pytest.mark.parametrize("room", [WINDOW, 450, 400, 350])
@pytest.mark.parametrize("data", [True, False], ids=["data", "acknowledgements"])
@pytest.mark.parametrize("name", DEVIANTS)
def test_batch_comes_to_what_its_segments_come_to(
    name: str, data: bool, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = [outcome(name, place, data=data, room=room) for place in (1, 3)]
    monkeypatch.setattr(Session, "receive_expected", lambda *_, **__: 0)
    assert fast == [outcome(name, place, data=data, room=room) for place in (1, 3)]


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("room", [WINDOW, 400, 4])
def test_batch_of_data_is_taken_whole(size: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the end of the window."""
    script = opened()
    fill(script, room)
    batch = [script.packed(ACK, payload=bytes(min(size, room // 4))) for _ in range(4)]
    monkeypatch.setattr(alexstream, "decode_segment", None)
    script.endpoint.receive_all(THEIRS, batch, now=script.now)
    assert script.session.readable == script.seq


class Counted:
    """Counts the headers that are unpacked, field by field."""

    def __init__(self, header: Any) -> None:
        self.count = 0
        self.pack = header.pack
        self._unpack = header.unpack_from

    def unpack_from(self, data: bytes, at: int) -> Any:
        """Count."""
        self.count += 1
        return self._unpack(data, at)


@pytest.mark.parametrize("room", [WINDOW, 1000])
@pytest.mark.parametrize("is_pushed", [False, True])
def test_one_comparison_is_enough_for_each_segment_of_a_run_but_the_first(
    room: int, is_pushed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first names what it answers, and the last may ask for an acknowledgement; up to the end of the window."""
    script = opened(isn=1)
    fill(script, room)
    script.session.send(b"question")
    script.take()
    batch = [script.packed(ACK, payload=bytes([1]) * 100, ack=8)]
    script.echo = 0
    batch += [script.packed(ACK, payload=bytes([count]) * 100) for count in range(2, 10)]
    batch.append(script.packed(ACK | PUSH * is_pushed, payload=b"end" + bytes(97)))
    header = Counted(alexstream._HEADER)
    monkeypatch.setattr(alexstream, "_HEADER", header)
    monkeypatch.setattr(alexstream, "decode_segment", None)
    script.endpoint.receive_all(THEIRS, batch, now=script.now)
    assert header.count == 1 + is_pushed
    assert script.session.readable == script.seq
    assert script.session.acked == 8
    data = script.session.read(WINDOW)[-1000:]
    assert data == b"".join(bytes([count]) * 100 for count in range(1, 10)) + b"end" + bytes(97)


def test_two_runs_in_one_batch_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins with another window."""
    script = opened(isn=1)
    script.echo = 0
    batch = []
    for window in WINDOW, WINDOW - 5000:
        script.window = window
        batch += [script.packed(ACK, payload=bytes(100)) for _ in range(4)]
    header, calls = Counted(alexstream._HEADER), []
    general = Session.receive_expected

    def count(*arguments: Any, **options: Any) -> int:
        calls.append(general(*arguments, **options))
        return calls[-1]

    monkeypatch.setattr(alexstream, "_HEADER", header)
    monkeypatch.setattr(Session, "receive_expected", count)
    script.endpoint.receive_all(THEIRS, batch, now=script.now)
    assert calls == [8]
    assert header.count == 2
    assert script.session.readable == script.seq == 800


def test_only_the_first_segment_of_a_run_names_what_it_answers() -> None:
    script = opened()
    script.give(ACK, payload=b"?")
    asked = script.last_stamp % WRAP
    script.session.send(bytes(3 * MSS))
    first, *others = script.take_raw()
    assert first.echo == asked
    assert [other.echo for other in others] == [0, 0]
    assert [other.ts for other in others] == [first.ts + 1, first.ts + 2]


def test_batch_of_acknowledgements_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to that of all that was sent."""
    script = opened()
    script.session.send(bytes(20 * MSS))
    script.take()
    batch = [script.packed(ACK, ack=count * MSS) for count in (2, 4, 10)]
    monkeypatch.setattr(alexstream, "decode_segment", None)
    script.endpoint.receive_all(THEIRS, batch, now=script.now)
    assert script.session.acked == 10 * MSS
