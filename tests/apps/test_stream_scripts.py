"""One endpoint against a peer written by hand, rule by rule, with exact numbers; names are test_<state>_<stimulus>.

Positions are relative: 0 is the first byte, -1 the SYN. The handshake takes 1 ms, so PTO starts at 20 ms.
"""

import gc
import os
import random
from time import process_time
from typing import Any, Callable, Dict, List, Optional

import pytest
import streamwire
from paths import ROOT
from streamscript import MSS, OURS, PORT, RTT, START, THEIRS, WINDOW, Script, accepted, opened, shape, unconfirmed
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, SYN, WRAP, Wire

from alexstream import Accepted, Acked, Closed, Congestion, Connected, EndOfStream, Endpoint, Readable, Stalled, State

OTHER = b"\x02\x00\x00\x00\x00\x03"


def address(number: int) -> bytes:
    """A unicast address by number."""
    return b"\x02" + number.to_bytes(5, "big")


def in_flight(count: int, **kind: Any) -> Script:
    """An open stream of ours with `count` full segments flying."""
    script = opened(**kind)
    script.session.send(bytes(count * MSS))
    assert shape(script.take()) == [(n * MSS, MSS) for n in range(count)]
    return script


def reason(script: Script) -> str:
    """Why the stream has ended, by its one Closed event; "" while it lives."""
    closed = [event for event in script.events() if isinstance(event, Closed)]
    assert len(closed) <= 1
    assert script.session.closed == (closed[0][1:] if closed else None)
    return closed[0].reason if closed else ""


# --- Opening --------------------------------------------------------------------------------------------------------


def test_closed_connect_sends_syn() -> None:
    script = Script()
    syn = script.connect()
    assert syn.flags == SYN | INIT
    assert (syn.port, syn.ack, syn.tag, syn.echo) == (PORT, 0, 0, 0)
    assert (syn.segment_size, syn.window, syn.sacks, syn.payload) == (MSS, WINDOW, (), b"")
    assert script.session.state.value == "SYN-SENT"


def test_syn_sent_silence_repeats_then_gives_up() -> None:
    script = Script()
    script.connect()
    times = []
    while script.endpoint.next_deadline() is not None and not script.session.closed:
        script.now = script.endpoint.next_deadline() or 0.0
        times += [round(script.now - START, 3) for wire in script.take_raw() if wire.flags == SYN | INIT]
    assert times[:5] == [0.2, 0.6, 1.1, 1.6, 2.1]
    assert len(times) == 30  # and the first: 31 tries
    assert script.now == pytest.approx(START + 15)
    assert script.events() == [Closed(script.session, "no answer", 0, 0)]
    assert script.endpoint.sessions == {}


def test_syn_sent_syn_ack_connects() -> None:
    script = Script()
    syn = script.connect()
    script.wait(RTT)
    script.raw(script.syn_ack())
    (echo,) = script.take_raw()
    assert echo.flags == ACK | INIT | PUSH
    assert (echo.seq, echo.ack, echo.tag) == ((syn.seq + 1) % WRAP, (script.isn + 1) % WRAP, script.isn)
    assert echo.segment_size == MSS
    assert script.session.state.value == "ESTABLISHED"
    assert script.names() == []  # the peer may still say "busy"
    script.give(ACK)
    assert script.names() == ["Connected"]


@pytest.mark.parametrize("wrong", [{"tag": 5}, {"ack": 5}, {"flags": SYN}, {"flags": SYN | ACK | INIT}, {"port": 8}])
def test_syn_sent_wrong_syn_ack_is_dropped(wrong: Dict[str, int]) -> None:
    script = Script()
    script.connect()
    script.raw(script.syn_ack(**wrong))
    assert script.take_raw() == []
    assert script.names() == []
    assert script.session.state.value == "SYN-SENT"
    assert sum(script.endpoint.drops.values()) == 1


def test_syn_sent_syn_ack_off_by_one_is_dropped() -> None:
    script = Script()
    script.connect()
    for error in (-1, 1):
        script.raw(script.syn_ack(ack=(script.our_isn + 1 + error) % WRAP))
        script.raw(script.syn_ack(tag=(script.our_isn + error) % WRAP))
    assert script.session.state.value == "SYN-SENT"


def test_syn_sent_data_without_syn_is_dropped() -> None:
    script = Script()
    script.connect()
    for seq in (0, 1, script.isn + 1):
        wire = Wire(script.stream, ACK | DATA, tag=script.our_isn, ack=script.our_isn + 1, seq=seq, payload=b"x")
        script.raw(wire._replace(ts=script.stamp()))
    assert script.session.state.value == "SYN-SENT"
    assert script.session.readable == 0


def test_syn_sent_refused() -> None:
    script = Script()
    script.connect()
    script.raw(Wire(script.stream, RST | ACK, ack=script.our_isn + 1, tag=script.our_isn))
    assert script.events() == [Closed(script.session, "refused", 0, 0)]
    assert script.take_raw() == []


@pytest.mark.parametrize("error", [{"tag": 1}, {"ack": 1}, {"flags": -ACK}])
def test_syn_sent_forged_reset_is_ignored(error: Dict[str, int]) -> None:
    script = Script()
    script.connect()
    good = Wire(script.stream, RST | ACK, ack=script.our_isn + 1, tag=script.our_isn)
    script.raw(good._replace(**{name: (getattr(good, name) + delta) % WRAP for name, delta in error.items()}))
    assert script.session.state.value == "SYN-SENT"
    assert script.take_raw() == []


def test_unconfirmed_sends_first_segment_only() -> None:
    """Anything else could reach the peer first and fail its cookie check."""
    script = Script()
    script.connect()
    script.wait(RTT)
    script.session.send(bytes(10 * MSS))
    script.raw(script.syn_ack())
    assert shape(script.take()) == [(0, MSS)]
    assert {(wire.seq, len(wire.payload)) for _, wire in script.run(2.0)} == {(0, MSS)}
    script.raw(script.syn_ack())  # a duplicate
    assert {wire.seq for wire in script.take()} <= {0}
    script.give(ACK, ack=0)
    assert shape(script.take())[0] == (MSS, MSS) or shape(script.take())[0] == (0, MSS)


def test_unconfirmed_repeats_the_cookie() -> None:
    script = Script()
    script.connect()
    script.wait(RTT)
    script.raw(script.syn_ack())
    sent = script.run(0.3)
    assert [time for time, _ in sent] == [0, 0.02, 0.06, 0.14, 0.3]
    for _, wire in sent:
        assert (wire.seq, wire.flags, wire.segment_size) == (0, ACK | PUSH, MSS)


def test_unconfirmed_peer_data_confirms() -> None:
    script = unconfirmed()
    script.session.send(bytes(2 * MSS))
    script.give(payload=b"hello")
    assert shape(script.take()) == [(0, MSS), (MSS, MSS)]
    assert script.session.read(10) == b"hello"


def test_unconfirmed_over_the_peers_limit_is_busy() -> None:
    script = unconfirmed()
    script.give(RST | ACK)
    assert reason(script) == "busy"


@pytest.mark.parametrize(("silence", "told"), [(63.9, "peer restarted"), (64.0, "no answer")])
def test_unconfirmed_cookie_that_expired_under_way_is_no_restart(silence: float, told: str) -> None:
    """The peer forgets a cookie after 64 to 128 seconds; nobody need have been restarted for that."""
    script = Script()
    script.connect()
    script.wait(RTT)
    script.raw(script.syn_ack())
    script.run(silence)
    script.give(RST, tag=script.isn)
    assert reason(script) == told


def test_listen_syn_makes_no_state() -> None:
    script = Script(isn=0xFFFFFFFF)
    script.endpoint.listen(PORT)
    script.raw(script.syn())
    (answer,) = script.take_raw()
    assert answer.flags == SYN | ACK
    assert (answer.ack, answer.tag, answer.segment_size, answer.window) == (0, 0xFFFFFFFF, MSS, WINDOW)
    assert answer.echo == script.last_stamp
    assert script.endpoint.sessions == {}
    assert script.endpoint.next_deadline() is None
    assert script.events() == []


def test_listen_cookie_accepts() -> None:
    script = accepted()
    assert script.session.peer == THEIRS
    assert script.session.port == PORT
    assert not script.session.opener
    assert script.session.state.value == "ESTABLISHED"


def test_listen_cookie_with_data_accepts_and_keeps_it() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    script.raw(script.syn())
    (answer,) = script.take_raw()
    script.our_isn, script.init = answer.seq, INIT
    script.wait(RTT)
    script.raw(script.cookie_echo(answer, b"hello"))
    (ack,) = script.take()
    assert (ack.flags, ack.seq, ack.ack) == (ACK, 0, 5)
    events = script.events()
    assert [type(event) for event in events] == [Accepted, Readable]
    assert events[0].session.read(9) == b"hello"


def test_listen_two_copies_of_the_cookie_make_one_stream() -> None:
    script = accepted()
    script.raw(script.cookie_echo(Wire(seq=script.our_isn, ts=script.echo), b"more"))
    assert script.names() == ["Readable"]
    assert len(script.endpoint.sessions) == 1


def answer_to(script: Script, wire: Wire, origin: bytes = THEIRS) -> List[Wire]:
    """What the endpoint sends at once after `wire`."""
    script.raw(wire, origin=origin)
    return script.take_raw()


def spend(script: Script, stream: int) -> Wire:
    """A stream that the peer opens and aborts at once; return what brought the cookie back."""
    (answer,) = answer_to(script, script.syn(stream=stream))
    echo = script.cookie_echo(answer, stream=stream)
    assert answer_to(script, echo)[0].flags == ACK
    assert answer_to(script, echo._replace(flags=RST | ACK | INIT, ts=echo.ts + 1)) == []
    script.events()
    return echo


def test_listen_cookie_depends_on_everything() -> None:
    """Same question, same cookie; any other peer, stream, port, ISN or slot, another cookie."""
    script = Script()
    script.endpoint.listen(PORT)
    script.endpoint.listen(PORT + 1)
    script.now = 64.0 * 100
    first = answer_to(script, script.syn())[0].seq
    assert answer_to(script, script.syn())[0].seq == first
    fields: List[Dict[str, int]] = [{"stream": 9}, {"port": PORT + 1}, {"seq": 9}]
    others = [answer_to(script, script.syn(**field))[0].seq for field in fields]
    others.append(answer_to(script, script.syn(), OTHER)[0].seq)
    script.now += 63.9
    assert answer_to(script, script.syn())[0].seq == first
    script.now += 0.2
    others.append(answer_to(script, script.syn())[0].seq)
    other_secret = Script(seed=2)
    other_secret.endpoint.listen(PORT)
    other_secret.now = 64.0 * 100
    others.append(answer_to(other_secret, script.syn())[0].seq)
    assert len({first, *others}) == 7


@pytest.mark.parametrize(("age", "good"), [(0.0, True), (63.0, True), (127.9, True), (128.1, False), (129.0, False)])
def test_listen_cookie_age(age: float, good: bool) -> None:
    """Two slots, then a reset of the stateless kind."""
    script = Script()
    script.endpoint.listen(PORT)
    script.now = 64.0 * 100
    (answer,) = answer_to(script, script.syn())
    script.wait(age)
    (reply,) = answer_to(script, script.cookie_echo(answer))
    assert reply.flags == (ACK if good else RST)
    assert len(script.endpoint.sessions) == good


@pytest.mark.parametrize(
    "wrong", [{"tag": 1}, {"ack": 1}, {"tag": 1, "ack": 1}, {"seq": 1}, {"port": 1}, {"stream": 1}]
)
def test_listen_guessed_cookie_makes_no_state(wrong: Dict[str, int]) -> None:
    script = Script()
    script.endpoint.listen(PORT)
    script.endpoint.listen(PORT + 1)
    (answer,) = answer_to(script, script.syn())
    good = script.cookie_echo(answer)
    bad = good._replace(**{name: (getattr(good, name) + delta) % WRAP for name, delta in wrong.items()})
    replies = answer_to(script, bad)
    assert script.endpoint.sessions == {}
    assert [reply.flags for reply in replies] in ([RST], [])
    assert answer_to(script, good._replace(ts=good.ts + 1))[0].flags == ACK


def test_listen_spent_cookie_is_refused() -> None:
    """A recorded conversation is not accepted again."""
    script = Script()
    script.endpoint.listen(PORT)
    (answer,) = answer_to(script, script.syn())
    echo = script.cookie_echo(answer, b"pay me")
    script.raw(echo)
    script.our_isn, script.init = answer.seq, INIT
    script.take()
    script.give(RST | ACK, seq=6)
    assert script.endpoint.sessions == {}
    script.events()
    for wait in (0.0, 60.0, 60.0):
        script.wait(wait)
        assert [reply.flags for reply in answer_to(script, echo)] == [RST]
        assert script.endpoint.sessions == {}
        assert script.events() == []


def test_listen_full_memory_of_cookies_voids_all_older() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    answer = waiting = answer_to(script, script.syn(stream=60000))[0]
    first = script.cookie_echo(waiting, stream=60000)
    echoes = []
    for number in range(1, 4097):
        script.now += 0.001
        (answer,) = answer_to(script, script.syn(stream=number, seq=number))
        echo = script.cookie_echo(answer, stream=number, seq=number + 1)
        assert answer_to(script, echo)[0].flags == ACK
        echoes.append(echo)
        stop = echo._replace(flags=RST | ACK | INIT, ts=echo.ts + 1)
        assert answer_to(script, stop) == []
        script.events()
    script.now += 0.1
    assert [reply.flags for reply in answer_to(script, script.cookie_echo(answer, stream=4096, seq=4097))] == [RST]
    (answer,) = answer_to(script, script.syn(stream=5000))
    assert answer_to(script, script.cookie_echo(answer, stream=5000))[0].flags == ACK  # the 4097th: a new secret
    for echo in [first, *echoes[::500]]:
        script.now += 0.1
        assert [reply.flags for reply in answer_to(script, echo)] == [RST]
    assert len(script.endpoint.sessions) == 1


def test_listen_syn_ack_echo_gives_the_first_round_trip() -> None:
    """Without state B still knows its first round trip: its PTO starts at 20 ms, not at 200."""
    script = accepted()
    script.session.send(b"x")
    assert sorted({time for time, _ in script.run(0.1)}) == [0, 0.02, 0.06]


def test_no_listener_syn_is_refused() -> None:
    script = Script()
    (reply,) = answer_to(script, script.syn())
    assert reply.flags == RST | ACK
    assert (reply.tag, reply.seq, reply.ack) == (script.isn, 0, (script.isn + 1) % WRAP)
    assert script.endpoint.sessions == {}


def test_unlistened_syn_is_refused() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    (answer,) = answer_to(script, script.syn())
    script.endpoint.unlisten(PORT)
    assert answer_to(script, script.syn())[0].flags == RST | ACK
    assert [reply.flags for reply in answer_to(script, script.cookie_echo(answer))] == [RST | ACK]


def test_listen_twice() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    with pytest.raises(ValueError, match="in use"):
        script.endpoint.listen(PORT)


@pytest.mark.parametrize("peer", [OURS, bytes(6), b"\xff" * 6, b"\x01\0\0\0\0\1", b"\x02"])
def test_connect_to_what_is_no_peer(peer: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Script().endpoint.connect(peer, PORT, now=START)


@pytest.mark.parametrize("origin", [OURS, bytes(6), b"\xff" * 6, b"\x01\0\0\0\0\1"])
def test_listen_syn_from_no_peer_is_dropped(origin: bytes) -> None:
    """LAND."""
    script = Script()
    script.endpoint.listen(PORT)
    assert answer_to(script, script.syn(), origin) == []
    assert sum(script.endpoint.drops.values()) == 1


def test_listen_flood_of_syns() -> None:
    """50 000 SYNs in 5 s from random origins leave nothing behind; an honest one gets in all the same."""
    script = Script()
    script.endpoint.listen(PORT)
    honest = Endpoint(THEIRS, rng=random.Random(1))
    rng = random.Random(33)
    answers, connected_at, before = 0, 0.0, 0
    for number in range(50000):
        script.now += rng.expovariate(10000)
        origin = address(rng.randrange(1000, 2**40))
        data = streamwire.pack(script.syn(seq=rng.getrandbits(32)), origin, OURS)
        script.endpoint.receive(origin, data, now=script.now)
        if number == 1000:
            before = len(gc.get_objects())
        if number == 20000:
            assert len(gc.get_objects()) - before < 500  # nothing for each
            honest.connect(OURS, PORT, now=script.now)
        if rng.random() < 0.01:
            for _, payload in honest.segments_to_send(now=script.now):
                script.endpoint.receive(THEIRS, payload, now=script.now)
        if number % 100 == 99:
            for peer, payload in script.endpoint.segments_to_send(now=script.now):
                answers += 1
                if peer == THEIRS:
                    honest.receive(OURS, payload, now=script.now)
            if isinstance(honest.next_event(), Connected):
                connected_at = script.now
    assert [session.peer for session in script.endpoint.sessions.values()] == [THEIRS]
    assert START + 1.9 < connected_at <= START + 4
    assert 24000 <= answers <= 5000 * (script.now - START + 1) + 10
    script.endpoint.check()


def test_listen_syns_from_one_victim_are_not_amplified() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    data = streamwire.pack(script.syn(), THEIRS, OURS)
    for _ in range(1000):
        script.endpoint.receive(THEIRS, data, now=script.now)
    replies = script.endpoint.segments_to_send(now=script.now)
    assert sum(len(reply.payload) for reply in replies) <= 1000 * len(data)


def test_stateless_resets_are_limited() -> None:
    script = Script()
    resets = 0
    for number in range(5000):
        script.now = START + number / 1000.0
        resets += len(answer_to(script, Wire(number + 1, ACK, tag=5, ack=6)))
    assert 1000 <= resets <= 1200 + 1


def test_no_stream_segment_is_reset_by_reflection() -> None:
    script = Script()
    (reply,) = answer_to(script, Wire(0x1234, ACK | INIT, 7, 10, 20, 30, 40, 50, 60))
    assert reply == Wire(0x1234, RST, 7, 20, 0, 0, 40, 0, 0)
    (reply,) = answer_to(script, Wire(0x1234, ACK | DATA, 7, 10, 20, 30, 40, 51, 60, payload=b"x"))
    assert reply == Wire(0x1234, RST | INIT, 7, 20, 0, 0, 40, 0, 0)


@pytest.mark.parametrize("flags", [RST, RST | ACK, RST | INIT, RST | ACK | INIT, SYN | ACK, SYN, RST | PUSH])
def test_no_stream_resets_and_syn_acks_are_never_answered(flags: int) -> None:
    script = Script()
    assert answer_to(script, Wire(flags=flags, tag=5, ack=6)) == []
    assert sum(script.endpoint.drops.values()) == 1


def test_limit_of_64_streams_per_peer() -> None:
    """The 65th is busy, the others are untouched."""
    script = Script()
    script.endpoint.listen(PORT)
    for number in range(1, 65):
        (answer,) = answer_to(script, script.syn(stream=number))
        (reply,) = answer_to(script, script.cookie_echo(answer, stream=number))
        assert reply.flags == ACK, number
    (answer,) = answer_to(script, script.syn(stream=65))
    (reply,) = answer_to(script, script.cookie_echo(answer, stream=65))
    assert (reply.flags, reply.tag, reply.seq) == (RST | ACK, script.isn, (answer.seq + 1) % WRAP)
    assert len(script.endpoint.sessions) == 64


def test_limit_of_1024_streams() -> None:
    script = Script()
    script.endpoint.listen(PORT)

    def ask(wire: Wire, origin: bytes) -> Wire:
        script.endpoint.receive(origin, streamwire.pack(wire, origin, OURS), now=script.now)
        (reply,) = script.endpoint.segments_to_send(now=script.now)
        return streamwire.unpack(reply.payload)

    for number in range(1025):
        origin = address(1000 + number // 60)
        script.now += 0.001
        answer = ask(script.syn(stream=number + 1), origin)
        reply = ask(script.cookie_echo(answer, stream=number + 1), origin)
        assert reply.flags == (ACK if number < 1024 else RST | ACK)
    with pytest.raises(RuntimeError):
        script.endpoint.connect(OTHER, PORT, now=script.now)
    script.endpoint.check()


def test_connect_skips_stream_numbers_in_use() -> None:
    """Zero is no stream number."""

    class Short(random.Random):
        def getrandbits(self, k: int) -> int:
            return super().getrandbits(k) if k != 16 else super().getrandbits(6)

    endpoint = Endpoint(OURS, rng=Short(1))
    streams = {endpoint.connect(THEIRS, PORT, now=START).stream for _ in range(40)}
    assert len(streams) == 40
    assert 0 not in streams


def test_both_open_to_each_other_with_one_stream_number() -> None:
    """Simultaneous open does not exist: these are two streams."""
    script = opened()
    script.endpoint.listen(PORT)
    (answer,) = answer_to(script, script.syn())
    script.raw(script.cookie_echo(answer))
    assert len(script.endpoint.sessions) == 2
    assert len({session.stream for session in script.endpoint.sessions.values()}) == 1


@pytest.mark.parametrize(("offer", "used"), [(None, 64), (0, 64), (1, 64), (63, 64), (536, 536), (65535, MSS)])
def test_segment_size_offered_is_clamped(offer: Optional[int], used: int) -> None:
    """Without the option nothing is known of the peer; its frames are at least as large as v1.0's."""
    script = opened(segment_size=offer)
    script.session.send(bytes(5000))
    first = script.take()[0]
    assert len(first.payload) == (MSS if offer is None else used)


def test_segment_size_of_a_large_interface() -> None:
    script = opened(mtu=65535, segment_size=65535)
    script.session.send(bytes(200000))
    assert len(script.take()[0].payload) == 65000


# --- Sending --------------------------------------------------------------------------------------------------------


def test_established_send_small() -> None:
    script = opened()
    script.session.send(b"hello")
    (wire,) = script.take()
    assert (wire.flags, wire.seq, wire.ack, wire.payload) == (ACK | DATA | PUSH, 0, 0, b"hello")
    assert (wire.window, wire.segment_size, wire.sacks) == (WINDOW, None, ())


def test_established_send_two_lines_without_waiting() -> None:
    """Nagle is off."""
    script = opened()
    script.session.send(b"one\n")
    assert shape(script.take()) == [(0, 4)]
    script.session.send(b"two\n")
    assert shape(script.take()) == [(4, 4)]


def test_established_send_initial_window() -> None:
    """RFC 6928: ten segments; PUSH on none of them, because eight or more fly and more is to come."""
    script = opened()
    script.session.send(bytes(100000))
    wires = script.take()
    assert shape(wires) == [(n * MSS, MSS) for n in range(10)]
    assert [bool(wire.flags & PUSH) for wire in wires] == [False] * 10


def test_established_send_exactly_what_fits_ends_with_push() -> None:
    script = opened()
    script.session.send(bytes(3 * MSS))
    assert [bool(wire.flags & PUSH) for wire in script.take()] == [False, False, True]


def test_established_send_blocked_with_few_in_flight_ends_with_push() -> None:
    script = opened(window=4 * MSS)
    script.session.send(bytes(10 * MSS))
    assert [bool(wire.flags & PUSH) for wire in script.take()] == [False, False, False, True]


def test_established_ack_in_slow_start_sends_twice_as_much() -> None:
    script = opened()
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 10
    script.wait(RTT)
    script.give(ACK, ack=2 * MSS)
    assert shape(script.take()) == [(n * MSS, MSS) for n in range(10, 14)]


def test_established_large_ack_replaces_what_arrived_and_32_segments_at_most() -> None:
    script = opened()
    script.session.send(bytes(360 * MSS))
    counts = [len(script.take())]
    for _ in range(4):
        script.wait(RTT)
        script.give(ACK, ack=sum(counts) * MSS)
        counts.append(len(script.take()))
    assert counts == [10, 20, 40, 40 + 32, 80]  # then the congestion window is the limit


def test_established_after_idle_time_32_segments_leave_at_once() -> None:
    """However many earlier acknowledgements would have let go."""
    script = opened()
    for _ in range(4):
        script.session.send(bytes(100 * MSS))
        script.run(RTT)
        while script.session.acked < script.session.written:
            script.give(ACK, ack=script.session.sender.nxt - 1)
            script.take()
    script.wait(RTT)
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 32


def test_established_send_takes_what_the_buffer_holds() -> None:
    script = opened(window=0)
    assert script.session.send(bytes(600000)) == WINDOW
    assert script.session.send(b"more") == 0
    assert script.session.writable == 0
    assert script.session.written == WINDOW
    script.take()
    script.window = WINDOW
    script.give(ACK)
    script.take()
    script.give(ACK, ack=5000)
    assert "Writable" in script.names()
    assert script.session.writable == 5000
    assert script.session.send(memoryview(bytes(6000))) == 5000


def test_established_ack_is_a_receipt() -> None:
    script = opened()
    script.session.send(bytes(1000))
    script.take()
    script.wait(RTT)
    script.give(ACK, ack=600)
    assert script.events() == [Acked(script.session, 600)]
    script.give(ACK, ack=1000)
    assert script.events() == [Acked(script.session, 1000)]
    script.give(ACK, ack=1000)
    assert script.events() == []
    assert script.session.acked == 1000


def test_established_ack_in_mid_segment_resends_the_rest_only() -> None:
    script = opened()
    script.session.send(bytes(range(250)))
    script.take()
    script.wait(RTT)
    script.give(ACK, ack=100)
    (again,) = {wire for _, wire in script.run(0.02)}
    assert (again.seq, again.payload) == (100, bytes(range(100, 250)))


@pytest.mark.parametrize("beyond", [1, 2, 1000, 2**31 - 6, 2**31 - 5])
def test_established_ack_of_what_was_never_sent(beyond: int) -> None:
    """Dropped, challenged ten times a second at most."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    challenges = 0
    for _ in range(100):
        script.give(ACK, ack=5 + beyond)
        challenges += len(script.take())
        script.wait(0.0001)
    assert challenges == 10
    assert script.session.acked == 0
    script.give(ACK, ack=5)
    assert script.session.acked == 5


def test_established_acks_of_what_has_not_arrived_yet() -> None:
    """Who acknowledges what still flies hurts himself: it is never sent again, nor sent any faster."""
    script = opened()
    script.session.send(bytes(WINDOW))
    counts = [len(script.take())]
    while counts[-1]:
        script.wait(RTT)
        script.give(ACK, ack=min(sum(counts) * MSS, WINDOW))
        counts.append(len(script.take()))
        assert counts[-1] <= min(2 * counts[-2], counts[-2] + 32)
    assert script.session.acked == WINDOW
    assert {wire.payload for _, wire in script.run(60.0)} <= {b""}


@pytest.mark.parametrize("acks", [1000, pytest.param(10000, marks=pytest.mark.slow)])
def test_established_flood_of_shifting_sacks(acks: int) -> None:
    """16 true blocks each, never the same; a window of 370 segments flies."""
    script = opened()
    script.session.send(bytes(WINDOW))
    top, held = 10 * MSS, 0
    script.take()
    while top < held + 360 * MSS:  # acknowledged by fours, the window grows by as much
        script.wait(RTT)
        held += 4 * MSS
        script.give(ACK, ack=held)
        script.session.send(bytes(script.session.writable))
        top = max([top] + [wire.seq + len(wire.payload) for wire in script.take()])
    rng = random.Random(54)
    first = script.ack // MSS + 1
    spent = process_time()
    for _ in range(acks):
        script.wait(0.0001)
        blocks = [(MSS * n, MSS * (n + 1)) for n in (rng.randrange(first, first + 350) for _ in range(16))]
        script.endpoint.receive(THEIRS, script.packed(ACK, sacks=blocks), now=script.now)
        script.endpoint.segments_to_send(now=script.now)
    assert process_time() - spent < acks * 2e-3
    script.take()
    assert reason(script) == ""


def test_established_ack_at_una_minus_1_una_nxt() -> None:
    script = in_flight(3)
    script.wait(RTT)
    script.give(ACK, ack=MSS)
    script.events()
    for ack, acked in ((MSS - 1, MSS), (MSS, MSS), (3 * MSS, 3 * MSS)):
        script.give(ACK, ack=ack)
        assert script.session.acked == acked
        assert script.take() == []


def test_established_ack_below_the_isn_is_challenged() -> None:
    script = in_flight(3)
    script.wait(RTT)
    script.give(ACK, ack=MSS)
    script.give(ACK, ack=-2)
    assert [wire.flags for wire in script.take()] == [ACK]
    assert script.session.acked == MSS


@pytest.mark.parametrize(
    "sack", [(5000, 4000), (4000, 4000), (-5, 0), (0, 1000000), (-(2**30), 2**30), (0, MSS + 1), (3 * MSS, 9 * MSS)]
)
def test_established_wrong_sack_is_ignored(sack: Any) -> None:
    """Inverted, empty, below una, beyond nxt, everything."""
    script = in_flight(3)
    script.wait(RTT)
    script.give(ACK, sacks=[sack])
    assert script.take() == []
    script.give(ACK, ack=3 * MSS)
    assert script.session.acked == 3 * MSS


def test_established_reneging_peer_is_sent_again_what_it_took_back() -> None:
    """SACKed first, then acknowledged only up to there; nothing above `una` was forgotten."""
    script = in_flight(3)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 3 * MSS)])
    script.give(ACK, ack=MSS)
    script.take()
    assert {wire.seq for _, wire in script.run(0.2)} >= {MSS}
    script.give(ACK, ack=2 * MSS)
    assert 2 * MSS in shape_starts(script)
    script.give(ACK, ack=3 * MSS)
    assert script.session.acked == 3 * MSS
    assert script.endpoint.next_deadline() == script.now + 15


def shape_starts(script: Script) -> List[int]:
    """Positions of what is sent within a fifth of a second."""
    return [wire.seq for _, wire in script.run(0.2)]


def test_established_random_sacks_do_no_harm() -> None:
    script = in_flight(10)
    rng = random.Random(51)
    for _ in range(300):
        script.wait(0.0001)
        script.give(ACK, sacks=[(rng.getrandbits(32), rng.getrandbits(32)) for _ in range(16)])
    script.take()
    script.give(ACK, ack=10 * MSS)
    assert script.session.acked == 10 * MSS


def test_established_segment_sent_once_has_arrived_whatever_is_echoed() -> None:
    """An acknowledgement may name an older one that was under way for longer."""
    script = in_flight(10)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 5 * MSS)], echo=script.echo - 9)
    assert shape(script.take())[:1] == [(0, MSS)]


def test_established_two_later_sacks_are_no_loss_three_are() -> None:
    """The packet threshold of RFC 9002 section 6.1.1."""
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 2 * MSS)])
    script.give(ACK, sacks=[(MSS, 3 * MSS)])
    assert script.take() == []
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    assert shape(script.take()) == [(0, MSS)]


def test_established_reordering_time_is_loss() -> None:
    """RACK: lost when sent max(srtt, latest) + reo = 1 + 1 ms ago and overtaken."""
    script = in_flight(2)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 2 * MSS)])
    assert [(round(time, 5), wire.seq) for time, wire in script.run(0.005)] == [(0.001, 0)]


def test_established_lost_again_is_found_by_later_transmissions() -> None:
    script = in_flight(5)
    script.session.send(bytes(5 * MSS))
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    assert (0, MSS) in shape(script.take())
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 8 * MSS)])
    assert (0, MSS) in shape(script.take()) + shape([wire for _, wire in script.run(0.004)])


def test_established_spurious_loss_is_undone() -> None:
    """The first copy arrived after all: its echo is older than the second copy."""
    script = in_flight(10)
    first = script.echo - 9
    script.session.send(bytes(40 * MSS))
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    again = shape(script.take())
    assert again[0] == (0, MSS)
    script.wait(0.0002)
    script.give(ACK, ack=4 * MSS, echo=first)
    script.take()
    # From here on the packet threshold is off: three later ones are not enough.
    script.give(ACK, sacks=[(5 * MSS, 10 * MSS)])
    assert (4 * MSS, MSS) not in shape(script.take())


def test_established_silence_probes() -> None:
    """PTO: 20 ms, doubled each time, 2 s at most; each time head and tail, asking for an answer at once."""
    script = in_flight(5)
    sent = script.run(9.0)
    times: List[float] = []
    for time, wire in sent:
        if not times or times[-1] != time:
            times.append(time)
        assert wire.flags & PUSH
    assert times == [0.02, 0.06, 0.14, 0.30, 0.62, 1.26, 2.54, 4.54, 6.54, 8.54]
    assert shape([wire for time, wire in sent if time == 0.02]) == [(0, MSS), (4 * MSS, MSS)]


def test_established_silence_probe_prefers_new_data() -> None:
    script = opened()
    script.session.send(bytes(12 * MSS))
    assert len(script.take()) == 10
    (first, second) = [wire for _, wire in script.run(0.02)]
    assert shape([first, second]) == [(0, MSS), (10 * MSS, MSS)]


def test_established_silence_marks_nothing_lost() -> None:
    """RFC 9002 section 6.2: the answer, late, to the first copy of the head shows nothing of the rest."""
    script = opened()
    script.session.send(bytes(10 * MSS))
    first = script.take_raw()[0].ts
    script.run(0.02)
    script.wait(0.0005)
    script.give(ACK, ack=MSS, echo=first)
    assert script.take() == []


def test_established_three_silent_probes_collapse_the_window() -> None:
    script = opened()
    script.session.send(bytes(100 * MSS))
    assert len(script.take()) == 10
    script.run(0.15)
    sent = 13
    script.wait(RTT)
    script.give(ACK, ack=sent * MSS)
    assert len(script.take()) in (2, 3)


def test_established_silence_is_told() -> None:
    script = in_flight(2)
    heard = script.now
    script.run(0.29)
    assert script.names() == []
    script.run(0.011)
    assert script.events() == [Stalled(script.session, heard)]
    script.run(100.0)
    assert script.names() == []
    script.give(ACK, ack=MSS)
    assert script.names()[0] == "Resumed"


def test_established_user_timeout() -> None:
    """180 s without progress, and by then far more than 8 probes."""
    script = in_flight(2)
    script.run(179.9)
    assert reason(script) == ""
    script.run(2.2)
    assert reason(script) == "timed out"
    assert script.endpoint.sessions == {}
    assert script.endpoint.next_deadline() is None


def test_established_stopped_for_300_seconds_probes_before_it_gives_up() -> None:
    """On waking the input comes first; and with none, eight probes."""
    script = in_flight(2)
    script.wait(300.0)
    assert script.take() != []
    assert reason(script) == ""
    script.wait(0.001)
    script.give(ACK, ack=2 * MSS)
    assert reason(script) == ""
    silent = in_flight(2)
    silent.wait(300.0)
    silent.run(4.0)
    assert reason(silent) == ""
    silent.run(4.0)
    assert reason(silent) == "timed out"


def test_established_head_missing_for_ever_times_out() -> None:
    """What is SACKed and never acknowledged is no progress; and it is not sent again."""
    script = in_flight(10)
    start = script.now
    heads = 0
    while not script.session.closed and script.now < START + 400:
        script.wait(0.1)
        script.give(ACK, sacks=[(MSS, 10 * MSS)])
        sent = shape(script.take())
        assert all(position < MSS or (position, length) == (10 * MSS, 0) for position, length in sent)
        heads += sent != []
    assert heads > 8
    assert reason(script) == "timed out"
    assert 180 <= script.now - start <= 183


@pytest.mark.parametrize("echo", [0, 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_established_senseless_echo_is_no_sample(echo: int) -> None:
    """PTO stays what it was."""
    script = in_flight(2)
    script.wait(RTT)
    script.give(ACK, ack=MSS, echo=echo)
    assert {time for time, _ in script.run(0.03)} == {0.02}


def test_established_echo_of_the_future_is_no_sample() -> None:
    script = in_flight(2)
    script.wait(RTT)
    script.give(ACK, ack=MSS, echo=script.echo + 1000000)
    assert {time for time, _ in script.run(0.03)} == {0.02}


def test_established_zero_window_is_probed_for_ever() -> None:
    script = opened(window=0)
    script.session.send(bytes(5000))
    times = []
    for _ in range(300):
        deadline = script.endpoint.next_deadline()
        assert deadline is not None
        script.now = deadline
        for wire in script.take():
            assert (wire.flags, wire.seq, wire.payload) == (ACK | PUSH, 0, b"")
            times.append(script.now)
            script.wait(RTT)
            script.give(ACK)
    assert script.take() == []
    assert times[-1] - times[0] > 250
    pauses = [after - before for before, after in zip(times, times[1:])]
    assert max(pauses) <= 2.0 + RTT + 1e-6
    assert reason(script) == ""
    script.window = 5000
    script.give(ACK)
    assert sum(len(wire.payload) for wire in script.take()) == 5000


def test_established_zero_window_of_a_dead_peer_times_out() -> None:
    script = opened(window=0)
    script.session.send(bytes(5000))
    sent = script.run(179.0)
    assert {(wire.flags, wire.payload) for _, wire in sent} == {(ACK | PUSH, b"")}
    assert [time for time, _ in sent][:4] == [0.02, 0.06, 0.14, 0.3]
    script.run(4.0)
    assert reason(script) == "timed out"


def test_established_window_opening_by_single_bytes() -> None:
    """The sender waits for a segment or half the largest window."""
    script = opened(window=4 * MSS)
    script.session.send(bytes(20000))
    assert len(script.take()) == 4
    script.wait(RTT)
    script.window = 0
    script.give(ACK, ack=4 * MSS)
    for window in range(1, MSS):
        script.window = window
        script.give(ACK)
        assert script.take() == []
    script.window = MSS
    script.give(ACK)
    assert shape(script.take()) == [(4 * MSS, MSS)]


def test_established_window_of_half_the_largest_is_used() -> None:
    script = opened(window=1000)
    script.session.send(bytes(20000))
    assert shape(script.take()) == [(0, 1000)]
    script.wait(RTT)
    for window, sent in ((499, []), (500, [(1000, 500)])):
        script.window = window
        script.give(ACK, ack=1000)
        assert shape(script.take()) == sent


def test_established_shrunken_window_is_not_obeyed() -> None:
    """The edge never moves back (RFC 9293 section 3.8.6)."""
    script = opened(window=10000)
    script.session.send(b"x" * 1000)
    script.take()
    script.wait(RTT)
    script.window = 0
    script.give(ACK, ack=1000)
    script.session.send(b"x" * 1000)
    assert shape(script.take()) == [(1000, 1000)]


def test_established_path_mtu_falls() -> None:
    """What flies in larger segments goes again in smaller ones."""
    script = in_flight(3)
    script.wait(0.0005)
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=600)
    sent = [wire for _, wire in script.run(0.1)]
    size = 600 - 23 - 36 - 28
    assert max(len(wire.payload) for wire in sent) == size
    covered = sorted(shape(sent))
    assert covered[0][0] == 0
    end = 0
    for position, length in covered:
        assert position <= end
        end = max(end, position + length)
    assert end == 3 * MSS


def test_established_path_mtu_rises_only_when_told() -> None:
    script = opened(mtu=9000, segment_size=8913)
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=1500)
    script.session.send(bytes(20000))
    assert {len(wire.payload) for wire in script.take()[:3]} == {MSS}
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=9000)
    script.wait(RTT)
    script.give(ACK, ack=10 * MSS)
    assert max(len(wire.payload) for wire in script.take()) > MSS


def test_path_mtu_below_any_use_is_clamped() -> None:
    script = opened()
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=10)
    script.session.send(bytes(200))
    assert {len(wire.payload) for wire in script.take()} == {64, 200 % 64}


def test_established_path_back_sends_at_once() -> None:
    script = in_flight(3)
    script.run(10.0)
    script.endpoint.path_changed(THEIRS, now=script.now)
    assert (0, MSS) in shape(script.take())


def test_path_changed_for_nobody() -> None:
    script = Script()
    script.endpoint.path_changed(THEIRS, now=script.now, mtu=900)
    assert script.take_raw() == []


def test_established_black_hole_is_found() -> None:
    """Small probes are answered, big ones are not, five times: half the segment size."""
    script = opened()
    script.session.send(bytes(50000))
    script.take()
    sizes, fitting, answers = set(), [], 0
    for _ in range(200):
        script.now = script.endpoint.next_deadline() or 0.0
        wires = script.take()
        script.wait(RTT)
        small = [wire for wire in wires if len(wire.payload) <= 813]
        sizes |= {len(wire.payload) for wire in wires}
        fitting = [(wire.seq, wire.seq + len(wire.payload)) for wire in small if wire.payload]
        if fitting:
            break
        if any(wire.flags & PUSH and not wire.payload for wire in small):
            script.give(ACK)
            answers += 1
    assert answers == 5
    assert max(stop - start for start, stop in fitting) == MSS // 2


# --- Receiving ------------------------------------------------------------------------------------------------------


def test_established_fourth_segment_is_acknowledged_at_once() -> None:
    script = opened()
    for number in range(3):
        script.give(payload=b"x" * 100)
        assert script.take() == [], number
    script.give(payload=b"x" * 100)
    (ack,) = script.take()
    assert (ack.flags, ack.seq, ack.ack, ack.payload) == (ACK, 0, 400, b"")


def test_established_segment_is_acknowledged_after_5_ms() -> None:
    script = opened()
    script.give(payload=b"x")
    script.wait(0.0049)
    assert script.take() == []
    script.wait(0.0001)
    assert [wire.ack for wire in script.take()] == [1]


def test_established_reply_carries_the_acknowledgement() -> None:
    script = opened()
    script.give(payload=b"x")
    script.session.send(b"y")
    assert [(wire.ack, wire.payload) for wire in script.take()] == [(1, b"y")]
    assert [wire for _, wire in script.run(0.01)] == []


def test_established_push_is_acknowledged_at_once() -> None:
    script = opened()
    script.give(ACK | PUSH, payload=b"x", ts=77000000)
    (wire,) = script.take_raw()
    assert wire.flags == ACK | INIT
    assert wire.echo == 77000000


def test_established_empty_push_is_answered_without_push() -> None:
    script = opened()
    script.give(ACK | PUSH, ts=77000000)
    (wire,) = script.take_raw()
    assert (wire.flags, wire.echo, wire.payload) == (ACK | INIT, 77000000, b"")
    script.give(ACK)
    assert script.take() == []


def test_established_flood_of_pushes_in_one_batch() -> None:
    """One acknowledgement a batch."""
    script = opened()
    for _ in range(64):
        script.give(ACK | PUSH)
    assert len(script.take()) == 1


def test_established_gap_is_reported_at_once() -> None:
    script = opened()
    script.give(seq=100, payload=b"b" * 100)
    (ack,) = script.take()
    assert (ack.ack, ack.sacks) == (0, ((100, 200),))
    script.give(seq=0, payload=b"a" * 50)
    assert [(wire.ack, wire.sacks) for wire in script.take()] == [(50, ((100, 200),))]
    script.give(seq=50, payload=b"a" * 50)
    assert [(wire.ack, wire.sacks) for wire in script.take()] == [(200, ())]
    assert script.session.read(300) == b"a" * 100 + b"b" * 100


def test_established_duplicate_is_acknowledged_at_once() -> None:
    script = opened()
    script.give(ACK | PUSH, payload=b"hello")
    script.take()
    script.give(seq=0, payload=b"hello")
    assert [wire.ack for wire in script.take()] == [5]
    assert script.session.readable == 5


def test_established_sacks_newest_first_then_from_the_left() -> None:
    script = opened()
    for seq in (1000, 3000, 5000, 2000):
        script.give(seq=seq, payload=b"x" * 100)
    (ack,) = script.take()
    assert ack.sacks == ((2000, 2100), (1000, 1100), (3000, 3100), (5000, 5100))


def test_established_sacks_16_alone_3_with_data() -> None:
    script = opened()
    for number in range(20):
        script.give(seq=1000 * (number + 1), payload=b"x")
    (ack,) = script.take()
    assert len(ack.sacks) == 16
    assert ack.sacks[0] == (20000, 20001)
    script.session.send(b"y")
    script.give(seq=30000, payload=b"x")
    assert [(len(wire.sacks), wire.payload) for wire in script.take()] == [(3, b"y")]


def test_established_two_copies_that_differ() -> None:
    """The first wins."""
    script = opened()
    script.give(seq=5, payload=b"first")
    script.give(seq=3, payload=b"other copy")
    script.give(seq=0, payload=b"01234567")
    assert script.session.read(99) == b"012otfirstopy"


@pytest.mark.parametrize("read_first", [False, True])
def test_established_segment_at_the_edge(read_first: bool) -> None:
    """Edge - 1 is taken; edge, edge + 1 and half the circle away are answered only."""
    script = opened()
    for seq, sacks in ((WINDOW - 1, ((WINDOW - 1, WINDOW),)), (WINDOW, None), (WINDOW + 1, None), (2**31 - 1, None)):
        script.give(seq=seq, payload=b"x")
        (ack,) = script.take()
        assert (ack.ack, ack.sacks) == (0, sacks if sacks else ((WINDOW - 1, WINDOW),))
    assert script.session.readable == 0


def test_established_segment_across_the_edge_is_cut() -> None:
    script = opened()
    script.give(seq=WINDOW - 3, payload=b"abcdef")
    (ack,) = script.take()
    assert ack.sacks == ((WINDOW - 3, WINDOW),)


def test_established_window_shrinks_as_nobody_reads() -> None:
    script = opened()
    for _ in range(4):
        script.give(payload=b"x" * 1000)
    (ack,) = script.take()
    assert (ack.ack, ack.window) == (4000, WINDOW - 4000)
    script.session.read(1000)
    script.give(ACK | PUSH)
    (ack,) = script.take()
    assert ack.ack + ack.window == WINDOW  # a step too small to tell
    script.session.read(1000)
    script.give(ACK | PUSH)
    (ack,) = script.take()
    assert ack.ack + ack.window == WINDOW + 2000


def fill_window(script: Script) -> None:
    """The peer sends all that we take."""
    while script.seq < WINDOW:
        script.give(payload=b"x" * min(60000, WINDOW - script.seq))
        script.take()
    script.give(ACK | PUSH)
    assert [(wire.ack, wire.window) for wire in script.take()] == [(WINDOW, 0)]


def test_established_full_window_takes_nothing() -> None:
    script = opened()
    fill_window(script)
    script.give(seq=WINDOW, payload=b"y")
    assert [(wire.ack, wire.window) for wire in script.take()] == [(WINDOW, 0)]
    assert script.session.readable == WINDOW


def test_established_reading_opens_the_window_unasked() -> None:
    script = opened()
    fill_window(script)
    script.session.read(MSS - 1)
    assert script.take() == []
    script.session.read(1)
    (update,) = script.take()
    assert (update.flags, update.ack, update.window) == (ACK, WINDOW, MSS)


def test_established_reading_of_4_segments_opens_a_narrow_window() -> None:
    script = opened()
    while script.seq < WINDOW - 100000:
        script.give(payload=b"x" * 50000)
        script.take()
    script.run(0.01)
    script.session.read(4 * MSS - 1)
    assert script.take() == []
    script.session.read(1)
    assert [wire.ack + wire.window for wire in script.take()] == [WINDOW + 4 * MSS]


def test_established_at_most_1024_pieces() -> None:
    script = opened()
    for number in range(1, 1100):
        script.give(seq=2 * number, payload=b"x")
    (ack,) = script.take()
    assert max(stop for _, stop in ack.sacks) <= 2 * 1024 + 1
    script.give(seq=0, payload=b"y" * 5000)
    assert script.session.readable == 5000


@pytest.mark.parametrize("count", [20000, pytest.param(1000000, marks=pytest.mark.slow)])
def test_established_a_million_single_bytes(count: int) -> None:
    """An acknowledgement for every fourth; the last ones cost no more than the first."""
    script = opened()
    wire = Wire(script.stream, ACK | DATA, PORT, 0, script.our_isn + 1, WINDOW, script.our_isn, payload=b"x")
    acks, halves = 0, []
    for _ in range(2):
        spent = process_time()
        for _ in range(count // 2):
            script.seq += 1
            data = script.pack(wire._replace(seq=script.isn + script.seq, ts=script.stamp()))
            script.endpoint.receive(THEIRS, data, now=script.now)
            acks += len(script.endpoint.segments_to_send(now=script.now))
            if script.session.readable > 10000:
                script.session.read(10000)
        halves.append(process_time() - spent)
    assert acks == pytest.approx(count / 4, rel=0.01)
    assert halves[1] < 2 * halves[0] + 0.1


def test_established_forged_data_with_the_right_numbers_is_taken() -> None:
    """Who can see the segments can forge them; the README says so."""
    script = opened()
    script.give(ACK | PUSH, payload=b"forged")
    assert script.session.read(9) == b"forged"
    with open(os.path.join(ROOT, "README.md")) as readme:
        assert "not authenticated" in readme.read()


def test_established_peer_stopped_for_a_minute_while_we_write() -> None:
    """The window fills, then Stalled, Resumed, and nothing is lost."""
    script = opened(window=5 * MSS)
    assert script.session.send(bytes(WINDOW)) == WINDOW
    sent = script.take() + [wire for _, wire in script.run(60.0)]
    assert max(wire.seq + len(wire.payload) for wire in sent) == 5 * MSS
    assert script.session.send(b"x") == 0
    assert script.names() == ["Stalled"]
    script.window = WINDOW
    script.give(ACK, ack=5 * MSS)
    assert script.names()[0] == "Resumed"
    assert shape(script.take())[0] == (5 * MSS, MSS)


@pytest.mark.parametrize(("age", "taken"), [(29.9, True), (30.1, False)])
def test_established_old_ts_is_dropped(age: float, taken: bool) -> None:
    """PAWS."""
    script = opened()
    script.give(ACK, ts=100000000)
    script.give(ACK | PUSH, payload=b"x", ts=(100000000 - int(age * 1e6)) % WRAP)
    assert script.session.readable == taken
    if not taken:
        assert sum(script.endpoint.drops.values()) == 1
        assert script.take() == []


def test_established_old_ts_after_15_idle_minutes_is_taken() -> None:
    """By then the peer's stamps may have wrapped; only a process that was stopped gets here."""
    script = opened()
    script.give(ACK, ts=100000000)
    script.wait(901.0)
    script.give(ACK | PUSH, payload=b"x", ts=1)
    assert script.session.readable == 1


@pytest.mark.parametrize("field", ["tag", "port"])
def test_established_wrong_tag_or_port(field: str) -> None:
    """No effect; what is reflected cannot hit the live stream."""
    script = opened()
    good = Wire(script.stream, ACK | DATA, PORT, script.isn + 1, script.our_isn + 1, tag=script.our_isn, payload=b"x")
    script.raw(good._replace(ts=script.stamp(), **{field: getattr(good, field) + 1}))
    for reply in script.take_raw():
        assert reply.flags & RST
        assert not reply.flags & ACK
    assert script.session.readable == 0
    assert script.names() == []


def test_established_wrong_init_bit_is_another_stream() -> None:
    script = opened()
    wire = Wire(script.stream, ACK | INIT | DATA, PORT, script.isn + 1, script.our_isn + 1, tag=script.our_isn)
    (reply,) = answer_to(script, wire._replace(payload=b"x"))
    assert reply.flags == RST
    assert script.session.readable == 0


def test_established_syn_is_challenged() -> None:
    """A late duplicate and a forged one; ten a second."""
    script = accepted()
    count = 0
    for number in range(50):
        script.wait(0.001)
        script.raw(script.syn() if number % 2 else script.syn(seq=number))
        count += len(script.take())
    assert count == 10
    assert script.names() == []
    assert script.session.state.value == "ESTABLISHED"
    script.wait(1.1)
    script.raw(script.syn())
    assert [wire.flags for wire in script.take()] == [ACK]


def test_established_late_syn_ack_is_challenged() -> None:
    script = opened()
    for _ in range(30):
        script.raw(script.syn_ack())
        script.wait(0.0001)
    assert len(script.take()) <= 10
    assert script.session.state.value == "ESTABLISHED"


def test_established_blind_segments_do_nothing() -> None:
    script = opened()
    script.session.send(b"hello")
    script.take()
    rng = random.Random(70)
    for _ in range(5000):
        flags = rng.choice([ACK | DATA, ACK | DATA | FIN, RST, RST | ACK, ACK, SYN | ACK, SYN, ACK | PUSH])
        numbers = [rng.getrandbits(32) for _ in range(6)]
        payload = b"evil" if flags & DATA else b""
        wire = Wire(script.stream, flags, PORT, *numbers)._replace(payload=payload)  # type: ignore[arg-type]
        script.endpoint.receive(THEIRS, streamwire.pack(wire, THEIRS, OURS), now=script.now)
    script.endpoint.check()
    assert script.session.state.value == "ESTABLISHED"
    assert (script.session.readable, script.session.acked) == (0, 0)
    script.give(ACK, ack=5, payload=b"good")
    assert script.session.read(9) == b"good"
    assert script.session.acked == 5


def test_any_bytes_are_counted_and_dropped() -> None:
    script = opened()
    for size in range(36):
        script.feed(bytes(size))
    assert script.endpoint.drops["short"] == 36
    script.feed(bytes(100))
    assert script.endpoint.drops["length"] == 1
    script.feed(bytes([0, 1, 2, 9]) + bytes(96))
    assert script.endpoint.drops["checksum"] == 1
    assert script.take() == []


def test_established_segment_cut_anywhere_is_dropped() -> None:
    """Also what begins as the expected segment does and ends before its header."""
    script = opened()
    whole = script.packed(ACK | DATA, payload=b"hello")
    for size in range(len(whole)):
        script.feed(whole[:size])
    assert sum(script.endpoint.drops.values()) == len(whole)
    assert script.session.readable == 0
    script.feed(whole)
    assert script.session.read(9) == b"hello"


# --- Resets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seq", "good"), [(-1, False), (0, True), (1000, True), (WINDOW, True), (WINDOW + 1, False)])
def test_established_reset(seq: int, good: bool) -> None:
    """From rcv_nxt to the edge."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.give(RST | ACK, seq=seq)
    assert script.take_raw() == []
    assert reason(script) == ("reset by peer" if good else "")


def test_established_reset_with_a_wrong_tag_is_ignored() -> None:
    script = opened()
    for tag in (0, script.isn, script.our_isn + 1):
        script.give(RST | ACK, tag=tag)
    assert script.take_raw() == []
    assert reason(script) == ""


@pytest.mark.parametrize(
    ("seq", "good"), [(1, False), (0, True), (-1, True), (-WINDOW, True), (-WINDOW - 1, False), (2**30, False)]
)
def test_established_stateless_reset(seq: int, good: bool) -> None:
    """A peer that knows nothing reflects our own words: our ack as its seq, its old ISN as tag."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.give(RST, seq=seq, tag=script.isn)
    assert script.take_raw() == []
    assert reason(script) == ("peer restarted" if good else "")


def test_established_stateless_reset_after_a_long_silence_is_a_restart() -> None:
    script = opened()
    script.run(100.0)
    script.give(RST, tag=script.isn)
    assert reason(script) == "peer restarted"


def test_established_stateless_reset_with_our_tag_is_ignored() -> None:
    script = opened()
    script.give(RST, tag=script.our_isn)
    assert reason(script) == ""


def test_established_abort() -> None:
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.session.abort()
    (wire,) = script.take()
    assert (wire.flags, wire.seq, wire.ack) == (RST | ACK, 5, 0)
    assert script.events() == [Closed(script.session, "aborted", 5, 0)]
    assert script.endpoint.sessions == {}
    assert script.run(60.0) == []
    assert script.session.send(b"x") == 0
    script.session.abort()
    script.session.finish()
    assert script.events() == []


def test_syn_sent_abort() -> None:
    script = Script()
    script.connect()
    script.session.abort()
    assert script.events() == [Closed(script.session, "aborted", 0, 0)]
    assert all(wire.flags & RST for wire in script.take_raw())
    assert script.endpoint.next_deadline() is None


def test_closed_segments_after_abort_are_reset_statelessly() -> None:
    script = opened()
    script.session.abort()
    script.take()
    script.give(payload=b"x")
    (wire,) = script.take_raw()
    assert wire.flags == RST | INIT
    assert (wire.seq, wire.tag) == ((script.our_isn + 1) % WRAP, script.our_isn)


# --- Closing --------------------------------------------------------------------------------------------------------


def test_established_finish_sends_fin() -> None:
    script = opened()
    script.session.send(b"hello")
    script.session.finish()
    (wire,) = script.take()
    assert (wire.flags, wire.seq, wire.payload) == (ACK | DATA | FIN | PUSH, 0, b"hello")
    assert script.session.state.value == "FIN-WAIT-1"
    with pytest.raises(ValueError, match="finish"):
        script.session.send(b"more")
    script.session.finish()
    assert script.take() == []


def test_established_finish_of_nothing() -> None:
    script = opened()
    script.session.finish()
    (wire,) = script.take()
    assert (wire.flags & ~PUSH, wire.seq, wire.payload) == (ACK | FIN, 0, b"")


def test_syn_sent_finish_waits_for_the_peer() -> None:
    script = Script()
    script.connect()
    script.session.send(b"hello")
    script.session.finish()
    assert script.take_raw() == []
    script.wait(RTT)
    script.raw(script.syn_ack())
    (wire,) = script.take()
    assert (wire.seq, wire.payload) == (0, b"hello")
    script.give(ACK, ack=5)
    rest = script.take()
    assert (wire.flags | (rest[0].flags if rest else 0)) & FIN


def test_fin_wait_1_fin_is_repeated_like_data() -> None:
    script = opened()
    script.session.finish()
    script.take()
    sent = script.run(0.2)
    assert [time for time, _ in sent] == [0.02, 0.02, 0.06, 0.06, 0.14, 0.14]  # two copies of what is alone
    assert {wire.flags for _, wire in sent} == {ACK | FIN | PUSH}


def test_fin_wait_2_peer_may_send_for_ever() -> None:
    """Half-close."""
    script = opened()
    script.session.finish()
    script.take()
    script.wait(RTT)
    script.give(ACK, ack=1)
    assert script.session.state.value == "FIN-WAIT-2"
    for _ in range(100):
        script.run(36.0)
        script.give(ACK | PUSH, payload=b"still here")
        script.take()
        assert script.session.read(99) == b"still here"
    assert script.session.closed is None


def test_established_fin_ends_the_stream_after_all_bytes() -> None:
    """A FIN out of order; and it is acknowledged at once."""
    script = opened()
    script.give(ACK | FIN, seq=5)
    assert script.names() == []
    script.take()
    script.give(seq=0, payload=b"hello")
    assert "EndOfStream" in script.names()
    assert [wire.ack for wire in script.take()] == [6]
    assert script.session.state.value == "CLOSE-WAIT"
    assert [script.session.at_eof, script.session.read(9), script.session.at_eof] == [False, b"hello", True]
    assert script.session.read(9) == b""


def test_close_wait_we_may_still_send() -> None:
    script = opened()
    script.give(ACK | FIN)
    script.take()
    script.session.send(b"hello")
    assert shape(script.take()) == [(0, 5)]
    script.wait(RTT)
    script.give(ACK, ack=5)
    assert script.session.acked == 5


@pytest.mark.parametrize(
    ("flags", "seq", "payload"), [(ACK | FIN, 3, b""), (ACK | FIN, 9, b""), (ACK, 5, b"x"), (ACK, 6, b"x")]
)
def test_close_wait_contradiction_of_the_end_is_dropped(flags: int, seq: int, payload: bytes) -> None:
    script = opened()
    script.give(ACK | FIN | PUSH, payload=b"hello")
    script.take()
    script.give(flags, seq=seq, payload=payload)
    assert [wire.ack for wire in script.take()] == [6]
    assert script.endpoint.drops["contradiction"] == 1
    script.give(ACK | PUSH)
    assert [wire.ack for wire in script.take()] == [6]
    assert script.session.read(99) == b"hello"


def test_established_fin_below_known_data_is_dropped() -> None:
    script = opened()
    script.give(seq=5, payload=b"fghij")
    script.give(ACK | FIN, seq=3)
    assert script.endpoint.drops == {"contradiction": 1}
    script.give(seq=0, payload=b"abcde")
    script.take()
    assert "EndOfStream" not in script.names()
    assert script.session.read(99) == b"abcdefghij"


def closing(script: Script) -> Script:
    """Both sides have finished and know it."""
    script.session.finish()
    script.take()
    script.wait(RTT)
    script.give(ACK | FIN, ack=1)
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 1)]
    return script


def test_fin_wait_1_fin_and_ack_closes() -> None:
    script = closing(opened())
    assert script.session.state.value in ("TIME-WAIT", "CLOSED")
    assert reason(script) == "finished"


def test_time_wait_fin_is_acknowledged_again_and_linger_restarts() -> None:
    script = closing(opened())
    script.wait(9.0)
    script.give(ACK | FIN, seq=0)
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 1)]
    script.wait(9.0)
    script.give(ACK | FIN, seq=0)
    assert [(wire.flags, wire.ack) for wire in script.take()] == [(ACK, 1)]
    script.run(10.1)
    script.give(ACK | FIN, seq=0)
    assert [wire.flags for wire in script.take_raw()] == [RST | INIT]


def test_time_wait_data_beyond_the_end_is_reset() -> None:
    script = closing(opened())
    script.give(seq=1, payload=b"more")
    (wire,) = script.take_raw()
    assert wire.flags & RST


def test_time_wait_ends_and_leaves_nothing() -> None:
    script = closing(opened())
    assert script.run(60.0) == []
    assert script.endpoint.sessions == {}
    assert script.endpoint.next_deadline() is None


def test_time_wait_resets_are_ignored() -> None:
    script = closing(opened())
    script.give(RST | ACK)
    script.give(RST, tag=script.isn)
    assert script.take_raw() == []
    assert len(script.events()) == 2 or script.session.closed is not None
    assert script.session.closed is not None
    assert script.session.closed.reason == "finished"


def test_time_wait_at_most_1024_are_remembered() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    wires = []
    for number in range(1, 1101):
        script.now += 0.001
        (answer,) = answer_to(script, script.syn(stream=number))
        echo = script.cookie_echo(answer, b"x", stream=number)
        script.raw(echo._replace(flags=echo.flags | FIN))
        script.take_raw()
        script.events()
        for session in list(script.endpoint.sessions.values()):
            session.finish()
        script.take_raw()
        last = Wire(number, ACK | INIT, PORT, (echo.seq + 2) % WRAP, (answer.seq + 2) % WRAP, tag=answer.seq)
        script.raw(last._replace(ts=script.stamp()))
        script.take_raw()
        wires.append(last._replace(flags=ACK | FIN | INIT, seq=(echo.seq + 1) % WRAP))
    script.now += 1.0
    assert [wire.flags for wire in answer_to(script, wires[-1]._replace(ts=script.stamp()))] == [ACK]
    assert [wire.flags for wire in answer_to(script, wires[-1024]._replace(ts=script.stamp()))] == [ACK]
    assert [wire.flags for wire in answer_to(script, wires[-1025]._replace(ts=script.stamp()))] == [RST]


def test_closing_simultaneously() -> None:
    script = opened()
    script.session.finish()
    script.take()
    script.give(ACK | FIN)
    script.take()
    assert script.session.state.value == "CLOSING"
    script.wait(RTT)
    script.give(ACK, ack=1)
    assert reason(script) == "finished"


def test_last_ack_unanswered_fin_is_forgiven() -> None:
    """The peer's process went away right after its last ACK: four probes, then it is finished, not an error."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.wait(RTT)
    script.give(ACK | FIN, ack=5)
    script.session.finish()
    sent = script.run(5.0)
    assert sorted({time for time, wire in sent if wire.flags & FIN}) == [0, 0.02, 0.06, 0.14, 0.3]
    assert reason(script) == "finished"
    assert script.endpoint.sessions == {}
    # It was only without a cable: whenever it asks within the user timeout, it is told of the end.
    script.wait(170.0)
    script.give(ACK | PUSH)
    assert [(wire.flags, wire.seq, wire.ack) for wire in script.take()] == [(ACK | FIN, 5, 1)]
    script.give(ACK, ack=6)
    assert script.take() == []
    script.run(30.0)
    script.give(ACK | PUSH)
    assert [wire.flags for wire in script.take_raw()] == [RST | INIT]


def test_last_ack_unanswered_data_is_an_error() -> None:
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.wait(RTT)
    script.give(ACK | FIN, ack=4)
    script.session.finish()
    script.run(100.0)
    assert reason(script) == ""
    script.run(100.0)
    assert reason(script) == "timed out"


def test_last_ack_stateless_reset_after_all_is_said() -> None:
    """The peer's process ended after its FIN and after it held all our data: nothing was lost."""
    script = opened()
    script.session.send(b"hello")
    script.take()
    script.wait(RTT)
    script.give(ACK | FIN, ack=5)
    script.session.finish()
    script.take()
    script.give(RST, seq=1, tag=script.isn)
    assert reason(script) in ("finished", "peer restarted")


def test_close_wait_abort_resets() -> None:
    script = opened()
    script.give(ACK | FIN | PUSH, payload=b"unread")
    script.take()
    script.session.abort()
    assert [wire.flags for wire in script.take()] == [RST | ACK]


# --- Keepalive ------------------------------------------------------------------------------------------------------


def test_established_idle_is_probed_after_15_seconds() -> None:
    script = opened()
    script.run(14.99)
    sent = script.run(0.02)
    assert [(wire.flags, wire.seq, wire.payload) for _, wire in sent] == [(ACK | PUSH, 0, b"")]


def test_established_idle_and_answered_lives_for_ever() -> None:
    script = opened()
    probes = 0
    while script.now < START + 3600:
        deadline = script.endpoint.next_deadline()
        assert deadline is not None
        script.now = deadline
        for wire in script.take():
            probes += 1
            assert wire.flags == ACK | PUSH
            script.give(ACK)
    assert script.session.closed is None
    assert 60 <= probes <= 241


def test_established_idle_and_silent_peer_is_given_up() -> None:
    script = opened()
    times = [time for time, _ in script.run(179.0)]
    assert times[0] == pytest.approx(15.0)
    assert all(after - before <= 60.0 for before, after in zip(times, times[1:]))
    assert reason(script) == ""
    script.run(62.0)
    assert reason(script) == "peer silent"


def test_listen_flood_of_silent_connections_is_forgotten() -> None:
    """64 streams of one peer are opened and never used; three minutes later there is room again."""
    script = Script()
    script.endpoint.listen(PORT)

    def open_one(stream: int) -> int:
        (answer,) = answer_to(script, script.syn(stream=stream))
        return answer_to(script, script.cookie_echo(answer, stream=stream))[0].flags

    assert [open_one(number) for number in range(1, 65)] == [ACK] * 64
    assert open_one(65) == RST | ACK
    while script.now < START + 245:
        script.now = script.endpoint.next_deadline() or START + 245
        script.endpoint.segments_to_send(now=script.now)
    assert script.endpoint.sessions == {}
    assert [event.reason for event in script.events() if isinstance(event, Closed)] == ["peer silent"] * 64
    assert open_one(66) == ACK


# --- The endpoint ---------------------------------------------------------------------------------------------------


def test_time_never_goes_back() -> None:
    """An earlier `now` counts as the latest."""
    script = in_flight(2)
    script.endpoint.tick(now=script.now - 100)
    script.endpoint.path_changed(THEIRS, now=script.now - 100)
    assert script.endpoint.next_deadline() is not None
    script.endpoint.segments_to_send(now=script.now - 1)
    script.endpoint.check()


def test_ts_names_the_transmission() -> None:
    """Strictly growing, also within a microsecond."""
    script = opened()
    script.session.send(bytes(8 * MSS))
    stamps = [wire.ts for wire in script.take_raw()]
    assert all(after > before for before, after in zip(stamps, stamps[1:]))
    assert len(stamps) == 8


def test_connected_and_accepted_are_told_first() -> None:
    script = unconfirmed()
    script.give(payload=b"hello")
    kinds = [type(event) for event in script.events()]
    assert kinds == [Connected, Readable]
    script.give(ACK | FIN)
    assert [type(event) for event in script.events()] == [EndOfStream]


def test_stamp_is_never_zero_on_the_wire() -> None:
    script = opened()
    script.endpoint.last_stamp = 2 * WRAP - 1
    script.session.send(b"x")
    assert [wire.ts for wire in script.take_raw()] == [1]
    script.endpoint.last_stamp = 3 * WRAP - 6
    script.session.send(bytes(8 * MSS))
    assert min(wire.ts for wire in script.take_raw()) > 0


def test_path_mtus_of_4096_peers_are_remembered() -> None:
    script = Script()
    for number in (*range(4096), 0, 4096):  # the first is heard of again, so the second is the oldest
        script.endpoint.path_changed(address(number + 1000), now=script.now, mtu=600)
    sizes = []
    for number in (1001, 1000, 5096):
        script.endpoint.connect(address(number), PORT, now=script.now)
        (syn,) = script.endpoint.segments_to_send(now=script.now)
        sizes.append(streamwire.unpack(syn.payload).segment_size)
    assert sizes == [MSS, 600 - 23 - 36 - 28, 600 - 23 - 36 - 28]


def test_no_listener_refusals_are_limited() -> None:
    script = Script()
    for number in range(1, 501):
        script.raw(script.syn(stream=number))
    assert len(script.take_raw()) == 200
    assert script.endpoint.drops["too many resets"] == 300


def test_time_wait_answers_are_limited() -> None:
    script = closing(opened())
    for _ in range(300):
        script.give(ACK | FIN, seq=0)
    assert len(script.take()) == 200


def test_listen_spent_cookies_are_forgotten_after_two_slots() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    for stream in (1, 2):
        spend(script, stream)
        script.wait(130.0)
    assert len(script.endpoint._spent) == 1


def test_established_loss_acknowledged_before_it_is_repaired() -> None:
    """The first copies were late only: nothing is sent again."""
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    script.give(ACK, ack=100)
    script.give(ACK, ack=5 * MSS)
    assert script.take() == []
    assert script.session.acked == 5 * MSS


def test_established_loss_and_probe_at_one_time_send_once() -> None:
    script = in_flight(5)
    script.wait(RTT)
    script.give(ACK, sacks=[(MSS, 4 * MSS)])
    script.wait(0.03)
    assert shape(script.take()) == [(0, MSS), (4 * MSS, MSS)]


def test_established_zero_window_is_no_black_hole() -> None:
    """Answered probes of a closed window say nothing of the path."""
    script = opened(window=0)
    script.session.send(bytes(5000))
    for _ in range(20):
        script.now = script.endpoint.next_deadline() or 0.0
        script.take()
        script.give(ACK)
    script.window = WINDOW
    script.give(ACK)
    assert shape(script.take())[0] == (0, MSS)


def test_established_small_segments_lost_are_no_black_hole() -> None:
    script = opened()
    for _ in range(12):
        script.session.send(b"x" * 100)
        script.take()
        script.run(0.15)
        script.give(ACK)
    script.session.send(bytes(5000))
    assert max(len(wire.payload) for wire in script.take()) == MSS


def test_timers_do_not_pile_up() -> None:
    """A conversation of short messages leaves no dead timers behind."""
    script = opened()
    for _ in range(3000):
        script.session.send(b"x")
        script.take()
        script.give(ACK, ack=script.ack + 1)
        script.take()
    assert len(script.endpoint._timers) <= 66


def test_congestion_window_step_by_step() -> None:
    window = Congestion(1000)
    seen = [window.window]
    steps: List[Callable[[], None]] = [
        lambda: window.on_delivered(2000),  # slow start
        lambda: window.on_loss(queueing=False),  # noise
        lambda: window.on_delivered(11400),  # avoidance: one segment a window
        lambda: window.on_loss(queueing=True),
        lambda: window.on_spurious(),
        lambda: window.on_spurious(),  # there is nothing left to undo
        lambda: window.collapse(),
        lambda: window.on_delivered(2000),  # slow start up to where the loss was
        lambda: window.on_loss(queueing=True),  # in slow start
        lambda: window.on_loss(queueing=True),  # two segments are the floor
    ]
    for step in steps:
        step()
        seen.append(round(window.window))
    assert seen == [10000, 12000, 11400, 12400, 8680, 12400, 12400, 2000, 4000, 2000, 2000]


# --- Segments that come together --------------------------------------------------------------------------------------


def together(script: Script, *segments: bytes) -> None:
    """Segments of one batch, as a link gives them."""
    script.endpoint.receive_all(THEIRS, list(segments), now=script.now)
    script.endpoint.check()


def test_batch_of_acks_counts_as_the_last_of_them() -> None:
    """Everything but the number of round trips measured is as if they had come one by one."""
    states = []
    for batch in (True, False):
        script = opened()
        script.session.send(bytes(300 * MSS))
        assert len(script.take()) == 10
        script.give(ACK, ack=10 * MSS)
        assert len(script.take()) == 20
        script.wait(RTT)
        script.window = WINDOW - 7
        acks = [script.packed(ACK, ack=count * MSS, echo=script.echo) for count in (11, 15, 15, 20, 24)]
        if batch:
            together(script, *acks)
        else:
            for ack in acks:
                script.feed(ack)
        session, sender = script.session, script.session.sender
        states.append((session.acked, sender.edge, sender.bytes_in_flight, sender.congestion.window, script.names()))
        assert len(script.take()) == 28  # what has arrived twice over: slow start
    assert states[0] == states[1]
    assert states[0][:3] == (24 * MSS, 1 + 24 * MSS + WINDOW - 7, 6 * MSS)


def test_batch_of_acks_keeps_an_echo_of_an_earlier_one() -> None:
    script = opened()
    script.session.send(bytes(10 * MSS))
    script.take()
    script.wait(0.003)
    together(script, script.packed(ACK, ack=5 * MSS, echo=script.echo), script.packed(ACK, ack=9 * MSS, echo=0))
    assert script.session.sender.round_trip.latest == pytest.approx(0.003, abs=2e-5)
    assert script.session.acked == 9 * MSS


def test_batch_of_acks_up_to_one_of_what_was_never_sent() -> None:
    script = opened()
    script.session.send(bytes(10 * MSS))
    script.take()
    together(script, *(script.packed(ACK, ack=count * MSS) for count in (3, 4, 11, 5)))
    assert script.session.acked == 5 * MSS
    assert script.endpoint.drops == {"ack": 1}


def test_batch_of_acks_up_to_that_of_the_fin() -> None:
    script = opened()
    script.session.send(bytes(3 * MSS))
    script.session.finish()
    script.take()
    together(script, *(script.packed(ACK, ack=count) for count in (MSS, 3 * MSS, 3 * MSS + 1)))
    assert script.session.acked == 3 * MSS
    assert script.session.state is State.FIN_WAIT_2
