"""Opening a stream: SYN, cookie, first segments, refusals."""

import gc
import random
from typing import Dict, List, Optional

import pytest
import streamwire
from invariants import check_endpoint
from streamdesk import OTHER, address, answer_to, reason
from streamscript import MSS, OURS, PORT, RTT, START, THEIRS, WINDOW, Script, accepted, opened, shape, unconfirmed
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, SYN, WRAP, Wire

from alexstream import Accepted, Closed, Connected, Endpoint, Readable, Stalled


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
    check_endpoint(script.endpoint)


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
    check_endpoint(script.endpoint)


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


def test_listen_two_cookies_given_at_once_are_both_good() -> None:
    """That the first comes back does not void the second."""
    script = Script()
    script.endpoint.listen(PORT)
    answers = [answer_to(script, script.syn(stream=stream))[0] for stream in (1, 2)]
    for stream, answer in zip((1, 2), answers):
        assert answer_to(script, script.cookie_echo(answer, stream=stream))[0].flags == ACK
    assert len(script.endpoint.sessions) == 2


def test_listen_spent_cookie_is_refused_after_another_was_spent() -> None:
    script = Script()
    script.endpoint.listen(PORT)
    (answer,) = answer_to(script, script.syn(stream=1))
    echo = script.cookie_echo(answer, stream=1)
    script.raw(echo)
    script.take_raw()
    script.raw(echo._replace(flags=RST | ACK | INIT, ts=echo.ts + 1))
    (other,) = answer_to(script, script.syn(stream=2))
    script.raw(script.cookie_echo(other, stream=2))
    script.take_raw()
    assert [reply.flags for reply in answer_to(script, echo)] == [RST]


def test_listen_the_128_seconds_of_a_spent_cookie_begin_when_it_is_spent() -> None:
    """A cookie lives two slots at most, and is remembered for as long: to the end of 120 s it opens nothing again."""
    script = Script()
    script.endpoint.listen(PORT)
    script.now = 64.0 * 100
    (answer,) = answer_to(script, script.syn(stream=1))
    echo = script.cookie_echo(answer, stream=1)
    script.raw(echo)
    script.take_raw()
    script.raw(echo._replace(flags=RST | ACK | INIT, ts=echo.ts + 1))
    script.wait(120.0)
    (other,) = answer_to(script, script.syn(stream=2))
    script.raw(script.cookie_echo(other, stream=2))
    script.take_raw()
    assert [reply.flags for reply in answer_to(script, echo)] == [RST]


def test_syn_ack_tells_when_the_peer_was_heard() -> None:
    script = Script()
    script.connect()
    script.wait(0.01)
    script.raw(script.syn_ack())
    heard = script.now
    script.take()
    script.run(3.0)
    assert [event.since for event in script.events() if isinstance(event, Stalled)] == [heard]


def test_not_open_yet_is_not_at_its_end() -> None:
    script = opened()
    assert not script.session.at_eof
    script.give(payload=b"x")
    assert not script.session.at_eof
    script.session.read(1)
    assert not script.session.at_eof
    script.give(ACK | FIN)
    assert script.session.at_eof
