"""Rooms without a centre, over fakes: who meets whom, who hears what, who holds it, and who comes back."""

import contextlib
import json
import random
import re
import sys
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import pytest
from fakes import FakeConsole, FakeNode, FakeStream, Peer, connect
from hypothesis import given, strategies as st

import alexchat_client as chat
import constants as c
from alexchat_client import CAN, Ask, Bye, Hello, Members, Missed, Nick, Refused, Room, Say, encode_record
from alexstream_client import Decline, Offer
from node import BusyError
from protocol import INFINITY, DuplicateAddress, MessageReceived
from utils import format_address


def address(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, number])


class Member:
    """A room as one program has it, its node, and what its person sees."""

    def __init__(
        self,
        node: Any,
        *,
        name: str = "me",
        is_opener: bool = True,
        is_interactive: bool = True,
        as_json: bool = False,
        **settings: Any,
    ) -> None:
        self.node = node
        console: Any = FakeConsole(is_interactive=is_interactive, as_json=as_json)
        self.console = console
        settings.setdefault("linger", INFINITY if is_opener else 5.0)
        self.room = Room(node, console, name=name, is_opener=is_opener, **settings)

    def turn(self, *typed: Optional[str], at_end: bool = False) -> None:
        self.console.typed += typed
        self.console.at_end = self.console.at_end or at_end
        self.room.turn()

    def wait(self, seconds: float) -> None:
        """Let time pass, and look at every moment at which the room wants to."""
        until = self.node.time + seconds
        while self.room.next_deadline() < until:
            self.node.time = max(self.room.next_deadline(), self.node.time)
            self.turn()
        self.node.time = until
        self.turn()

    def visit(self, number: int, name: str, *, can: str = CAN, run: str = "", room: str = "") -> Peer:
        """Somebody calls, and is let in."""
        stream = connect(self.node, FakeNode(number))
        self.node.listeners[c.PORT_CHAT].arrived.append(stream)
        peer = Peer(stream.other, name, can=can, run=run, room=room)
        self.turn()
        peer.heard()
        return peer

    @property
    def names(self) -> List[str]:
        return sorted(one.name for one in self.room.members())

    def notes(self) -> List[str]:
        """What was noted since the last call."""
        notes, self.console.notes = self.console.notes, []
        return list(notes)


class Solo(NamedTuple):
    """A program that has called bob, who is moved by the test."""

    member: Member
    bob: Peer

    @property
    def stream(self) -> FakeStream:
        """Our end."""
        return self.bob.stream.other


@contextlib.contextmanager
def solo(*, can: str = CAN, heard: bool = True, **settings: Any) -> Iterator[Solo]:
    with FakeNode(1) as node, FakeNode(2) as other:
        member = Member(node, is_opener=False, **settings)
        stream = connect(node, other)
        member.room.join(stream)  # type: ignore[arg-type]
        peer = Peer(stream.other, "bob", can=can, room="b" * 16)
        if heard:
            member.turn()
            assert peer.heard() == []
            assert peer.hello is not None
            assert (peer.hello.name, peer.hello.can, peer.hello.room) == ("me", CAN, "")
            assert member.notes() == ["bob (02:00:00:00:00:02) is here"]
        yield Solo(member, peer)


@pytest.fixture
def person() -> Iterator[Solo]:
    with solo() as one:
        yield one


@pytest.fixture
def pipe() -> Iterator[Solo]:
    with solo(is_interactive=False) as one:
        yield one


@pytest.fixture
def hub() -> Iterator[Tuple[Member, Peer, Peer, Peer]]:
    """Who opened a room, and three who came."""
    with FakeNode(1) as node:
        member = Member(node, name="hub")
        peers = [member.visit(number, name) for number, name in ((2, "ann"), (3, "bob"), (4, "eve"))]
        member.wait(2 * c.MEMBERS_SECONDS)
        for peer in peers:
            peer.heard()
        member.notes()
        yield (member, peers[0], peers[1], peers[2])


class World:
    """Rooms that can all call each other; the first one is open."""

    def __init__(self, stack: contextlib.ExitStack, *names: str, openers: Sequence[int] = (0,)) -> None:
        self.nodes: List[FakeNode] = []
        self.members: List[Member] = []
        self._stack = stack
        for number, name in enumerate(names):
            self.add(name, is_opener=number in openers, joins=0 if openers == (0,) else None)

    def add(self, name: str, *, is_opener: bool = False, joins: Optional[int] = 0) -> Member:
        """Start a program; it joins by calling member number `joins`."""
        node = self._stack.enter_context(FakeNode(len(self.nodes) + 1))
        for other in self.nodes:
            other.others[node.address], node.others[other.address] = node, other
        self.nodes.append(node)
        member = Member(node, name=name, is_opener=is_opener)
        self.members.append(member)
        if not is_opener and joins is not None:
            member.room.join(node.open(self.nodes[joins].address, c.PORT_CHAT))  # type: ignore[arg-type]
        return member

    def turns(self, rounds: int = 12) -> None:
        """Let all go on, and some seconds pass."""
        for _ in range(rounds):
            for member in self.members:
                member.turn()
            for node in self.nodes:
                node.time += 0.5

    def check(self) -> None:
        """Everybody has one working stream with everybody else, in one room."""
        for member in self.members:
            assert member.names == sorted(m.room.name for m in self.members if m is not member)
            assert len(member.room.chats) == len(self.members) - 1
        assert len({member.room.room for member in self.members}) == 1


@pytest.fixture
def three() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        world = World(stack, "alice", "bob", "carol")
        world.turns()
        world.check()
        for member in world.members:
            member.notes()
        yield world


# --- coming together -------------------------------------------------------------------------------------------------


def test_everybody_has_a_stream_to_everybody_and_a_line_goes_to_each_of_them(three: World) -> None:
    for member in three.members:
        member.turn(f"good day from {member.room.name}")
    three.turns(2)
    for member in three.members:
        others = sorted(other.room.name for other in three.members if other is not member)
        assert sorted(member.console.shown) == [f"{name}: good day from {name}" for name in others]
        assert member.console.own == {1: True}
    three.members[1].turn("/msg carol between us")
    three.turns(2)
    assert three.members[2].console.shown[-1] == "bob (to you alone): between us"
    assert "between us" not in str(three.members[0].console.shown)


def test_the_room_outlives_who_opened_it_and_is_joined_by_anybody_in_it(three: World) -> None:
    alice, bob, carol = three.members
    for one in list(alice.room.chats):
        one.stream.abort()
    three.members.remove(alice)
    three.turns()
    assert bob.names == ["carol"]
    assert not bob.room.is_over()
    dave = three.add("dave", joins=2)
    three.turns()
    assert sorted(dave.names) == ["bob", "carol"]
    dave.turn("hi")
    three.turns(2)
    assert bob.console.shown == carol.console.shown == ["dave: hi"]


@pytest.mark.parametrize("first", [1, 2])
def test_two_who_call_each_other_have_one_conversation(first: int) -> None:
    """Whoever is first: what both said on either stream arrives once, and one stream is left."""
    with contextlib.ExitStack() as stack:
        world = World(stack, "low", "high", openers=(9,))
        low, high = world.members
        for index in (first - 1, 2 - first):
            member = world.members[index]
            other = world.nodes[1 - index].address
            member.room.join(member.node.open(other, c.PORT_CHAT))
            member.turn(f"one from {index}")
        for number in range(6):
            for index in (0, 1):
                world.members[index].turn(*[f"{number} from {index}"] * (number == 3))
        assert low.console.notes == ["high (02:00:00:00:00:02) is here"]
        assert low.console.shown == ["high: one from 1", "high: 3 from 1"]
        assert high.console.shown == ["low: one from 0", "low: 3 from 0"]
        world.turns()
        world.check()
        streams: List[Any] = [member.room.chats[0].stream for member in world.members]
        assert streams[0].other is streams[1]
        assert low.room.room
        low.turn("exit")
        world.turns(3)
        assert high.console.notes[-1] == "low left"
        assert low.room.is_over()


def test_line_on_the_stream_that_crossed_and_failed_is_named() -> None:
    with FakeNode(2) as node, FakeNode(1) as other:  # whose address is lower: the stream that it opened stays
        member = Member(node, is_opener=False)
        mine = connect(node, other)
        member.room.join(mine)  # type: ignore[arg-type]
        Peer(mine.other, "low", can=CAN, run="1")
        member.turn()
        mine.holding = True
        member.turn("hi")
        member.visit(1, "low", run="1")
        mine.fail(TimeoutError("timed out"))
        member.turn()
        assert member.console.own == {1: False}
        assert member.names == ["low"]


def test_two_rooms_become_one() -> None:
    with contextlib.ExitStack() as stack:
        world = World(stack, "a", "b", "c", "d", openers=(0, 1))
        for index, member in enumerate(world.members[2:]):
            member.room.join(member.node.open(world.nodes[index].address, c.PORT_CHAT))
        world.turns()
        assert world.members[0].names == ["c"]
        for member in world.members:
            member.notes()
        world.members[2].turn(f"/call {format_address(world.nodes[1].address)}")
        world.turns(30)
        world.check()
        notes = [note for member in world.members for note in member.notes() if "are one now" in note]
        assert len(notes) >= 2
        assert {"this room and that of b are one now", "this room and that of c are one now"} <= set(notes)
        world.members[3].turn("hello")
        world.turns(2)
        assert [member.console.shown for member in world.members[:3]] == [["d: hello"]] * 3


def test_call_that_nobody_answers_or_that_makes_no_sense(three: World) -> None:
    alice = three.members[0]
    alice.turn("/call 02:00:00:00:00:77", "/call", "/call 02:00:00:00:00:01", "/call 02:00:00:00:00:02")
    alice.turn()
    own = "no other node is called 02:00:00:00:00:01: give an address, or a name in the mesh"
    assert alice.notes() == ["usage: /call NODE", own, "bob is here", "02:00:00:00:00:77 is lost: refused"]


@given(seed=st.integers(0, 2**32))
def test_rooms_find_together_whatever_happens_first(seed: int) -> None:
    """Programs start, call anybody, speak and break off at random; then all are in one room, each with each."""
    rng = random.Random(seed)
    with contextlib.ExitStack() as stack:
        world = World(stack, "n0")
        for number in range(1, rng.randrange(2, 6)):
            world.add(f"n{number}", joins=rng.randrange(number))
            for _ in range(rng.randrange(6)):
                rng.choice(world.members).turn()
        for step in range(rng.randrange(10)):
            member = rng.choice(world.members)
            if rng.random() < 0.3 and member.room.chats:
                rng.choice(member.room.chats).stream.abort()
            member.turn(f"line {step}")
        world.members = [member for member in world.members if not member.room.is_over()]
        member = world.add("late", joins=world.nodes.index(world.members[0].node))
        world.turns(120)
        world.check()
        member.turn("all?")
        world.turns(3)
        for other in world.members[:-1]:
            assert other.console.shown.count("late: all?") == 1
        assert list(member.console.own.values())[-1] is True


def test_nobody_is_heard_or_shown_who_did_not_say_its_name() -> None:
    with FakeNode(1) as node, FakeNode(2) as other:
        member = Member(node)
        stream = connect(node, other)
        node.listeners[c.PORT_CHAT].arrived.append(stream)
        stream.other.write(encode_record(Say("psst")) + encode_record(Members("a" * 16, {"02:00:00:00:00:09": "x"})))
        member.turn("is somebody there?")
        assert member.names == member.console.shown == []
        assert member.console.notes == ["NOT delivered: nobody is here: is somebody there?"]
        member.wait(c.CALL_SECONDS + 1)
        assert isinstance(stream.other.error, ConnectionResetError)
        assert member.room.chats == []


def test_a_thousand_who_say_nothing_are_not_kept() -> None:
    with FakeNode(1) as node:
        member = Member(node)
        streams = [connect(node, FakeNode(number % 200 + 2)) for number in range(1000)]
        node.listeners[c.PORT_CHAT].arrived.extend(streams)
        member.turn()
        assert len(member.room.chats) == c.ROOM_MAX
        assert sum(stream.ended for stream in streams) == 1000 - c.ROOM_MAX


def test_lists_of_members_are_hints_where_to_call_and_no_more() -> None:
    """Bounded calls, each address once in ten seconds, and nobody is shown who did not say hello."""
    with FakeNode(1) as node:
        member = Member(node)
        evil = member.visit(2, "evil")
        calls: List[bytes] = []
        silent = FakeNode(9)
        plain_open: Callable[[bytes, int], FakeStream] = node.open

        def open_silent(peer: bytes, port: int) -> FakeStream:
            calls.append(peer)
            return connect(node, silent)._replaced(peer) if port == c.PORT_CHAT else plain_open(peer, port)

        node.open = open_silent  # type: ignore[method-assign]
        wrong = {"02:00:00:00:00:01": "me", "ff:ff:ff:ff:ff:ff": "all", "00:00:00:00:00:00": "", "x": "x", "": ""}
        for start in range(0, 10_000, 1000):
            many = {format_address(b"\2\1\0\0" + n.to_bytes(2, "big")): f"n{n}" for n in range(start, start + 1000)}
            evil.say(Members("a" * 16, {**wrong, **many}))
            member.turn()
            assert sum(one.hello is None for one in member.room.chats) <= c.CALLS_AT_ONCE
        for _ in range(60):
            member.wait(1)
            assert sum(one.hello is None for one in member.room.chats) <= c.CALLS_AT_ONCE
        assert not {format_address(peer) for peer in calls} & set(wrong)
        assert len(calls) <= 70 * c.CALLS_PER_SECOND
        assert all(calls[i + 1 :].count(peer) <= 6 for i, peer in enumerate(calls[:8]))
        assert member.names == ["evil"]
        assert sum("cannot be reached" in note for note in member.console.notes) <= c.ROOM_MAX


def test_of_many_who_are_listed_all_are_called_in_time() -> None:
    with FakeNode(1) as node, contextlib.ExitStack() as stack:
        member = Member(node)
        listed: Dict[str, str] = {}
        for number in range(3 * c.ROOM_MAX):
            other = stack.enter_context(FakeNode(2))
            other.address = b"\2\0\0\0\1" + bytes([number])
            node.others[other.address] = other
            listed[format_address(other.address)] = "n"
        names = list(listed)
        for number in range(3):
            peer = member.visit(number + 5, f"p{number}")
            some = names[number * c.ROOM_MAX : (number + 1) * c.ROOM_MAX]
            peer.say(Members(member.room.room, dict.fromkeys(some, "n")))
        member.turn()
        member.wait(9)
        assert {call.tries for call in member.room._calls.values()} == {1}
        assert len(member.room._calls) > c.ROOM_MAX + 5 * c.CALLS_PER_SECOND


def test_who_cannot_be_reached_is_named_and_called_again(hub: Any) -> None:
    member, ann, _bob, _eve = hub
    ann.say(Members(member.room.room, {"02:00:00:00:00:09": "zoe"}))
    member.wait(2.5 * c.CALL_AGAIN)
    assert member.notes() == ["zoe~00:09 cannot be reached from here; ann can"]
    with FakeNode(9) as node:
        member.node.others[node.address] = node
        listener = node.listen(c.PORT_CHAT)
        while not listener.arrived:
            member.wait(1)
        Peer(listener.arrived.popleft(), "zoe", can=CAN)
        member.turn()
        assert member.names == ["ann", "bob", "eve", "zoe"]


def test_a_full_room_refuses_by_name() -> None:
    with FakeNode(1) as node:
        member = Member(node)
        for number in range(2, c.ROOM_MAX + 1):
            member.visit(number, f"n{number}")
        assert len(member.names) == c.ROOM_MAX - 1
        last = member.visit(200, "late")
        member.turn()
        assert Refused("full") in last.heard() or last.stream.other.finished
        assert len(member.names) == c.ROOM_MAX - 1
        assert "late" not in str(member.console.notes)


def test_who_is_refused_says_so_and_leaves(person: Solo, pipe: Solo) -> None:
    for one in (person, pipe):
        one.bob.say(Refused("full"))
        one.bob.stream.finish()
        one.member.turn()
        one.member.turn()
        assert "bob: the room is full: 64" in one.member.notes()
        assert one.member.room.is_over()
        assert one.member.room.run() == 1


def test_who_asks_is_told_and_is_no_member(hub: Any) -> None:
    member = hub[0]
    with FakeNode(9) as node:
        stream = connect(member.node, node)
        member.node.listeners[c.PORT_CHAT].arrived.append(stream)
        stream.other.write(encode_record(Ask()))
        member.turn()
        member.turn()
        asker = Peer(stream.other, "never said")
        assert asker.heard() == []
        assert asker.hello is not None
        assert sorted(asker.hello.members.values()) == ["ann", "bob", "eve"]
        assert asker.hello.room == member.room.room
        assert stream.finished
        assert member.names == ["ann", "bob", "eve"]
        assert member.notes() == []


def test_program_that_knows_no_rooms_talks_to_whom_it_called(hub: Any) -> None:
    member, ann, _bob, _eve = hub
    old = member.visit(9, "old", can="")
    assert member.notes() == [
        "old (02:00:00:00:00:09) is here", "the others do not hear old, whose program knows no rooms",
    ]  # fmt: skip
    member.wait(3)
    assert ann.heard() == []
    assert "02:00:00:00:00:09" not in ann.listed
    old.say(Say("hello", 1))
    member.turn("hello old")
    assert member.console.shown == ["old: hello"]
    assert old.heard() == [Say("hello old", 1)]
    assert ann.heard() == [Say("hello old", 1)]
    member.turn("/msg old psst")
    assert member.notes() == ["NOT delivered: old's program knows no messages to one alone"]


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [("zoë", "zoë~00:05"), ("hub", "hub~00:05"), ("", "02:00:00:00:00:05"), ("a b\x1b", "a?b?~00:05")],
)
def test_name_that_could_mislead(hub: Any, name: str, shown: str) -> None:
    member = hub[0]
    peer = member.visit(5, name)
    where = "02:00:00:00:00:05"
    assert member.notes()[-1] == (f"{shown} ({where}) is here" if name else f"{where} is here")
    peer.say(Hello("ann"))
    peer.say(Say("hi"))
    member.turn()
    assert member.console.shown == [f"{shown}: hi"]


def test_name_of_sixty_thousand_characters_is_passed_to_nobody(hub: Any) -> None:
    member, ann, bob, _ = hub
    peer = member.visit(5, "x" * 60000)
    bob.say(Nick("y" * 60000))
    member.turn()
    member.wait(3)
    ann.heard()
    assert sorted(map(len, ann.listed.values())) == [3, 20, 20]
    assert peer.heard() == []


def test_another_name_is_told_to_all(three: World) -> None:
    alice, bob, carol = three.members
    bob.turn("/nick rob", "/nick", "/nick a b", "/me waves")
    three.turns(3)
    said, usage, rule = bob.notes()
    assert (said, usage) == ("you are rob now", "usage: /nick NAME")
    assert rule.startswith("a name has letters, digits")
    for one in (alice, carol):
        assert one.notes() == ["bob is called rob now"]
        assert one.console.shown == ["* rob waves"]
    dave = three.add("dave", joins=2)
    three.turns()
    assert dave.names == ["alice", "carol", "rob"]


def test_of_two_with_one_name_both_get_the_tail_of_their_address(hub: Any) -> None:
    member, ann, _, _ = hub
    other = member.visit(5, "ann")
    assert member.notes() == ["ann is called ann~00:02 now", "ann~00:05 (02:00:00:00:00:05) is here"]
    ann.say(Say("hi"))
    member.turn("/msg ann hm", "/msg ann~00:05 yes")
    assert member.notes() == ["NOT delivered: which ann? ann~00:02, ann~00:05"]
    assert member.console.shown == ["ann~00:02: hi"]
    assert other.heard() == [Say("yes", 1, "ann~00:05")]
    other.say(Bye())
    other.stream.finish()
    member.turn()
    member.turn()
    assert member.notes() == ["ann~00:05 left", "ann~00:02 is called ann now"]


# --- what is said ----------------------------------------------------------------------------------------------------


def test_message_arrives(person: Solo) -> None:
    person.bob.say(Say("hello\n\x1b[2Jthere"))
    person.member.turn()
    assert person.member.console.shown == ["bob: hello\n    ^[[2Jthere"]


def test_line_delivered_when_the_other_node_holds_it(person: Solo) -> None:
    person.stream.holding = True
    person.member.turn("one", "two")
    assert person.bob.heard() == [Say("one", 1), Say("two", 2)]
    assert person.member.console.own == {1: "one", 2: "two"}
    person.stream.holding = False
    person.member.turn()
    assert person.member.console.own == {1: True, 2: True}


def test_line_delivered_when_all_hold_it_and_who_does_not_get_it_is_named(hub: Any) -> None:
    member, ann, bob, eve = hub
    bob.stream.other.holding = True
    member.turn("to all")
    member.turn()
    assert [peer.heard() for peer in (ann, bob, eve)] == [[Say("to all", 1)]] * 3
    assert (member.console.own, member.console.held) == ({1: "to all"}, {1: "2/3"})
    bob.stream.other.holding = False
    member.turn()
    assert member.console.own == {1: True}
    ann.stream.other.holding = bob.stream.other.holding = True
    member.turn("again")
    ann.stream.abort()
    member.turn()
    bob.stream.other.holding = False
    member.turn()
    assert member.console.own == {1: True, 2: False}
    assert member.notes() == ["ann is lost: reset by peer", "NOT delivered to ann: again"]
    assert not member.room.is_over()


def test_lost_member_and_what_it_did_not_get(person: Solo) -> None:
    person.member.turn("one")
    person.stream.holding = True
    person.member.turn("two", "three\x1b")
    person.stream.fail(TimeoutError("timed out"))
    person.member.turn()
    assert person.member.console.own == {1: True, 2: False, 3: False}
    assert person.member.notes() == [
        "bob is lost: timed out", "NOT delivered to bob: two", "NOT delivered to bob: three^[",
    ]  # fmt: skip
    assert not person.member.room.is_over()  # a person stays, others may come
    person.member.turn("exit")
    assert person.member.room.run() == 0


def test_nobody_is_here() -> None:
    with FakeNode(1) as node:
        member = Member(node)
        member.turn("hello?")
        assert member.notes() == ["NOT delivered: nobody is here: hello?"]


@pytest.mark.parametrize("line", [None, "x" * 65536, "\x01" * 20000])
def test_line_too_long(pipe: Solo, line: Optional[str]) -> None:
    pipe.member.turn(line, "fine")
    heard = pipe.bob.heard()
    assert [record.text for record in heard if isinstance(record, Say)] == ["fine"]
    (note,) = pipe.member.notes()
    assert "NOT delivered" in note
    assert pipe.member.room.has_failed()


def test_malformed_lines_between_others(person: Solo) -> None:
    person.bob.stream.write(b"{\n" + b"x" * 70000 + b"\n\n" + encode_record(Say("fine")) + b'{"type": "new"}\n')
    for _ in range(3):
        person.member.turn()
    assert person.member.console.shown == ["bob: fine"]
    assert [note.partition(": ")[2] for note in person.member.notes()] == [
        "not JSON", "longer than 64 KiB (and 1 more)",
    ]  # fmt: skip


@pytest.mark.parametrize("turns", [2, pytest.param(16, marks=pytest.mark.slow)])
def test_a_million_empty_lines(person: Solo, turns: int) -> None:
    """They are told of in a few notes, and what is typed meanwhile goes out."""
    for number in range(turns):
        person.bob.stream.write(b"\n" * 65536)
        person.member.turn(f"line {number}")
        assert person.bob.heard() == [Say(f"line {number}", number + 1)]
    notes = person.member.notes()
    assert len(notes) <= turns
    assert notes[0] == "bob sent a line that cannot be read: not JSON (and 65535 more)"


def test_one_line_of_64_kib(person: Solo) -> None:
    line = encode_record(Say("x" * (65536 - len(encode_record(Say(""))))))
    assert len(line) == 65536
    person.bob.stream.write(line)
    for _ in range(3):
        person.member.turn()
    assert person.member.notes() == []
    assert len(person.member.console.shown) == 1


def test_raw_message_arrives(person: Solo) -> None:
    node = person.member.node
    node.events += [MessageReceived(b"\2\0\0\0\0\3", node.address, 1, b"psst\x1b\0\0"), DuplicateAddress(b"\2" * 6)]
    person.member.turn()
    first, second = person.member.notes()
    assert first == "message from 02:00:00:00:00:03: psst^["
    assert "02:02:02:02:02:02" in second


def test_what_came_just_before_the_end_is_shown(hub: Any) -> None:
    """Its sender was told that it is delivered."""
    member, ann, _, _ = hub

    def end() -> None:
        ann.say(Say("one last thing"))
        ann.stream.finish()
        ann.stream.abort()

    ann.stream.other.then = end
    member.turn()
    member.turn()
    assert member.console.shown == ["ann: one last thing"]
    assert member.notes() == ["ann left"]


# --- slow ones -------------------------------------------------------------------------------------------------------


def test_slow_member_costs_the_others_nothing_and_is_told_what_it_missed(hub: Any) -> None:
    member, ann, bob, eve = hub
    bob.stream.other.room = 0
    lines = [f"{number} {'x' * 8000}" for number in range(150)]
    for line in lines:
        member.turn(line)
    assert len(ann.heard()) == len(eve.heard()) == 150
    (note,) = member.notes()
    assert note == "too much is waiting for bob: it gets nothing more until it takes that"
    missed = [ident for ident, state in member.console.own.items() if state is False]
    assert 10 < len(missed) < 40
    assert all(state is False for ident, state in member.console.own.items() if ident in missed)
    ann.say(Say("do you hear me?", 1))
    member.turn()
    assert member.console.shown == ["ann: do you hear me?"]
    bob.stream.other.room = INFINITY
    member.turn()
    member.turn("more")
    heard = bob.heard()
    assert [type(record) for record in heard] == [Say] * (150 - len(missed)) + [Missed, Say]
    assert heard[-2] == Missed(len(missed))
    assert member.console.own[151] is True


def test_who_missed_lines_says_so(person: Solo) -> None:
    person.bob.say(Missed(7))
    person.member.turn()
    assert person.member.notes() == ["bob said 7 lines more, which were not kept until you took them"]


def test_pipe_waits_for_one_slow_reader_but_not_for_one_of_several_that_takes_nothing(pipe: Solo) -> None:
    pipe.stream.room = 100
    member = pipe.member
    assert member.room.wants_lines()
    member.turn(*["x" * 1000] * 70)
    member.node.time += 1000
    member.turn()
    assert not member.room.wants_lines()
    pipe.stream.room = 10**9
    member.turn()
    assert member.room.wants_lines()
    assert [record.text for record in pipe.bob.heard() if isinstance(record, Say)] == ["x" * 1000] * 70
    member.visit(3, "eve")
    pipe.stream.room = 100
    member.turn(*["x" * 1000] * 70)
    assert not member.room.wants_lines()
    deadline = member.room.next_deadline()
    assert deadline <= member.node.time + c.SLOW_SECONDS
    for _ in range(int(c.SLOW_SECONDS) + 1):
        pipe.stream.room = 10  # a byte now and then is no progress
        member.wait(1)
    assert member.room.wants_lines()


def test_lines_for_a_silent_peer_are_bounded(person: Solo) -> None:
    """What is typed while the link is lost waits, up to a limit; more is refused and named."""
    person.stream.holding, person.stream.stalled = True, True
    person.member.turn(*["x" * 8000] * 150)
    refused = [note for note in person.member.notes() if note.startswith("NOT delivered: too much is waiting")]
    assert 10 < len(refused) < 40
    person.stream.holding, person.stream.stalled = False, False
    person.member.turn()
    assert len(person.bob.heard()) in (150 - len(refused), 151 - len(refused))


# --- who is away, who comes back -------------------------------------------------------------------------------------


def test_link_lost_and_back(person: Solo) -> None:
    """At once in the prompt; after a moment in words, and then to the others."""
    member = person.member
    person.stream.stalled = True
    member.turn()
    assert member.console.prompt == "bob: link lost, retrying> "
    assert member.notes() == []
    member.wait(c.GONE_SECONDS)
    assert member.notes() == ["bob is gone: no answer; what is said waits for it"]
    person.stream.stalled = False
    member.turn()
    assert member.console.prompt == "> "
    assert member.notes() == ["bob is back"]


def test_idle_member_that_does_not_answer_is_gone(person: Solo) -> None:
    member = person.member
    person.stream.silent_since = member.node.time
    member.wait(c.ROOM_KEEPALIVE + c.GONE_SECONDS)
    assert member.notes() == ["bob is gone: no answer; what is said waits for it"]
    person.stream.silent_since = None
    member.wait(c.GONE_SECONDS)
    assert member.notes() == ["bob is back"]


def test_who_does_not_answer_is_not_named_to_others(hub: Any) -> None:
    member, ann, bob, _eve = hub
    assert set(ann.listed.values()) == {"bob", "eve"}
    bob.stream.other.stalled = True
    member.wait(c.GONE_SECONDS + c.MEMBERS_SECONDS)
    ann.heard()
    assert set(ann.listed.values()) == {"eve"}


@pytest.mark.parametrize("refusals", [0, 3])
def test_restarted_program_is_called_and_gets_what_it_missed(person: Solo, refusals: int) -> None:
    """What it held is not sent again; the rest, a line held in part too, comes whole, once and in order."""
    member, node = person.member, person.member.node
    member.turn("held")
    person.stream.holding = True
    member.turn("two", "three")
    person.bob.heard()
    with FakeNode(2) as again:
        node.others[again.address] = again
        person.stream.restart()
        for _ in range(refusals):
            member.turn()
            member.turn()
            assert member.console.prompt == "bob: link lost, retrying> "
            node.time += c.RETRY_SECONDS
        listener = again.listen(c.PORT_CHAT)
        member.turn("four")
        member.turn("five")
        bob = Peer(listener.arrived.popleft(), "bob", can=CAN)
        member.turn()
        member.turn()
        assert [record.text for record in bob.heard() if isinstance(record, Say)] == ["two", "three", "four", "five"]
        assert member.console.own == {1: True, 2: True, 3: True, 4: True, 5: True}
        assert member.notes() == [
            "bob's program has ended; if it comes back it gets what it missed", "bob (02:00:00:00:00:02) is back",
        ]  # fmt: skip
        assert member.console.prompt == "> "
        assert not listener.arrived


@pytest.mark.parametrize("told_first", [True, False])
def test_restarted_program_that_calls_itself(hub: Any, told_first: bool) -> None:
    member, _ann, bob, _ = hub
    member.turn("held")
    bob.heard()
    bob.stream.other.holding = True
    member.turn("from hub")
    if told_first:
        bob.stream.other.restart()
        member.turn()
    again = connect(member.node, FakeNode(3))
    member.node.listeners[c.PORT_CHAT].arrived.append(again)
    new = Peer(again.other, "bob", can=CAN, run="another")
    for _ in range(3):
        member.turn()
    assert [record.text for record in new.heard() if isinstance(record, Say)] == ["from hub"]
    assert member.console.own == {1: True, 2: True}
    assert member.names == ["ann", "bob", "eve"]
    assert member.notes()[-1] == "bob (02:00:00:00:00:03) is back"


def test_program_that_does_not_come_back(hub: Any) -> None:
    member, _, bob, _ = hub
    bob.stream.other.holding = True
    member.turn("from hub")
    bob.stream.other.restart()
    member.turn("while bob is away")
    assert member.console.own == {1: "from hub", 2: "while bob is away"}
    member.wait(c.RETURN_SECONDS + 1)
    assert member.console.own == {1: False, 2: False}
    assert member.notes()[-2:] == ["NOT delivered to bob: from hub", "NOT delivered to bob: while bob is away"]
    assert member.names == ["ann", "eve"]


def test_programs_that_ended_are_bounded() -> None:
    with FakeNode(1) as node:
        member = Member(node)
        for number in range(2, 2 + c.ROOM_MAX + 20):
            peer = member.visit(number, f"n{number}")
            peer.stream.other.restart()
            member.turn()
        assert len(member.room._away) <= c.ROOM_MAX


def test_pipe_calls_a_restarted_peer_again(pipe: Solo) -> None:
    """Also for the last lines of a pipe, which has ended."""
    node = pipe.member.node
    pipe.stream.holding = True
    pipe.member.turn("one", at_end=True)
    with FakeNode(2) as again:
        node.others[again.address] = again
        listener = again.listen(c.PORT_CHAT)
        pipe.stream.restart()
        pipe.member.turn()
        stream = listener.arrived.popleft()
        bob = Peer(stream, "bob", can=CAN)
        for _ in range(3):
            pipe.member.turn()
        assert bob.heard() == [Say("one", 1)]
        assert stream.other.finished


def test_two_programs_of_one_address_in_a_moment(hub: Any) -> None:
    """`for i in 1 2; do echo $i | alexchat_client.py eth0 --linger 0; done`, while this program was busy."""
    member = hub[0]
    for text in ("1", "2"):
        stream = connect(member.node, FakeNode(9))
        member.node.listeners[c.PORT_CHAT].arrived.append(stream)
        dan = Peer(stream.other, "dan", can=CAN, run=text)
        dan.say(Say(text, 1))
        dan.stream.finish()
    for _ in range(3):
        member.turn()
    assert member.console.shown == ["dan: 1", "dan: 2"]
    assert member.names == ["ann", "bob", "dan", "eve"]


def acknowledged_with_the_end(one: Solo, end: Callable[[FakeStream], None]) -> None:
    """Of two lines one is acknowledged; the other and the end of the stream come while that is shown."""
    stream, settle = one.stream, one.member.console.settle
    stream.holding = True
    one.member.turn("first", "second")
    stream._acknowledged = stream.written - len(encode_record(Say("second", 2)))

    def settle_slowly(*arguments: Any, **options: Any) -> None:
        settle(*arguments, **options)
        if stream.error is None:
            stream.acknowledge()
            end(stream)

    one.member.console.settle = settle_slowly


def test_line_acknowledged_just_before_the_end_is_delivered(pipe: Solo) -> None:
    acknowledged_with_the_end(pipe, lambda stream: stream.fail(ConnectionResetError("reset by peer")))
    pipe.member.turn()
    assert pipe.member.console.own == {1: True, 2: True}


def test_line_acknowledged_just_before_a_restart_is_not_said_again(pipe: Solo) -> None:
    acknowledged_with_the_end(pipe, FakeStream.restart)
    with FakeNode(2) as again:
        pipe.member.node.others[again.address] = again
        listener = again.listen(c.PORT_CHAT)
        pipe.member.turn()
        bob = Peer(listener.arrived.popleft(), "bob", can=CAN)
        for _ in range(2):
            pipe.member.turn()
        assert bob.heard() == []
    assert pipe.member.console.own == {1: True, 2: True}


# --- leaving, and pipes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["/exit", "/quit", "exit", " exit ", " /q"])
def test_leaving(person: Solo, word: str) -> None:
    person.member.turn(word)
    assert person.bob.heard() == [Bye()]
    assert person.stream.finished
    assert not person.member.room.is_over()
    person.bob.stream.finish()
    person.member.turn()
    assert person.member.room.is_over()
    assert person.member.room.run() == 0
    assert person.member.notes() == []


def test_leaving_while_the_peer_does_not_answer(person: Solo) -> None:
    """What the peer does not hold by then is named."""
    person.stream.holding = True
    person.member.turn("last words", "exit", "too late")
    person.member.node.time += c.CHAT_LEAVE_SECONDS
    assert person.member.room.is_over()
    assert person.member.room.run() == 0
    assert person.member.notes() == [
        "NOT delivered: already leaving: too late", "NOT delivered to bob: last words",
    ]  # fmt: skip
    assert isinstance(person.bob.stream.error, ConnectionResetError)


def test_leaving_while_calling_again(person: Solo) -> None:
    person.stream.holding = True
    person.member.turn("one")
    person.stream.restart()
    person.member.turn("/exit")
    person.member.turn()
    assert person.member.room.is_over()
    person.member.room.run()
    assert person.member.notes()[-1] == "NOT delivered to bob: one"


def test_leaving_interrupted_twice_lists_what_is_not_delivered(person: Solo) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise SystemExit(143)

    person.stream.holding = True
    person.member.turn("lost words")
    person.member.console.wait = interrupted
    assert person.member.room.run() == 143
    assert person.member.notes() == ["NOT delivered to bob: lost words"]


def test_line_acknowledged_just_before_an_interruption_is_delivered(person: Solo) -> None:
    person.stream.holding = True
    person.member.turn("first")

    def interrupt(*_: Any, **__: Any) -> None:
        person.stream.acknowledge()
        raise SystemExit(130)

    person.member.console.wait = interrupt
    assert person.member.room.run() == 130
    assert person.member.console.own == {1: True}


def test_person_stays_when_the_others_have_left(person: Solo) -> None:
    person.bob.say(Bye())
    person.bob.stream.finish()
    person.member.turn()
    person.member.turn()
    assert person.member.notes() == ["bob left"]
    assert not person.member.room.is_over()
    eve = person.member.visit(7, "eve")
    person.member.turn("hello")
    assert eve.heard() == [Say("hello", 1)]


def test_first_call_that_leads_nowhere() -> None:
    with solo(heard=False) as one:
        one.stream.fail(TimeoutError("timed out"))
        one.bob.stream._arrived.clear()
        one.stream._arrived.clear()
        one.member.turn()
        assert one.member.room.is_over()
        assert one.member.room.run() == 1
        assert one.member.notes() == ["02:00:00:00:00:02 is lost: timed out"]


def test_pipe_ends_peer_goes_on(pipe: Solo) -> None:
    """Half-close: what the peer says afterwards arrives, until it ends."""
    pipe.member.turn("one", "exit", "/who", at_end=True)
    assert pipe.bob.heard() == [Say("one", 1), Say("exit", 2), Say("/who", 3)]
    assert pipe.stream.finished
    pipe.bob.say(Say("late"))
    pipe.member.turn()
    assert pipe.member.console.shown == ["bob: late"]
    assert not pipe.member.room.is_over()
    pipe.bob.stream.finish()
    pipe.member.turn()
    assert pipe.member.room.run() == 0


def test_pipe_ends_waits_until_all_is_delivered(pipe: Solo) -> None:
    node = pipe.member.node
    pipe.stream.holding = True
    pipe.member.turn("one", at_end=True)
    node.time += 100
    pipe.member.turn()
    assert not pipe.member.room.is_over()
    pipe.stream.acknowledge()
    pipe.member.turn()
    node.time += 100
    assert not pipe.member.room.is_over()  # the end is still under way
    pipe.stream.holding = False
    pipe.member.turn()
    assert not pipe.member.room.is_over()
    node.time += 5
    assert pipe.member.room.is_over()
    assert pipe.member.room.run() == 0


def test_pipe_ends_silence_counts_from_the_last_message(pipe: Solo) -> None:
    node = pipe.member.node
    pipe.member.turn(at_end=True)
    for _ in range(3):
        node.time += 4
        pipe.bob.say(Say("more"))
        pipe.member.turn()
        assert not pipe.member.room.is_over()
    node.time += 5
    assert pipe.member.room.is_over()


def test_pipe_ends_shows_what_came_just_before(pipe: Solo) -> None:
    pipe.member.turn(at_end=True)

    def speak() -> None:
        pipe.bob.say(Say("one last thing"))
        pipe.member.node.time += 5

    pipe.stream.then = speak
    pipe.member.turn()
    assert pipe.member.room.is_over()
    assert pipe.member.room.run() == 0
    assert pipe.member.console.shown == ["bob: one last thing"]


def test_pipe_ended_peer_lost(pipe: Solo) -> None:
    pipe.stream.holding = True
    pipe.member.turn("one", at_end=True)
    pipe.bob.stream.abort()
    pipe.member.turn()
    assert pipe.member.room.run() == 1
    assert "NOT delivered to bob: one" in pipe.member.notes()


def test_pipe_waits_for_those_who_are_listed() -> None:
    """A line that is said before is not heard by all."""
    with contextlib.ExitStack() as stack:
        world = World(stack, "alice", "bob")
        world.turns()
        node = stack.enter_context(FakeNode(3))
        node.others = {other.address: other for other in world.nodes}
        for other in world.nodes:
            other.others[node.address] = node
        member = Member(node, name="pipe", is_opener=False, is_interactive=False)
        assert not member.room.wants_lines()
        member.room.join(node.open(world.nodes[0].address, c.PORT_CHAT))  # type: ignore[arg-type]
        member.turn()
        world.members[0].turn()
        member.turn()
        assert member.names == ["alice"]
        assert not member.room.wants_lines()
        world.members[1].turn()
        member.turn()
        assert member.names == ["alice", "bob"]
        assert member.room.wants_lines()


def test_opener_stays_after_the_end_of_its_pipe_unless_it_is_not_to() -> None:
    with FakeNode(1) as node:
        member = Member(node, is_interactive=False)
        assert not member.room.wants_lines()
        peers = [member.visit(number, f"n{number}") for number in (2, 3)]
        assert member.room.wants_lines()
        member.turn("bye", at_end=True)
        for peer in peers:
            assert peer.heard() == [Say("bye", 1)]
            assert not peer.stream.other.finished
            peer.stream.finish()
        member.turn()
        member.turn()
        assert member.room.chats == []
        assert not member.room.is_over()
    with FakeNode(1) as node:
        member = Member(node, is_interactive=False, linger=3.0)
        peer = member.visit(2, "bob")
        member.turn("bye", at_end=True)
        assert peer.stream.other.finished
        member.turn()
        node.time += 3
        assert member.room.is_over()
        assert member.room.run() == 0


# --- commands --------------------------------------------------------------------------------------------------------


def test_every_spelling_in_the_help_is_accepted(person: Solo) -> None:
    person.member.turn("/help")
    (text,) = person.member.notes()
    spellings = set(re.findall(r"(?<!\S)/[a-z?]+", text))
    assert {"/help", "/who", "/msg", "/ignore", "/send", "/accept", "/decline", "/exit", "/quit"} <= spellings
    assert set(chat.COMMAND_NAMES) == spellings
    for spelling in sorted(spellings, key=lambda name: name in ("/exit", "/quit", "/q")):  # leaving comes last
        person.member.turn(spelling.upper())
        assert not any("no command" in note for note in person.member.notes())
    assert [record for record in person.bob.heard() if isinstance(record, Say)] == []


def test_unknown_command_is_not_said(person: Solo) -> None:
    person.member.turn("/usr/bin/\x1b is where", "//usr is said", "/say exit", " /msg bob secret")
    assert person.member.notes() == ["no command /usr/bin/^[: /help lists them; //usr/bin/^[ says it"]
    assert person.bob.heard() == [Say("/usr is said", 1), Say("exit", 2), Say("secret", 3, "bob")]


class Answer(NamedTuple):
    """What an echo brings."""

    address: bytes
    hops: int = 2
    rtt: float = 0.0015
    name: str = ""
    ports: Tuple[int, ...] = (1,)


def test_who(hub: Any) -> None:
    """All who are here with what their nodes answer; who does not answer is waited for a second."""
    member, _ann, bob, eve = hub
    node = member.node
    node.answering = [Answer(address(2), 1, 0.0005), Answer(address(4))]
    bob.stream.other.silent_since = node.time - 13
    eve.stream.other.stalled = True
    member.turn("/who")
    assert [note for note in member.notes() if "gone" not in note] == []
    node.time += c.WHO_SECONDS
    member.turn()
    assert member.notes()[-1].splitlines() == [
        "name       address            hops  round trip  state",
        "ann        02:00:00:00:00:02  1     0.50 ms     here",
        "bob        02:00:00:00:00:03  -     -           silent for 14 s",
        "eve        02:00:00:00:00:04  2     1.50 ms     its program does not answer",
        "hub (you)  02:00:00:00:00:01  0     -           here",
    ]
    node.answering.append(Answer(address(3)))
    member.turn("/w")
    assert len(member.notes()) == 1  # nobody to wait for


@pytest.mark.parametrize("typed", ["bob", "Bob", "bob:", "BOB,", "02:00:00:00:00:02", "bob~00:02"])
def test_message_for_one_alone(person: Solo, typed: str) -> None:
    person.member.turn(f"/msg {typed} see you at six")
    if "~" in typed:
        assert person.member.notes() == [f"NOT delivered: nobody here is called {typed}: /who lists all"]
        return
    assert person.bob.heard() == [Say("see you at six", 1, "bob")]
    assert person.member.console.own == {1: True}
    person.bob.say(Say("fine", 2, "me"))
    person.member.turn()
    assert person.member.console.shown == ["bob (to you alone): fine"]


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("/msg", "usage: /msg NAME TEXT"),
        ("/msg bob", "usage: /msg NAME TEXT"),
        ("/say", "usage: /say TEXT"),
        ("/me", "usage: /me TEXT"),
        ("/msg \x1bnobody hello", "NOT delivered: nobody here is called ^[nobody: /who lists all"),
    ],
)
def test_message_for_nobody(person: Solo, line: str, note: str) -> None:
    person.member.turn(line)
    assert person.member.notes() == [note]
    assert person.bob.heard() == []


def test_ignored(hub: Any) -> None:
    """Messages and offers of somebody are not shown, by whatever name it comes back, until it is heard again."""
    member, ann, _bob, eve = hub
    member.turn("/ignore ann")
    ann.say(Say("hello", 1))
    ann.say(Offer("1" * 16, "x", 1, "2" * 64))
    ann.say(Bye())
    ann.stream.finish()
    member.turn()
    member.turn()
    anna = member.visit(2, "anna", run="2")
    anna.say(Say("hello again", 2))
    eve.say(Say("me too", 3))
    member.turn()
    assert member.console.shown == ["eve: me too"]
    member.notes()
    member.turn("/ignore", "/ignore anna", "/ignore nobody")
    notes = member.notes()
    assert notes[:2] == ["ignored: anna", "anna is heard again"]
    assert "nobody here is called nobody" in notes[-1]
    anna.say(Say("free", 4))
    member.turn()
    assert member.console.shown[-1] == "anna: free"


# --- files -----------------------------------------------------------------------------------------------------------


def test_offers_end_with_who_made_them_and_a_decline_goes_to_that_one_alone(hub: Any) -> None:
    member, ann, bob, _eve = hub
    for number, peer in enumerate((ann, bob)):
        peer.say(Offer(f"{number}" * 16, "a.txt", 5, "2" * 64))
        member.turn()
    assert member.console.shown == [
        "ann offers a.txt (5 bytes): /accept 1 or /decline 1", "bob offers a.txt (5 bytes): /accept 2 or /decline 2",
    ]  # fmt: skip
    member.turn("/decline 1")
    assert ann.heard() == [Decline("0" * 16)]
    assert bob.heard() == []
    bob.say(Bye())
    bob.stream.finish()
    member.turn()
    member.turn()
    member.notes()
    member.turn("/accept")
    assert member.notes() == ["no file is offered"]


@pytest.mark.parametrize("fields", [{"size": 10**400}, {"size": -1}, {"sha256": "x"}], ids="abc")
def test_offer_that_makes_no_sense(hub: Any, fields: Dict[str, Any]) -> None:
    member, ann, _, _ = hub
    line = json.dumps({"type": "offer", "token": "0" * 16, "sha256": "0" * 64, "file": "a", "size": 1, **fields}) + "\n"
    ann.stream.write(line.encode())
    member.turn()
    member.turn()
    assert member.notes() == ["ann offers a file in a way that makes no sense: ignored"]


# --- for programs ----------------------------------------------------------------------------------------------------


def test_told_in_json() -> None:
    with solo(is_interactive=False, as_json=True) as one:
        member = one.member
        one.bob.say(Say("hello\n\x1b[2Jthere", 1))
        member.turn("first")
        member.turn()
        one.stream.holding = True
        member.turn("second", "x" * 70000)
        member.node.events.append(MessageReceived(b"\2" * 6, bytes(6), 1, b"raw"))
        one.stream.fail(TimeoutError("timed out"))
        member.turn()
    bob = {"name": "bob", "address": "02:00:00:00:00:02"}
    assert member.console.events == [
        {"type": "joined", **bob},
        {"type": "line", **bob, "text": "hello\n\x1b[2Jthere"},
        {"type": "delivered", "id": 1, "text": "first"},
        {"type": "not delivered", "reason": "a message of 70000 characters in 1 line: too long"},
        {"type": "message", "address": "02:02:02:02:02:02", "text": "raw"},
        {"type": "lost", **bob, "reason": "timed out"},
        {"type": "not delivered", "id": 2, "text": "second", "missing": ["bob"]},
    ]


def test_told_in_json_who_of_several_holds_a_line() -> None:
    with FakeNode(1) as node:
        member = Member(node, as_json=True)
        member.visit(2, "ann")
        member.visit(3, "bob").stream.other.restart()
        del member.console.events[:]
        member.turn("one")
        member.turn("/msg ann psst")
        member.turn()
    ann, bob = ({"name": name, "address": f"02:00:00:00:00:0{n}"} for n, name in ((2, "ann"), (3, "bob")))
    assert member.console.events == [
        {"type": "restarted", **bob},
        {"type": "held", "id": 1, "text": "one", **ann},
        {"type": "delivered", "id": 2, "text": "psst", "to": "ann"},
    ]


@pytest.mark.parametrize("seconds", ["nan", "-1", "soon"])
def test_linger_refused(seconds: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["alexchat_client.py", "eth0", f"--linger={seconds}"])
    with pytest.raises(SystemExit, match="2"):
        chat.main()
    assert seconds in capsys.readouterr().err


# --- the first call --------------------------------------------------------------------------------------------------


class Calling:
    """A node whose calls are refused, except to `open_port`; and who calls it meanwhile."""

    port_bit = 0

    def __init__(self, *callers: bytes, open_port: int = 0, busy_port: int = 0) -> None:
        self.time = 0.0
        self.listener = Arriving(self, *callers)
        self.stream = FakeStream(FakeNode(9), b"\2\0\0\0\0\2")
        self._open_port = open_port
        self._busy_port = busy_port

    def now(self) -> float:
        return self.time

    def echo(self, dest: bytes, *, timeout: float) -> None:
        raise TimeoutError("no answer")

    def listen(self, port: int, *, only: bytes) -> "Arriving":
        assert port == c.PORT_CALL
        assert only
        return self.listener

    def connect(self, peer: bytes, port: int) -> FakeStream:
        if port == self._open_port:
            return self.stream
        raise BusyError("busy") if port == self._busy_port else ConnectionRefusedError("refused")


class Arriving:
    """A listener to which streams come when it is asked; at the end its time is up."""

    def __init__(self, node: Calling, *peers: bytes) -> None:
        self._node = node
        self.closed = False
        self.streams = [FakeStream(FakeNode(9), peer) for peer in peers]
        self._left = list(self.streams)

    def close(self) -> None:
        self.closed = True

    def accept(self, *, timeout: float) -> Optional[FakeStream]:
        if self._left:
            return self._left.pop(0)
        self._node.time += timeout
        return None


def test_call_to_a_room_or_a_caller() -> None:
    call: Any = chat.call
    node = Calling(open_port=c.PORT_CHAT)
    assert call(node, node.stream.peer) == (node.stream, None)
    assert node.listener.closed
    node = Calling(open_port=c.PORT_CALL)
    assert call(node, node.stream.peer) == (node.stream, node.listener)
    assert not node.listener.closed


def test_call_refused_while_the_other_calls() -> None:
    call: Any = chat.call
    node = Calling(b"\2\0\0\0\0\7", b"\2\0\0\0\0\2")
    assert call(node, node.stream.peer) == (node.listener.streams[1], None)
    assert node.listener.streams[0].ended
    node = Calling()
    with pytest.raises(ConnectionRefusedError, match="start alexchat_server"):
        call(node, node.stream.peer)
    node = Calling(busy_port=c.PORT_CHAT)
    with pytest.raises(ConnectionRefusedError, match="busy; try again later"):
        call(node, node.stream.peer)
    assert node.time == c.ANSWER_SECONDS
