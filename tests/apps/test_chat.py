"""The chat: its lines of JSON, the room of client and server over fakes, and the client on a real pseudo-terminal."""

import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import pytest
from fakes import FakeConsole, FakeListener, FakeNode, FakeStream, Peer, connect
from hypothesis import given, strategies as st

import alexchat_client as chat
import constants
from alexchat_client import (
    CAN,
    Bye,
    ClientRoom,
    Conversation,
    Hello,
    Joined,
    Left,
    Malformed,
    Notice,
    Say,
    decode_record,
    encode_record,
)
from alexchat_server import ServerRoom
from alexstream_client import Decline, Offer
from constants import CHAT_LINE_BYTES, PORT_CALL, PORT_CHAT
from node import BusyError, SetupError
from protocol import INFINITY, DuplicateAddress, MessageReceived, NodeFound
from utils import format_address

FAKES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fakes.py")

# --- one line of JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        Hello("al"), Hello("al", CAN), Say("é\n\t\x1b🎉", 7), Say("", 1, "bob"), Say("x", 1, "ann", "bob"), Bye(),
        Joined("al", "02:00:00:00:00:01"), Left("al"), Notice("no"), Decline("1" * 16, "ann"),
        Offer("1" * 16, "a.txt", 5, "2" * 64), Offer("1" * 16, "a.txt", 5, "2" * 64, "ann", "02:00:00:00:00:01"),
    ],
)  # fmt: skip
def test_record_encoded_and_decoded(record: chat.Record) -> None:
    line = encode_record(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_record(line[:-1]) == record


def test_say_on_the_wire() -> None:
    fields = {"type": "say", "id": 7, "text": "é", "from": "bob"}
    assert json.loads(encode_record(Say("é", 7, "bob")).decode()) == fields
    assert decode_record(json.dumps(dict(fields, more={"is": "ignored"})).encode()) == Say("é", 7, "bob")
    assert json.loads(encode_record(Say("x", 7)).decode()) == {"type": "say", "id": 7, "text": "x"}


@pytest.mark.parametrize(
    "line",
    [
        b"", b"x", b"[]", b"1", b'"say"', b"null", b"{}", b'{"type": 1}', b'{"type": ["say"]}', b'{"type": "say"}',
        b'{"type": "say", "text": 1}', b'{"type": "say", "text": "x", "id": "1"}', b'{"type": "hello"}',
        b'{"type": "say", "text": "x", "from": {}}', b'{"type": "hello", "name": null}', b'{"type": "say", "text": "x"',
        b"[" * 60000, b'{"a":' * 10000, b"\xff\xfe", b'{"type": "say", "text": "x", "id": 1.5}',
    ],
)  # fmt: skip
def test_line_malformed(line: bytes) -> None:
    assert isinstance(decode_record(line), Malformed)


def test_hello_on_the_wire() -> None:
    """A program that knows only names and messages finds what it looks for."""
    fields = json.loads(encode_record(Hello("al", CAN)).decode())
    assert (fields.pop("type"), fields.pop("name")) == ("hello", "al")
    assert decode_record(b'{"type": "hello", "name": "al"}') == Hello("al")
    assert decode_record(b'{"type": "offer", "token": "", "file": "", "size": true, "sha256": ""}') is not None


def test_line_unknown_type() -> None:
    assert decode_record(b'{"type": "dance", "text": 1}') is None


def test_line_invalid_utf8() -> None:
    assert decode_record(b'{"type": "say", "text": "a\xc3(\xf0\x9f"}') == Say("a\ufffd(\ufffd")


def test_line_half_a_surrogate_pair() -> None:
    """JSON can spell what UTF-8 cannot; passing it on must not fail."""
    record = decode_record(b'{"type": "say", "text": "\\ud83d \\ud83c\\udf89", "from": "\\udc00"}')
    assert record == Say("\\ud83d \U0001f389", 0, "\\udc00")
    encode_record(record)


@given(st.binary(max_size=200))
def test_line_any_bytes(line: bytes) -> None:
    decode_record(line)


# --- rooms -----------------------------------------------------------------------------------------------------------


class Client(NamedTuple):
    """A client's room, what the person sees, and the peer."""

    room: ClientRoom
    console: Any
    peer: Peer

    def turn(self, *typed: Optional[str], at_end: bool = False) -> None:
        self.console.typed += typed
        self.console.at_end = self.console.at_end or at_end
        self.room.turn()


class Server(NamedTuple):
    """A server's room, what the person sees, and who has come."""

    room: ServerRoom
    console: Any
    peers: List[Peer]

    def visit(self, node: FakeNode, name: str) -> Peer:
        """Somebody stands at the door."""
        stream = connect(self.room.node, node)  # type: ignore[arg-type]
        self.room._listener.arrived.append(stream)  # type: ignore[arg-type]
        return Peer(stream.other, name)

    def turn(self, *typed: Optional[str], at_end: bool = False) -> None:
        self.console.typed += typed
        self.console.at_end = self.console.at_end or at_end
        self.room.turn()


@contextlib.contextmanager
def client(*, is_interactive: bool, as_json: bool = False, can: str = "", **settings: Any) -> Iterator[Client]:
    with FakeNode(1) as node, FakeNode(2) as other:
        console: Any = FakeConsole(is_interactive=is_interactive, as_json=as_json)
        room = ClientRoom(node, console, name="me", linger=5.0, **settings)  # type: ignore[arg-type]
        stream = connect(node, other)
        room.join(stream)  # type: ignore[arg-type]
        yield Client(room, console, Peer(stream.other, "bob", can=can))


@contextlib.contextmanager
def server(*, is_interactive: bool, names: Tuple[str, ...] = ("ann", "bob", "eve"), can: str = "") -> Iterator[Server]:
    with FakeNode(1) as node, contextlib.ExitStack() as nodes:
        console: Any = FakeConsole(is_interactive=is_interactive)
        listener = FakeListener()
        room = ServerRoom(node, console, listener, name="hub")  # type: ignore[arg-type]
        peers = []
        for number, name in enumerate(names, 2):
            stream = connect(node, nodes.enter_context(FakeNode(number)))
            listener.arrived.append(stream)
            peers.append(Peer(stream.other, name, can=can))
        room.turn()
        for peer in peers:
            assert peer.heard()[0] == Hello("hub", CAN)
        yield Server(room, console, peers)


@pytest.fixture
def person() -> Iterator[Client]:
    with client(is_interactive=True) as one:
        one.turn()
        assert one.peer.heard() == [Hello("me", CAN)]
        assert one.console.notes == ["bob (02:00:00:00:00:02) is here"]
        one.console.notes.clear()
        yield one


@pytest.fixture
def member() -> Iterator[Client]:
    """A person in a room whose server knows everything."""
    with client(is_interactive=True, can=CAN) as one:
        one.peer.say(Joined("ann", "02:00:00:00:00:07"))
        one.peer.say(Joined("eve", "02:00:00:00:00:08"))
        one.turn()
        one.peer.heard()
        one.console.notes.clear()
        yield one


@pytest.fixture
def pipe() -> Iterator[Client]:
    with client(is_interactive=False) as one:
        one.turn()
        one.peer.heard()
        one.console.notes.clear()
        yield one


@pytest.fixture
def hub() -> Iterator[Server]:
    with server(is_interactive=True) as one:
        one.console.notes.clear()
        yield one


def test_client_told_in_json() -> None:
    with client(is_interactive=False, as_json=True) as one:
        one.peer.say(Say("hello\n\x1b[2Jthere", 1, "eve"))
        one.turn("first")
        one.peer.stream.other.holding = True
        one.turn("second", "x" * 70000)
        node: Any = one.room.node
        node.events.append(MessageReceived(b"\2" * 6, bytes(6), 1, b"raw"))
        one.peer.stream.other.fail(TimeoutError("timed out"))
        one.turn()
    bob = {"name": "bob", "address": "02:00:00:00:00:02"}
    too_long = "a message of 70000 characters: too long"
    assert one.console.events == [
        {"type": "joined", **bob},
        {"type": "line", **bob, "name": "eve", "text": "hello\n\x1b[2Jthere"},
        {"type": "delivered", "id": 1, "text": "first"},
        {"type": "not delivered", "reason": too_long},
        {"type": "message", "address": "02:02:02:02:02:02", "text": "raw"},
        {"type": "lost", **bob, "reason": "timed out"},
        {"type": "not delivered", "id": 2, "text": "second"},
    ]


def test_client_told_in_json_of_the_others_in_the_room() -> None:
    with client(is_interactive=True, as_json=True, can=CAN) as one:
        one.turn()
        del one.console.events[:]
        one.peer.say(Joined("eve", "02:00:00:00:00:07"))
        one.peer.say(Say("psst", 1, "eve", "me"))
        one.turn("/msg eve back")
        one.peer.say(Notice("no"))
        one.peer.say(Left("eve"))
        one.turn("/msg eve gone")
    eve = {"name": "eve", "address": "02:00:00:00:00:07"}
    assert one.console.events == [
        {"type": "not delivered", "reason": "nobody here is called eve: /who lists all"},
        {"type": "joined", **eve},
        {"type": "line", **eve, "text": "psst", "to": "me"},
        {"type": "notice", "text": "no"},
        {"type": "left", **eve},
        {"type": "delivered", "id": 1, "text": "gone", "to": "eve"},
    ]


@pytest.mark.parametrize("seconds", ["nan", "-1", "soon"])
def test_linger_refused(seconds: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["alexchat_client.py", "eth0", f"--linger={seconds}"])
    with pytest.raises(SystemExit, match="2"):
        chat.main()
    assert seconds in capsys.readouterr().err


def test_client_message_arrives(person: Client) -> None:
    person.peer.say(Say("hello\n\x1b[2Jthere"))
    person.turn()
    assert person.console.shown == ["bob: hello\n    ^[[2Jthere"]


@pytest.mark.parametrize(
    ("sender", "shown"),
    [("eve", "eve"), ("02:00:00:00:00:09", "02:00:00:00:00:09"), ("e\x1bv: e", "e?v??e"), ("x" * 99, "x" * 20)],
)
def test_client_message_passed_on(person: Client, sender: str, shown: str) -> None:
    person.peer.say(Say("hello", 1, sender))
    person.turn()
    assert person.console.shown == [shown + ": hello"]


def test_client_line_typed_delivered(person: Client) -> None:
    person.peer.stream.other.holding = True
    person.turn("one", "two")
    assert person.peer.heard() == [Say("one", 1), Say("two", 2)]
    assert person.console.own == {1: "one", 2: "two"}
    person.peer.stream.other.holding = False
    person.turn()
    assert person.console.own == {1: True, 2: True}


def test_client_line_typed_peer_lost(person: Client) -> None:
    person.turn("one")
    person.peer.stream.other.holding = True
    person.turn("two", "three\x1b")
    person.peer.stream.other.fail(TimeoutError("timed out"))
    person.turn()
    assert person.console.own == {1: True, 2: False, 3: False}
    assert person.console.notes == [
        "bob is lost: timed out", "NOT delivered to bob: two", "NOT delivered to bob: three^[",
    ]  # fmt: skip
    assert person.room.is_over()
    assert person.room.run() == 1


@pytest.mark.parametrize("line", [None, "x" * 65536, "\x01" * 20000])
def test_client_line_too_long(pipe: Client, line: Optional[str]) -> None:
    pipe.turn(line, "fine")
    assert pipe.peer.heard() == [Say("fine", pipe.room._idents.__next__() - 1)]
    assert len(pipe.console.notes) == 1
    assert "NOT delivered" in pipe.console.notes[0]
    assert pipe.room.has_failed()


def test_client_exit_typed(person: Client) -> None:
    person.turn("exit")
    assert person.peer.heard() == [Bye()]
    assert person.peer.stream.other.finished
    assert not person.room.is_over()
    person.peer.stream.finish()
    person.turn()
    assert person.room.is_over()
    assert person.room.run() == 0
    assert person.console.notes == []


def test_client_exit_typed_peer_does_not_answer(person: Client) -> None:
    """What the peer does not hold by then is named."""
    person.peer.stream.other.holding = True
    person.turn("last words", "exit")
    person.room.node.time += constants.CHAT_LEAVE_SECONDS  # type: ignore[attr-defined]
    assert person.room.is_over()
    assert person.room.run() == 0
    assert person.console.notes == ["NOT delivered to bob: last words"]
    assert isinstance(person.peer.stream.error, ConnectionResetError)


def test_client_peer_leaves(person: Client) -> None:
    person.peer.say(Bye())
    person.peer.stream.finish()
    person.turn()
    person.turn()
    assert person.console.notes == ["bob left"]
    assert person.room.is_over()
    assert person.room.run() == 0


def test_client_peer_finishes_goes_on_talking(person: Client) -> None:
    person.peer.stream.finish()
    person.turn()
    person.turn("still here?")
    assert person.peer.heard() == [Say("still here?", 1)]
    assert not person.room.is_over()


def test_pipe_ends_peer_goes_on(pipe: Client) -> None:
    """Half-close: what the peer says afterwards arrives, until it ends."""
    pipe.turn("one", "exit", at_end=True)
    assert pipe.peer.heard() == [Say("one", 1), Say("exit", 2)]
    assert pipe.peer.stream.other.finished
    pipe.peer.say(Say("late"))
    pipe.turn()
    assert pipe.console.shown == ["bob: late"]
    assert not pipe.room.is_over()
    pipe.peer.stream.finish()
    pipe.turn()
    assert pipe.room.run() == 0


def test_pipe_ends_waits_until_all_is_delivered(pipe: Client) -> None:
    node: Any = pipe.room.node
    pipe.peer.stream.other.holding = True
    pipe.turn("one", at_end=True)
    node.time += 100
    pipe.turn()
    assert not pipe.room.is_over()
    pipe.peer.stream.other.holding = False
    pipe.turn()
    assert not pipe.room.is_over()
    node.time += 5
    assert pipe.room.is_over()
    assert pipe.room.run() == 0


def test_pipe_without_a_line_waits_until_the_name_and_the_end_are_delivered() -> None:
    """The reset that `--linger 0` ends with must not overtake them: the others would see nobody, or somebody lost."""
    with client(is_interactive=False) as one:
        node: Any = one.room.node
        stream = one.peer.stream.other
        stream.holding = True
        one.turn(at_end=True)
        assert stream.finished
        node.time += 100
        one.turn()
        assert not one.room.is_over()
        stream.acknowledge()
        one.turn()
        node.time += 100
        assert not one.room.is_over()  # the end is still under way
        stream.holding = False
        one.turn()
        node.time += 5
        assert one.room.is_over()
        assert one.room.run() == 0


def test_pipe_ends_silence_counts_from_the_last_message(pipe: Client) -> None:
    node: Any = pipe.room.node
    pipe.turn(at_end=True)
    for _ in range(3):
        node.time += 4
        pipe.peer.say(Say("more"))
        pipe.turn()
        assert not pipe.room.is_over()
    node.time += 5
    assert pipe.room.is_over()


def test_pipe_ends_shows_what_came_just_before(pipe: Client) -> None:
    node: Any = pipe.room.node
    pipe.turn(at_end=True)

    def speak() -> None:
        pipe.peer.say(Say("one last thing"))
        node.time += 5

    pipe.peer.stream.other.then = speak
    pipe.turn()
    assert pipe.room.is_over()
    assert pipe.room.run() == 0
    assert pipe.console.shown == ["bob: one last thing"]


def test_pipe_ended_peer_lost(pipe: Client) -> None:
    pipe.peer.stream.other.holding = True
    pipe.turn("one", at_end=True)
    pipe.peer.stream.abort()
    pipe.turn()
    assert pipe.room.run() == 1
    assert "NOT delivered to bob: one" in pipe.console.notes


def test_pipe_full_reads_no_more(pipe: Client) -> None:
    stream = pipe.peer.stream.other
    stream.room = 100
    assert pipe.room.wants_lines()
    pipe.turn(*["x" * 1000] * 70)
    assert not pipe.room.wants_lines()
    stream.room = 10**9
    pipe.turn()
    assert pipe.room.wants_lines()
    heard = pipe.peer.heard()
    assert len(heard) == 70
    assert all(isinstance(record, Say) and record.text == "x" * 1000 for record in heard)


def test_client_malformed_lines_between_others(person: Client) -> None:
    person.peer.stream.write(b"{\n" + b"x" * 70000 + b"\n\n" + encode_record(Say("fine")) + b'{"type": "new"}\n')
    for _ in range(3):
        person.turn()
    assert person.console.shown == ["bob: fine"]
    assert [note.partition(": ")[2] for note in person.console.notes] == [
        "not JSON", "longer than 64 KiB (and 1 more)",
    ]  # fmt: skip


@pytest.mark.parametrize("turns", [2, pytest.param(16, marks=pytest.mark.slow)])
def test_client_a_million_empty_lines(person: Client, turns: int) -> None:
    """They are told of in a few notes, and what is typed meanwhile goes out."""
    for number in range(turns):
        person.peer.stream.write(b"\n" * 65536)
        person.turn(f"line {number}")
        assert person.peer.heard() == [Say(f"line {number}", number + 1)]
    assert len(person.console.notes) <= turns
    assert person.console.notes[0] == "bob sent a line that cannot be read: not JSON (and 65535 more)"


def test_client_one_line_of_64_kib(person: Client) -> None:
    line = encode_record(Say("x" * (65536 - len(encode_record(Say(""))))))
    assert len(line) == 65536
    person.peer.stream.write(line)
    for _ in range(3):
        person.turn()
    assert person.console.notes == []
    assert len(person.console.shown) == 1


def test_client_link_lost_and_back(person: Client) -> None:
    person.peer.stream.other.stalled = True
    person.turn()
    assert person.console.prompt == "bob: link lost, retrying> "
    person.peer.stream.other.stalled = False
    person.turn()
    assert person.console.prompt == "> "


def test_client_raw_message_arrives(person: Client) -> None:
    node: Any = person.room.node
    node.events += [MessageReceived(b"\2\0\0\0\0\3", node.address, 1, b"psst\x1b\0\0"), DuplicateAddress(b"\2" * 6)]
    person.turn()
    assert person.console.notes[0] == "message from 02:00:00:00:00:03: psst^["
    assert "02:02:02:02:02:02" in person.console.notes[1]


def test_server_message_passed_on(hub: Server) -> None:
    ann, bob, eve = hub.peers
    ann.say(Say("hello", 5, "bob"))  # who says it is not for her to tell
    hub.turn()
    assert hub.console.shown == ["ann: hello"]
    assert bob.heard() == eve.heard() == [Say("hello", 5, "ann")]
    assert ann.heard() == []


def test_server_message_too_long_to_pass_on(hub: Server) -> None:
    ann, bob, _ = hub.peers
    ann.stream.write(encode_record(Say("x" * (65536 - len(encode_record(Say("")))))))
    for _ in range(3):
        hub.turn()
    assert len(hub.console.shown) == 1
    assert hub.console.notes == ["ann's message is too long to pass on"]
    assert bob.heard() == []


def test_server_line_typed(hub: Server) -> None:
    """Delivered when all have it; where one is lost, that is named and the line is not."""
    hub.peers[1].stream.other.holding = True
    hub.turn("to all")
    assert [peer.heard() for peer in hub.peers] == [[Say("to all", 1)]] * 3
    assert hub.console.own == {1: "to all"}
    hub.peers[1].stream.other.holding = False
    hub.turn()
    assert hub.console.own == {1: True}
    hub.peers[0].stream.other.holding = hub.peers[1].stream.other.holding = True
    hub.turn("again")
    hub.peers[0].stream.abort()
    hub.turn()
    hub.peers[1].stream.other.holding = False
    hub.turn()
    assert hub.console.own == {1: True, 2: False}
    assert hub.console.notes == ["ann is lost: reset by peer", "NOT delivered to ann: again"]
    assert not hub.room.is_over()


def test_server_line_typed_nobody_here() -> None:
    with server(is_interactive=True, names=()) as empty:
        empty.turn("hello?")
        assert empty.console.notes == ["NOT delivered: nobody is here: hello?"]


def test_server_client_leaves(hub: Server) -> None:
    hub.peers[0].say(Bye())
    hub.peers[0].stream.finish()
    hub.turn()
    hub.turn()
    assert hub.console.notes == ["ann left"]
    assert hub.peers[0].stream.other.finished
    assert len(hub.room.chats) == 2
    hub.turn("exit")
    for peer in hub.peers[1:]:
        assert peer.heard() == [Left("ann"), Bye()]
        peer.stream.finish()
    hub.turn()
    assert hub.room.run() == 0


def test_server_client_gone_after_its_last_word(hub: Server) -> None:
    """A client at the end of its pipe listens for a while and goes: it left, it is not lost."""
    hub.peers[0].stream.finish()
    hub.turn()
    hub.peers[0].stream.abort()
    hub.turn()
    assert hub.console.notes == ["ann left"]


def test_server_end_of_pipe_goes_on() -> None:
    with server(is_interactive=False) as one:
        ann, bob, eve = one.peers
        one.turn(at_end=True)
        ann.say(Say("still passed on"))
        one.turn()
        assert bob.heard() == [Say("still passed on", 0, "ann")]
        for peer in one.peers:
            assert not peer.stream.other.finished
            peer.stream.finish()
        one.turn()
        one.turn()
        assert all(peer.stream.other.finished for peer in (ann, bob, eve))
        assert one.room.chats == []
        assert not one.room.is_over()


def test_server_pipe_waits_for_the_first_client() -> None:
    with server(is_interactive=False, names=()) as empty:
        assert not empty.room.wants_lines()
    with server(is_interactive=False) as one:
        assert one.room.wants_lines()


def test_server_slow_client(hub: Server) -> None:
    """The others are listened to until one's queue is full, then held up for some seconds; then he is dropped."""
    ann, bob, eve = hub.peers
    node: Any = hub.room.node
    bob.stream.other.room = 0
    for _ in range(3):
        ann.say(Say("x" * 60000))
        hub.turn()
        hub.turn()
    assert hub.room.is_congested()
    waiting = len(hub.console.shown)
    assert waiting < 3
    deadline = hub.room.next_deadline()
    assert node.time < deadline <= node.time + constants.SLOW_SECONDS
    node.time = deadline
    for _ in range(5):
        hub.turn()
    assert hub.console.notes[0] == "bob takes nothing any more: dropped"
    assert len(hub.console.shown) == sum(isinstance(record, Say) for record in eve.heard()) == 3
    assert hub.room.next_deadline() == INFINITY


def test_server_shows_what_came_just_before_the_end(hub: Server) -> None:
    """Its sender was told that it is delivered."""
    ann = hub.peers[0]

    def end() -> None:
        ann.say(Say("one last thing"))
        ann.stream.finish()
        ann.stream.abort()

    ann.stream.other.then = end
    hub.turn()
    hub.turn()
    assert hub.console.shown == ["ann: one last thing"]
    assert hub.console.notes == ["ann left"]


def test_server_slow_client_holds_up_who_ended_too(hub: Server) -> None:
    """What he said waits; so does his next program, whoever he is."""
    ann, bob, eve = hub.peers
    bob.stream.other.room = 0
    hub.turn(*["x" * 60000] * 3)
    assert hub.room.is_congested()
    ann.say(Say("first", 1))
    ann.stream.finish()
    ann.stream.abort()
    with FakeNode(2) as again, FakeNode(3) as bobs_next:
        hub.visit(again, "ann").say(Say("second", 1))
        for _ in range(3):
            hub.turn()
        assert hub.console.shown == hub.console.notes == []
        bob.stream.other.room = INFINITY
        for _ in range(3):
            hub.turn()
        assert hub.console.shown == ["ann: first", "ann: second"]
        assert hub.console.notes == ["ann left", "ann (02:00:00:00:00:02) is here"]
        bob.stream.other.room = 0
        hub.turn(*["x" * 60000] * 3)
        assert hub.room.is_congested()
        hub.visit(bobs_next, "bob").say(Say("I am back", 1))
        for _ in range(3):
            hub.turn()
        assert hub.console.shown[2:] == ["bob: I am back"]
        assert sum(isinstance(record, Say) and record.sender == "ann" for record in eve.heard()) == 2


@pytest.mark.parametrize("ends", [False, True])
def test_server_two_programs_of_one_address_in_a_moment(hub: Server, ends: bool) -> None:
    """`for i in 1 2; do echo $i | alexchat_client.py eth0 --linger 0; done`, while the server was busy."""
    with FakeNode(9) as node:
        for text in ("1", "2"):
            dan = hub.visit(node, "dan")
            dan.say(Say(text, 1))
            if ends:
                dan.stream.finish()
        for _ in range(3):
            hub.turn()
        assert hub.console.shown == ["dan: 1", "dan: 2"]
        here = "dan (02:00:00:00:00:09) is here"
        assert hub.console.notes == ([here, "dan left", here] if ends else [here, here])
        heard = [record for record in hub.peers[0].heard() if isinstance(record, (Joined, Say, Left))]
        joined = Joined("dan", "02:00:00:00:00:09")
        assert heard == [joined, Say("1", 1, "dan"), Left("dan"), joined, Say("2", 1, "dan")]


def test_server_slow_client_whose_stream_takes_it_all(hub: Server) -> None:
    """Large frames have large buffers: nothing is queued, and he does not take it."""
    ann, bob, eve = hub.peers
    node: Any = hub.room.node
    bob.stream.other.holding = True
    while hub.room.may_listen():
        ann.say(Say("x" * 60000))
        hub.turn()
    assert node.time < hub.room.next_deadline() <= node.time + constants.SLOW_SECONDS
    ann.say(Say("still there?"))
    bob.stream.other.acknowledge()  # takes a little: everything, that is
    hub.turn()
    hub.turn()
    assert hub.console.shown[-1] == "ann: still there?"
    while hub.room.may_listen():
        ann.say(Say("x" * 60000))
        hub.turn()
    node.time = hub.room.next_deadline()
    ann.say(Say("and now?"))
    for _ in range(3):
        hub.turn()
    assert hub.console.notes[0] == "bob takes nothing any more: dropped"
    assert hub.console.shown[-1] == "ann: and now?"
    assert eve.heard()


def test_server_looks_again_at_who_had_to_wait(hub: Server) -> None:
    """What he said woke the server up while somebody was slow: nothing more will."""
    ann, bob, _ = hub.peers
    hub.turn()
    bob.stream.other.room = 0
    hub.turn(*["x" * 60000] * 3)
    ann.say(Say("the line"))
    with FakeNode(9) as node:
        hub.visit(node, "dan")
        hub.turn()
        assert hub.room._timeout() != 0
        bob.stream.other.room = INFINITY
        hub.turn()
        assert hub.console.shown == []
        assert hub.room._timeout() == 0
        hub.turn()
        assert hub.console.shown == ["ann: the line"]
        assert hub.room._next is None
        hub.turn()
        assert hub.room._timeout() != 0


def test_server_who_waits_to_enter_is_looked_at_again(hub: Server) -> None:
    bob = hub.peers[1]
    bob.stream.other.room = 0
    hub.turn(*["x" * 60000] * 3)
    with FakeNode(9) as node:
        hub.visit(node, "dan")
        hub.turn()
        for one in hub.room.chats:
            one.may_have_more = False
        assert hub.room._timeout() != 0
        bob.stream.other.room = INFINITY
        for one in hub.room.chats:
            one.flush(now=0.0)
        assert hub.room._timeout() == 0


def test_server_at_its_end_hears_who_waits_outside_and_lists_what_others_miss(hub: Server) -> None:
    ann, bob, eve = hub.peers
    node: Any = hub.room.node
    eve.stream.other.holding = True
    hub.turn("for eve")
    eve.stream.other.restart()
    bob.stream.other.room = 0
    hub.turn(*["x" * 60000] * 3)
    with FakeNode(8) as first, FakeNode(9) as second:
        for number, other in enumerate((first, second)):
            hub.visit(other, f"p{number}").say(Say("late", 1))
        hub.turn("exit")
        hub.console.wait = lambda *_, **__: setattr(node, "time", node.time + 1)
        assert hub.room.run() == 0
    assert [line for line in hub.console.shown if "late" in line] == ["p0: late", "p1: late"]
    assert "NOT delivered to eve: for eve" in hub.console.notes
    assert ann.heard()


def test_server_next_program_of_one_who_said_goodbye_hears_on(hub: Server) -> None:
    with FakeNode(9) as node:
        peers = []
        for number in (1, 2):
            peers.append(hub.visit(node, "dan"))
            peers[-1].say(Say("hello", number))
            if number == 1:
                peers[-1].say(Bye())
        hub.turn()
        hub.turn()
        peers[1].heard()
        hub.turn("hello dan")
        assert [record.text for record in peers[1].heard() if isinstance(record, Say)] == ["hello dan"]


@pytest.mark.parametrize("fields", [{"size": 10**400}, {"size": -1}, {"size": 1, "file": "x" * 65380}], ids="abc")
def test_server_offer_that_makes_no_sense_is_not_passed_on(hub: Server, fields: Dict[str, Any]) -> None:
    """Not in words either: a number of 400 digits has no size that people read."""
    ann, bob, _ = hub.peers
    line = json.dumps({"type": "offer", "token": "0" * 16, "sha256": "0" * 64, "file": "a", **fields}) + "\n"
    assert len(line) < CHAT_LINE_BYTES
    ann.stream.write(line.encode())
    hub.turn()
    hub.turn()
    assert bob.heard() == []


def test_server_slow_client_takes_a_little(hub: Server) -> None:
    node: Any = hub.room.node
    hub.peers[1].stream.other.room = 0
    hub.turn(*["x" * 60000] * 3)
    for _ in range(5):
        node.time += constants.SLOW_SECONDS - 1
        hub.peers[1].stream.other.room = 1
        hub.turn()
    assert hub.console.notes == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("zoë", "zoë~00:05"),
        ("ann", "ann~00:05"),
        ("hub", "hub~00:05"),
        ("", "02:00:00:00:00:05"),
        ("a b\x1b", "a?b?"),
    ],
)
def test_server_name_that_could_mislead(name: str, shown: str) -> None:
    with server(is_interactive=True, names=("ann", "bob", "eve", name)) as one:
        address = "02:00:00:00:00:05"
        assert one.console.notes[-1] == (f"{shown} ({address}) is here" if name else f"{address} is here")
        one.peers[3].say(Hello("ann"))
        one.peers[3].say(Say("hi"))
        one.turn()
        assert one.console.shown == [f"{shown}: hi"]


def test_chat_bytes_queued_until_taken() -> None:
    with FakeNode(1) as node, FakeNode(2) as other:
        stream = connect(node, other)
        stream.room = 10
        one = Conversation(stream, now=0.0)  # type: ignore[arg-type]
        one.put(Say("x" * 100, 1))
        one.finish()
        one.flush(now=1.0)
        assert (len(one._queue) > 0, stream.finished, one.take_held()) == (True, False, [])
        stream.room = 1000
        one.flush(now=2.0)
        assert stream.finished
        assert one.take_held() == [Say("x" * 100, 1)]
        assert not one.put(Say("too late", 2))


# --- commands --------------------------------------------------------------------------------------------------------


def test_every_spelling_in_the_help_is_accepted(member: Client) -> None:
    member.turn("/help")
    (text,) = member.console.notes
    spellings = set(re.findall(r"(?<!\S)/[a-z?]+", text))
    assert {"/help", "/who", "/msg", "/ignore", "/send", "/accept", "/decline", "/exit", "/quit"} <= spellings
    assert set(chat.COMMAND_NAMES) == spellings
    for spelling in sorted(spellings, key=lambda name: name in ("/exit", "/quit", "/q")):  # leaving comes last
        member.console.notes.clear()
        member.turn(spelling.upper())
        assert not any("no command" in note for note in member.console.notes)
    assert [record for record in member.peer.heard() if isinstance(record, Say)] == []


def test_unknown_command_is_not_said(member: Client) -> None:
    member.turn("/usr/bin/\x1b is where", "//usr is said")
    assert member.console.notes == ["no command /usr/bin/^[: /help lists them; //usr/bin/^[ says it"]
    assert [record.text for record in member.peer.heard() if isinstance(record, Say)] == ["/usr is said"]


def test_commands_in_a_pipe_are_text(pipe: Client) -> None:
    pipe.turn("/exit", "/who")
    assert [record.text for record in pipe.peer.heard() if isinstance(record, Say)] == ["/exit", "/who"]


@pytest.mark.parametrize("word", ["/exit", "/quit", "exit", " exit "])
def test_leaving(member: Client, word: str) -> None:
    member.turn(word)
    assert member.peer.heard() == [Bye()]


def test_leaving_interrupted_twice_lists_what_is_not_delivered(person: Client) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise SystemExit(143)

    person.peer.stream.other.holding = True
    person.turn("lost words")
    person.console.wait = interrupted
    assert person.room.run() == 143
    assert person.console.notes == ["NOT delivered to bob: lost words"]


def test_line_typed_while_leaving_is_told_of(member: Client) -> None:
    member.turn("/exit", "too late")
    assert member.peer.heard() == [Bye()]
    assert member.console.notes == ["NOT delivered: already leaving: too late"]


class Answer(NamedTuple):
    """What an echo brings."""

    address: bytes
    hops: int = 2
    rtt: float = 0.0015
    name: str = ""
    ports: Tuple[int, ...] = (1,)


class Known(NamedTuple):
    """What the mesh knows of a node."""

    address: bytes
    last_heard: float


def test_who(member: Client) -> None:
    """All who are here with what their nodes answer; who does not answer is waited for a second."""
    node: Any = member.room.node
    node.answering = [Answer(b"\2\0\0\0\0\2", 1, 0.0005), Answer(b"\2\0\0\0\0\7")]
    node.found = [Known(b"\2\0\0\0\0\x08", 988.0)]
    member.turn("/who")
    assert member.console.notes == []
    assert member.room.next_deadline() == node.time + constants.WHO_SECONDS
    node.time += constants.WHO_SECONDS
    member.turn()
    (table,) = member.console.notes
    assert table.splitlines() == [
        "name      address            hops  round trip  last seen",
        "ann       02:00:00:00:00:07  2     1.50 ms     now",
        "bob       02:00:00:00:00:02  1     0.50 ms     now",
        "eve       02:00:00:00:00:08  -     -           13 s ago",
        "me (you)  02:00:00:00:00:01  0     -           now",
    ]
    node.answering.append(Answer(b"\2\0\0\0\0\x08"))
    member.turn("/w")
    assert len(member.console.notes) == 2  # nobody to wait for


def test_joining_and_leaving_are_told(hub: Server) -> None:
    """To all others, and the newcomer hears who is here."""
    ann, bob, eve = hub.peers
    with FakeNode(9) as node:
        dan = hub.visit(node, "dan")
        hub.turn()
        hub.turn()
        assert hub.console.notes == ["dan (02:00:00:00:00:09) is here"]
        assert ann.heard() == bob.heard() == eve.heard() == [Joined("dan", "02:00:00:00:00:09")]
        assert {record.name for record in dan.heard() if isinstance(record, Joined)} == {"ann", "bob", "eve"}
        dan.stream.abort()
        hub.turn()
        assert ann.heard() == bob.heard() == eve.heard() == [Left("dan")]


@pytest.mark.parametrize("address", ["abc", "ff:ff:ff:ff:ff:ff", "01:00:00:00:00:01", ""])
def test_member_without_an_address(member: Client, address: str) -> None:
    member.peer.say(Joined("zed", address))
    member.turn()
    assert "zed" not in member.room.people
    member.turn("/who")


def acknowledged_with_the_end(one: Client, end: Callable[[FakeStream], None]) -> None:
    """Of two lines one is acknowledged; the other and the end of the stream come while that is shown."""
    stream, settle = one.peer.stream.other, one.console.settle
    stream.holding = True
    one.turn("first", "second")
    stream._acknowledged = stream.written - len(encode_record(Say("second", 2)))

    def settle_slowly(*arguments: Any, **options: Any) -> None:
        settle(*arguments, **options)
        if stream.error is None:
            stream.acknowledge()
            end(stream)

    one.console.settle = settle_slowly


def test_line_acknowledged_just_before_the_end_is_delivered(pipe: Client) -> None:
    acknowledged_with_the_end(pipe, lambda stream: stream.fail(ConnectionResetError("reset by peer")))
    pipe.turn()
    assert pipe.console.own == {1: True, 2: True}


def test_line_acknowledged_just_before_a_restart_is_not_said_again(pipe: Client) -> None:
    node: Any = pipe.room.node
    acknowledged_with_the_end(pipe, FakeStream.restart)
    with FakeNode(2) as again:
        node.others[again.address] = again
        listener = again.listen(1)
        pipe.turn()
        pipe.turn()
        assert Peer(listener.arrived.popleft(), "bob").heard() == [Hello("me", CAN)]
    assert pipe.console.own == {1: True, 2: True}


def test_line_acknowledged_just_before_an_interruption_is_delivered(person: Client) -> None:
    stream = person.peer.stream.other
    stream.holding = True
    person.turn("first")

    def interrupt(*_: Any, **__: Any) -> None:
        stream.acknowledge()
        raise SystemExit(130)

    person.console.wait = interrupt
    assert person.room.run() == 130
    assert person.console.own == {1: True}


def test_members_come_and_go(member: Client) -> None:
    member.peer.say(Joined("d\x1ban~00:09", "02:00:00:00:00:09"))
    member.peer.say(Joined("nowhere", "x\x1b"))
    member.peer.say(Left("ann"))
    member.peer.say(Left("ann"))
    member.peer.say(Notice("watch\x1bout"))
    member.turn()
    assert member.console.notes == ["d?an~00:09 (02:00:00:00:00:09) is here", "ann left", "watch^[out"]
    assert "ann" not in member.room.members()


def test_members_are_bounded(member: Client) -> None:
    for number in range(constants.PEOPLE_MAX + 10):
        member.peer.say(Joined(f"n{number}", "02:00:00:00:00:09"))
    for _ in range(10):
        member.turn()
    assert len(member.room.people) == constants.PEOPLE_MAX


def test_message_for_one_alone(member: Client) -> None:
    member.turn("/msg ann see you at six")
    assert member.peer.heard() == [Say("see you at six", 1, "", "ann")]
    assert member.console.own == {1: True}
    member.peer.say(Say("fine", 2, "ann", "me"))
    member.turn()
    assert member.console.shown == ["ann (to you alone): fine"]


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("/msg", "usage: /msg NAME TEXT"),
        ("/msg ann", "usage: /msg NAME TEXT"),
        ("/msg \x1bnobody hello", "NOT delivered: nobody here is called ^[nobody: /who lists all"),
    ],
)
def test_message_for_nobody(member: Client, line: str, note: str) -> None:
    member.turn(line)
    assert member.console.notes == [note]
    assert member.peer.heard() == []


@pytest.mark.parametrize(
    ("typed", "to"),
    [("eve", "eve"), ("eve~00:08", "eve"), ("me~00:07", "me~00:07"), ("me~00:09", "me~00:09"), ("bob~00:02", "bob")],
)
def test_message_for_one_of_several_who_are_called_so(member: Client, typed: str, to: str) -> None:
    for address in ("02:00:00:00:00:07", "02:00:00:00:00:09"):
        member.peer.say(Joined(f"me~{address[-5:]}", address))
    member.turn()
    member.console.notes.clear()
    member.turn(f"/msg {typed} hello")
    assert member.peer.heard() == [Say("hello", 1, "", to)]


@pytest.mark.parametrize(("typed", "which"), [("me", "me~00:09"), ("ann", "ann~00:07, ann~00:0a"), ("ann~00:0b", "")])
@pytest.mark.parametrize("command", ["/msg {} hello", "/ignore {}"])
def test_name_that_several_have(member: Client, command: str, typed: str, which: str) -> None:
    """The answer has the names to choose from, also where the other is called like oneself."""
    member.peer.say(Joined("me~00:09", "02:00:00:00:00:09"))
    member.peer.say(Joined("ann~00:0a", "02:00:00:00:00:0a"))
    member.turn()
    member.console.notes.clear()
    member.turn(command.format(typed))
    says = f"which {typed}? {which}" if which else f"nobody here is called {typed}: /who lists all"
    assert member.console.notes == [("NOT delivered: " if "/msg" in command else "") + says]
    assert member.peer.heard() == []


def test_message_for_one_alone_is_not_entrusted_to_a_program_that_would_tell_all(person: Client) -> None:
    person.turn("/msg bob psst")
    assert person.console.notes == ["NOT delivered: the other program passes on no messages to one alone"]
    assert person.peer.heard() == []


def test_server_message_for_one_alone(hub: Server) -> None:
    """It reaches one person, whoever runs the server does not see it, and a wrong name is told to who used it."""
    ann, bob, eve = hub.peers
    ann.say(Say("psst", 5, "", "bob"))
    for name in ("hub", "hub~00:01", "02:00:00:00:00:01"):  # as it is shown where another is called hub too
        ann.say(Say(f"for {name}", 6, "", name))
    ann.say(Say("hm", 7, "", "nobody"))
    hub.turn()
    hub.turn()
    assert [line.partition(" (to you alone): for ")[2] for line in hub.console.shown] == [
        "hub", "hub~00:01", "02:00:00:00:00:01"
    ]  # fmt: skip
    assert bob.heard() == [Say("psst", 5, "ann", "bob")]
    assert eve.heard() == []
    assert ann.heard() == [Notice("NOT delivered: nobody here is called nobody")]


def test_server_person_says_to_one_alone() -> None:
    with server(is_interactive=True, can=CAN) as one:
        one.turn("/msg eve psst")
        assert [len(peer.heard()) for peer in one.peers] == [0, 0, 1]


def test_ignored(member: Client) -> None:
    """Messages and offers of somebody are not shown, by whatever name he comes back, until he is heard again."""
    member.turn("/ignore ann")
    member.peer.say(Say("hello", 1, "ann"))
    member.peer.say(Offer("1" * 16, "x", 1, "2" * 64, "ann", "02:00:00:00:00:07"))
    member.peer.say(Left("ann"))
    member.peer.say(Joined("anna", "02:00:00:00:00:07"))
    member.peer.say(Say("hello again", 2, "anna"))
    member.peer.say(Say("me too", 3, "eve"))
    member.turn()
    member.turn()
    assert member.console.shown == ["eve: me too"]
    member.console.notes.clear()
    member.turn("/ignore", "/ignore anna", "/ignore nobody")
    assert member.console.notes[0] == "ignored: 02:00:00:00:00:07 ann"
    assert "nobody here is called nobody" in member.console.notes[-1]
    member.peer.say(Say("free", 4, "anna"))
    member.turn()
    assert member.console.shown[-1] == "anna: free"


def test_server_ignores_for_its_own_person_only(hub: Server) -> None:
    hub.turn("/ignore ann")
    hub.peers[0].say(Say("hello"))
    hub.turn()
    hub.turn()
    assert hub.console.shown == []
    assert hub.peers[1].heard() == [Say("hello", 0, "ann")]


# --- who comes back ---------------------------------------------------------------------------------------------------


def test_lines_for_a_silent_peer_are_bounded(person: Client) -> None:
    """What is typed while the link is lost waits, up to a limit; more is refused and named."""
    stream = person.peer.stream.other
    stream.holding, stream.stalled = True, True
    person.turn(*["x" * 60000] * 20)
    refused = [note for note in person.console.notes if note.startswith("NOT delivered: too much is waiting")]
    assert 0 < len(refused) < 5
    stream.holding, stream.stalled = False, False
    person.turn()
    assert len(person.peer.heard()) == 20 - len(refused)


@pytest.mark.parametrize("refusals", [0, 3])
def test_client_calls_a_restarted_peer_again(person: Client, refusals: int) -> None:
    """What it held is not sent again; the rest, a line held in part too, comes whole, once and in order."""
    node: Any = person.room.node
    person.turn("held")
    person.peer.stream.other.holding = True
    person.turn("two", "three")
    person.peer.heard()
    with FakeNode(2) as again:
        node.others[again.address] = again
        person.peer.stream.other.restart()
        for _ in range(refusals):
            person.turn()
            assert person.console.prompt == "bob: link lost, retrying> "
            assert person.room.next_deadline() <= node.time + constants.RETRY_SECONDS
            node.time += constants.RETRY_SECONDS
        listener = again.listen(1)
        person.turn("four")
        person.turn("five")
        peer = Peer(listener.arrived.popleft().other.other, "bob")
        person.turn()
        assert peer.heard() == [Hello("me", CAN), Say("two", 2), Say("three", 3), Say("four", 4), Say("five", 5)]
        assert person.console.own == {1: True, 2: True, 3: True, 4: True, 5: True}
        assert person.console.notes[0] == "bob's program was restarted: calling again"
        assert person.console.notes[-1] == "bob (02:00:00:00:00:02) is back"
        assert person.console.prompt == "> "
        assert not listener.arrived
        assert not person.room.has_failed()


def test_client_gives_up_a_peer_that_does_not_come_back(person: Client) -> None:
    node: Any = person.room.node
    person.peer.stream.other.holding = True
    person.turn("one")
    person.peer.stream.other.restart()
    person.turn("two")
    for _ in range(int(constants.RETURN_SECONDS / constants.RETRY_SECONDS) + 5):
        person.turn()
        node.time += constants.RETRY_SECONDS
    assert person.console.notes[-2:] == ["NOT delivered to bob: one", "NOT delivered to bob: two"]
    assert person.console.own == {1: False, 2: False}
    assert person.room.run() == 1


def test_pipe_calls_a_restarted_peer_again(pipe: Client) -> None:
    """Also for the last lines of a pipe, which has ended."""
    node: Any = pipe.room.node
    pipe.peer.stream.other.holding = True
    pipe.turn("one", at_end=True)
    with FakeNode(2) as again:
        node.others[again.address] = again
        listener = again.listen(1)
        pipe.peer.stream.other.restart()
        pipe.turn()
        pipe.turn()
        stream = listener.arrived.popleft()
        assert Peer(stream, "bob").heard() == [Hello("me", CAN), Say("one", 1)]
        assert stream.other.finished


def test_restarted_peer_is_called_later_while_there_are_too_many_streams(person: Client) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EMFILE, "too many streams")

    node: Any = person.room.node
    person.peer.stream.other.restart()
    usual, node.open = node.open, fail
    person.turn()
    assert len(person.room.chats) == 1
    assert node.time < person.room.next_deadline() <= node.time + constants.RETRY_SECONDS
    node.time = person.room.next_deadline()
    node.open = usual
    with FakeNode(2) as again:
        node.others[again.address] = again
        listener = again.listen(1)
        person.turn()
        assert Peer(listener.arrived.popleft(), "bob").heard() == [Hello("me", CAN)]


def test_leaving_while_calling_again(person: Client) -> None:
    person.peer.stream.other.holding = True
    person.turn("one")
    person.peer.stream.other.restart()
    person.turn()
    person.turn("/exit")
    person.turn()
    assert person.console.notes[-1] == "NOT delivered to bob: one"
    assert person.room.is_over()


@pytest.mark.parametrize("told_first", [True, False])
def test_server_client_restarted(hub: Server, told_first: bool) -> None:
    """It gets what its last program did not hold, its own and others' words in order, whichever is noticed first."""
    ann, bob, _ = hub.peers
    hub.turn("held")
    bob.stream.other.holding = True
    ann.say(Say("from ann", 3))
    hub.turn("from hub")
    hub.turn()
    if told_first:
        bob.stream.other.restart()
        hub.turn()
        hub.turn("while bob is away")  # for those who are here
        assert Left("bob") in ann.heard()
    with FakeNode(3) as again:
        bob = hub.visit(again, "bob")
        hub.turn()
        hub.turn()
        said = [(record.text, record.sender) for record in bob.heard() if isinstance(record, Say)]
        assert said == [("from hub", ""), ("from ann", "ann")]
        assert hub.console.own[1] is hub.console.own[2] is True
        assert [chat.name for chat in hub.room.chats].count("bob") == 1


def test_server_client_restarted_does_not_come_back(hub: Server) -> None:
    node: Any = hub.room.node
    hub.peers[1].stream.other.holding = True
    hub.turn("from hub")
    hub.peers[1].stream.other.restart()
    hub.turn()
    assert hub.console.own == {1: "from hub"}
    node.time = hub.room.next_deadline()
    hub.turn()
    assert hub.console.own == {1: False}
    assert hub.console.notes[-1] == "NOT delivered to bob: from hub"
    assert hub.room.next_deadline() == INFINITY


def test_server_remembers_only_so_many(hub: Server) -> None:
    from constants import AWAY_MAX

    node: Any = hub.room.node
    with contextlib.ExitStack() as nodes:
        for number in range(10, 15 + AWAY_MAX):
            stream = connect(node, nodes.enter_context(FakeNode(number)))
            hub.room._listener.arrived.append(stream)  # type: ignore[arg-type]
            hub.turn()
            stream.holding = True
            hub.turn("for you")
            stream.restart()
            hub.turn()
            hub.turn()
    assert len(hub.room._away) <= AWAY_MAX
    assert any(note.startswith("NOT delivered to 02:00:00:00:00:0a") for note in hub.console.notes)


# --- two who call each other -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [1, 2])
def test_two_who_call_each_other_have_one_conversation(first: int) -> None:
    """Whoever is first: what both said on either stream arrives once, and one stream is left."""
    with FakeNode(1) as low, FakeNode(2) as high:
        consoles: List[Any] = [FakeConsole(is_interactive=True) for _ in range(2)]
        nodes = [low, high]
        listeners = [node.listen(1) for node in nodes]
        low.others, high.others = {high.address: high}, {low.address: low}
        rooms = []
        for node, console, listener, name in zip(nodes, consoles, listeners, ("low", "high")):
            room = ClientRoom(node, console, name=name, listener=listener)  # type: ignore[arg-type]
            rooms.append(room)
        for index in (first - 1, 2 - first):
            rooms[index].join(nodes[index].open(nodes[1 - index].address, 1))  # type: ignore[arg-type]
            consoles[index].typed.append(f"one from {index}")
            rooms[index].turn()
        for number in range(6):
            for index in (0, 1):
                consoles[index].typed += [f"{number} from {index}"] if number == 3 else []
                rooms[index].turn()
        assert consoles[0].shown == ["high: one from 1", "high: 3 from 1"]
        assert consoles[1].shown == ["low: one from 0", "low: 3 from 0"]
        for index, name in enumerate(("high", "low")):
            assert [note for note in consoles[index].notes if name in note] == [
                f"{name} ({format_address(nodes[1 - index].address)}) is here"
            ]
            assert len(rooms[index].chats) == 1
        for node in nodes:
            node.time += constants.CROSSING_SECONDS
        for room in rooms:
            room.turn()
        assert all(listener.closed for listener in listeners)
        streams: List[Any] = [room.chats[0].stream for room in rooms]
        assert streams[0].other is streams[1]
        rooms[0].leave()
        for _ in range(3):
            for room in rooms:
                room.turn()
        assert consoles[1].notes[-1] == "low left"
        assert all(room.is_over() for room in rooms)


def test_line_on_the_stream_that_crossed_and_failed_is_named() -> None:
    with FakeNode(2) as node, FakeNode(1) as other:  # whose address is lower: his stream stays
        console: Any = FakeConsole(is_interactive=True)
        listener = FakeListener()
        room = ClientRoom(node, console, listener=listener, name="me")  # type: ignore[arg-type]
        mine, theirs = connect(node, other), connect(node, other)
        mine.holding = True
        room.join(mine)  # type: ignore[arg-type]
        console.typed.append("hi")
        room.turn()
        listener.arrived.append(theirs)
        room.turn()
        mine.fail(TimeoutError("timed out"))
        room.turn()
        assert console.own == {1: False}


def test_third_who_calls_a_caller_finds_nobody() -> None:
    with FakeNode(5) as node:
        listener = FakeListener()
        with client(is_interactive=True, listener=listener) as one, FakeNode(7) as third:
            stream = connect(one.room.node, third)  # type: ignore[arg-type]
            listener.arrived.append(stream)
            one.turn()
            assert isinstance(stream.other.error, ConnectionResetError)
            assert len(one.room.chats) == 1
            assert node.time


class Calling:
    """A node whose calls are refused, except to `open_port`; and who calls it meanwhile."""

    def __init__(self, *callers: bytes, open_port: int = 0, busy_port: int = 0) -> None:
        self.time = 0.0
        self.listener = Arriving(self, *callers)
        self.stream = FakeStream(FakeNode(9), b"\2\0\0\0\0\2")
        self._open_port = open_port
        self._busy_port = busy_port

    def now(self) -> float:
        return self.time

    def listen(self, port: int, *, only: bytes) -> "Arriving":
        assert port == PORT_CALL
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


def test_call_to_a_server_or_a_caller() -> None:
    call: Any = chat.call
    node = Calling(open_port=PORT_CHAT)
    assert call(node, node.stream.peer) == (node.stream, None)
    assert node.listener.closed
    node = Calling(open_port=PORT_CALL)
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
    node = Calling(busy_port=PORT_CHAT)
    with pytest.raises(ConnectionRefusedError, match="busy; try again later"):
        call(node, node.stream.peer)
    assert node.time == constants.ANSWER_SECONDS


# --- finding a server ------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What `discover` says of a node."""

    address: bytes
    ports: Optional[Tuple[int, ...]] = (1,)
    name: Optional[str] = "na\x1bme"
    hops: int = 1


def test_servers_none_one_many_to_a_pipe() -> None:
    with FakeNode(1) as node:
        console: Any = FakeConsole(is_interactive=False)
        choose: Any = chat.choose_server
        node.found = [Found(b"\2" * 6, ports=(2,)), Found(b"\4" * 6, ports=None)]
        with pytest.raises(TimeoutError, match="no chat server"):
            choose(node, console)
        node.found.append(Found(b"\6" * 6))
        assert choose(node, console) == b"\6" * 6
        node.found.append(Found(b"\2" * 6, name=None))
        with pytest.raises(SetupError) as raised:
            choose(node, console)
        lines = str(raised.value).splitlines()
        assert len(lines) == 3
        assert "alexchat_client.py fake0 06:06:06:06:06:06" in lines[1]
        assert "\x1b" not in str(raised.value)


class Choosing(FakeConsole):
    """A person who types one line each time the program waits."""

    def __init__(self, *lines: str) -> None:
        super().__init__(is_interactive=True)
        self._lines = list(lines)
        self.before_wait: Any = tuple

    def __enter__(self) -> "Choosing":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, network: int, *, reading: bool, timeout: Optional[float]) -> None:
        self.before_wait()
        self.typed += self._lines[:1]
        self._lines = self._lines[1:]
        self.at_end = not self._lines and not self.typed


ALICE, BOB, BOBBY = (bytes((2, 0, 0, 0, 0, number)) for number in (0x11, 0x12, 0x13))


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        (("2",), BOB),
        (("alice",), ALICE),
        (("02:00:00:00:00:12",), BOB),
        (("2:0:0:0:0:99",), b"\2\0\0\0\0\x99"),  # also one that is not listed
        (("nobody", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", "7", "1"), ALICE),
        (("b?b", "3"), BOBBY),
        (("exit",), b""),
        (("/quit",), b""),
        ((), b""),
    ],
)
def test_server_chosen(lines: Tuple[str, ...], chosen: bytes) -> None:
    """By number, name or address."""
    with FakeNode(1) as node:
        console: Any = Choosing(*lines)
        node.answering = [
            Answer(ALICE, name="alice"), Answer(BOB, name="b\x1bb"), Answer(BOBBY, name="b b"),
            Answer(b"\2\0\0\0\0\x14", ports=(2,)),
        ]  # fmt: skip
        node.found = [Found(answer.address) for answer in node.answering]
        choose: Any = chat.choose_server
        assert choose(node, console) == chosen
        if len(lines) > 2:
            assert len(console.notes) == 4 + len(lines) - 1
        if "b?b" in lines:
            assert console.notes[-1].startswith("several are called b?b")


def test_servers_listed_live() -> None:
    """One that comes is listed, one that goes is said to be gone, and numbers stay."""
    with FakeNode(1) as node:
        console: Any = Choosing("", "", "", "", "2")
        steps = iter(
            ([Answer(ALICE, name="alice")], [Answer(BOB, 1, 0.0005, "bob")], [Answer(ALICE, name="alice")], [])
        )

        def change() -> None:
            node.time += constants.LOBBY_SECONDS
            node.answering = next(steps, [Answer(BOB, name="bob")])
            node.found = [Found(answer.address) for answer in node.answering]

        console.before_wait = change
        choose: Any = chat.choose_server
        assert choose(node, console) == BOB
        assert [note.split()[:2] for note in console.notes[1:]] == [
            ["1", "alice"], ["1", "alice"], ["2", "bob"], ["2", "bob"], ["1", "alice"], ["1", "alice"], ["2", "bob"],
        ]  # fmt: skip
        assert [note.endswith("is gone") for note in console.notes[1:]] == [
            False,
            True,
            False,
            True,
            False,
            True,
            False,
        ]
        assert console.notes[3] == "  2  bob           02:00:00:00:00:12  1 hop  0.50 ms"


def test_message_while_servers_are_listed_is_shown() -> None:
    """Its sender was told that it is delivered."""
    with FakeNode(1) as node:
        console: Any = Choosing("exit")
        node.events.extend((NodeFound(ALICE, 1, 1500, ""), MessageReceived(ALICE, bytes(6), 1, b"raw\x1b[2J")))
        choose: Any = chat.choose_server
        assert choose(node, console) == b""
        assert console.notes[1:] == ["message from 02:00:00:00:00:11: raw^[[2J"]


def test_server_that_has_gone_is_not_listed_again_for_an_old_answer() -> None:
    with FakeNode(1) as node:
        console: Any = Choosing("", "", "", "exit")
        node.answering, node.found = [Answer(ALICE, name="alice")], [Found(ALICE), Found(ALICE)]
        console.before_wait = node.found.clear
        choose: Any = chat.choose_server
        assert choose(node, console) == b""
        assert [note.split()[1:] for note in console.notes[1:]] == [
            ["alice", "02:00:00:00:00:11", "2", "hops", "1.50", "ms"], ["alice", "is", "gone"],
        ]  # fmt: skip


# --- on a real pseudo-terminal ---------------------------------------------------------------------------------------


class OnTerminal:
    """The client of fakes.py on a pseudo-terminal of its own, and what that shows."""

    def __init__(self, *command: str, width: int = 40, height: int = 10, **environment: str) -> None:
        pyte = pytest.importorskip("pyte")
        self.screen = pyte.Screen(width, height)
        self._emulator = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
        self.mode_before = termios.tcgetattr(slave)
        self._slave = slave
        self.raw = b""
        settings = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment}

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command or [sys.executable, FAKES],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=settings,
            preexec_fn=own_terminal,
        )

    def __enter__(self) -> "OnTerminal":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # the shell's children too
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    @property
    def rows(self) -> List[str]:
        return [row.rstrip() for row in self.screen.display if row.strip()]

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def expect(self, *rows: str, timeout: float = 10) -> None:
        """Wait until these are the last rows on the screen."""
        self.wait_for(lambda: self.rows[-len(rows) :] == list(rows), timeout, f"expected {rows}, ")

    def wait_for(self, ready: Callable[[], object], timeout: float = 10, what: str = "") -> None:
        """Read on until that is so."""
        deadline = time.monotonic() + timeout
        while not ready():
            assert time.monotonic() < deadline, f"{what}on the screen: {self.rows}"
            if select.select([self._master], [], [], 0.05)[0]:
                data = os.read(self._master, 65536)
                self.raw += data
                self._emulator.feed(data)

    def resize(self, width: int, height: int) -> None:
        self.screen.resize(height, width)
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))

    def ends(self, timeout: float = 10) -> int:
        """Return the exit status; the terminal's mode is what it was."""
        status = self.process.wait(timeout)
        assert termios.tcgetattr(self._slave) == self.mode_before
        return status


HERE = "peer (02:00:00:00:00:02) is here"


def test_terminal_typed_and_answered() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type("grüße".encode())
        terminal.expect("> grüße")
        terminal.type(b"\r")
        terminal.expect("✓ grüße", "peer: you said grüße", ">")
        terminal.type(b"exit\r")
        assert terminal.ends() == 0
        assert terminal.raw.count(b"\x1b[?2004h") == 1


def test_terminal_messages_arrive_while_typing() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"flood 200\rhalf a li\x1b[D\x1b[D")
        terminal.expect(*(f"peer: message {number}" for number in range(192, 200)), "> half a li")
        terminal.expect("> half a li")
        assert terminal.screen.cursor.x == len("> half a ")
        terminal.type(b"\x05ne\r")
        terminal.expect("peer: you said half a line", ">")


def test_terminal_delivered_later() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"hold\r")
        terminal.expect("✓ hold", ">")
        terminal.type(b"one\r")
        terminal.expect("✓ hold", "· one", "peer: you said one", ">")
        terminal.type(b"take\r")
        terminal.expect("✓ one", "peer: you said one", "✓ take", ">")


def test_terminal_link_lost() -> None:
    with OnTerminal(width=80) as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"stall\rtyping")
        terminal.expect("✓ stall", "peer: link lost, retrying> typing")
        terminal.type(b"\x15hold\r")
        terminal.expect("✓ hold", "peer: link lost, retrying>")
        terminal.type(b"lost words\rlose\r")
        assert terminal.ends() == 1
        terminal.expect("NOT delivered to peer: lose")
        assert "✗ lost words" in terminal.rows
        assert "NOT delivered to peer: lost words" in terminal.rows


def test_terminal_paste() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"\x1b[200~exit\rtwo\r\x1b[201~")
        terminal.expect("> exit↵two↵")
        terminal.type(b"!\r")
        terminal.expect("✓ exit", "    two", "    !", "peer: you said exit", "    two", "    !", ">")


def test_terminal_resized() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"0123456789abcdefghij0123456789")
        terminal.expect("> 0123456789abcdefghij0123456789")
        terminal.resize(12, 10)
        terminal.expect("> 23456789")


def test_terminal_resized_before_the_signal_says_so() -> None:
    """No mark is set where its line may no longer be, and the row has the new width."""
    with OnTerminal("sh", "-c", f"trap '' WINCH; exec {sys.executable} {FAKES}") as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"hold\r")
        terminal.expect("✓ hold", ">")
        terminal.type(b"one\r")
        terminal.expect("✓ hold", "· one", "peer: you said one", ">")
        terminal.resize(20, 10)
        terminal.type(b"0123456789" * 3)
        terminal.expect("> 4567890123456789")
        terminal.type(b"\x15take\r")
        terminal.expect("· one", "peer: you said one", "✓ take", "✓ one", ">")


@pytest.mark.parametrize("key", [b"\x03", b"\x03\x03"])
def test_terminal_ctrl_c(key: bytes) -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"typed")
        terminal.expect("> typed")
        terminal.type(b"\x03")
        terminal.expect(HERE, ">")
        terminal.type(b"\x03")
        assert terminal.ends() == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_terminal_signal(number: signal.Signals) -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.process.send_signal(number)
        assert terminal.ends() == 128 + number


def test_terminal_ctrl_d() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"ab\x01\x04")
        terminal.expect("> b")
        terminal.type(b"\x04\x04")
        assert terminal.ends() == 0


def test_terminal_peer_leaves() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"bye\r")
        assert terminal.ends() == 0
        terminal.expect("✓ bye", "peer left")


def test_terminal_suspended_and_continued() -> None:
    """As a job of a shell, which waits for a line while it is stopped."""
    with OnTerminal("sh", "-mc", f"{sys.executable} {FAKES}; echo stopped; read -r line; fg; echo $?") as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"half\x1a")
        terminal.expect("stopped")
        terminal.type(b"line\n")
        terminal.expect("> half")
        terminal.type(b" done\r")
        terminal.expect("peer: you said half done", ">")
        terminal.type(b"exit\r")
        terminal.expect("0")
        assert terminal.ends() == 0


def test_terminal_cleared() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"typed\x0c")
        terminal.expect("> typed")
        assert terminal.rows == ["> typed"]


def test_terminal_tab() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"hi p\t")
        terminal.expect("> hi peer")
        terminal.type(b"\x15/ms\tpe\t")
        terminal.expect("> /msg peer")


def test_terminal_tab_completes_paths(tmp_path: Any) -> None:
    """Directories get a slash; what several share is completed; a name that would act on the terminal is left out."""
    for name in ("my photos/cat 1.jpg", "my photos/cat 2.jpg", "my photos/.hidden", "notes/old\x1b]0;pwned\x07", "x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with OnTerminal(width=200, HOME=str(tmp_path)) as terminal:
        terminal.expect(HERE, ">")
        for keys, row in (
            (b"/send ~/m\t", "~/my photos/"),
            (b"\t", "~/my photos/cat"),
            (b"2\t", "~/my photos/cat 2.jpg"),
            (b"\x15/send ~/my photos/.h\t", "~/my photos/.hidden"),
            (b"\x15/send %s/n\to\t!" % str(tmp_path).encode(), f"{tmp_path}/notes/o!"),
            (b"\x15/send ~/nowhere/x\t!", "~/nowhere/x!"),
        ):
            terminal.type(keys)
            terminal.expect(f"> /send {row}")
        assert b"pwned" not in terminal.raw


def test_terminal_messages_arrive_while_looking_through_the_history() -> None:
    with OnTerminal() as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"one\r")
        terminal.expect("peer: you said one", ">")
        terminal.type(b"flood 100\rdraft\x1b[A\x1b[A\x1b[D")
        terminal.expect("peer: message 99", "> one")
        assert terminal.screen.cursor.x == len("> on")
        terminal.type(b"\x1b[B\x1b[B")
        terminal.expect("peer: message 99", "> draft")


def test_terminal_help() -> None:
    with OnTerminal(width=80, height=20) as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"/help\r")
        terminal.expect(
            "  /exit or /quit or /q             leave",
            "  //TEXT                           say a line that begins with /",
            ">",
        )
        assert len(terminal.rows) == 11  # none is wrapped


CLOCK = r"\d\d:\d\d "


def test_terminal_timestamps_bell_and_log(tmp_path: Any) -> None:
    log = tmp_path / "log"
    with OnTerminal(sys.executable, FAKES, "--timestamps", "--bell", "--log", str(log)) as terminal:
        terminal.wait_for(lambda: len(terminal.rows) > 1)
        terminal.type(b"flood 50\r")
        terminal.wait_for(lambda: "message 49" in terminal.rows[-2])
        terminal.type(b"one\rexit\r")
        assert terminal.ends() == 0
        terminal.wait_for(lambda: any("said one" in row for row in terminal.rows))
        shown = [re.sub(CLOCK, "12:34 ", row) for row in terminal.rows]
        assert "✓ 12:34 one" in shown
        assert "12:34 peer: you said one" in shown
        assert terminal.raw.count(b"\x07") == 1  # for 51 messages in less than five seconds
    lines = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in log.read_text("utf-8").splitlines()]
    assert lines[0] == HERE
    assert [line for line in lines if "one" in line] == ["> one", "peer: you said one"]
    assert len([line for line in lines if "message" in line]) == 50
    assert oct(log.stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/log", "/"])
def test_terminal_log_that_fails(path: str) -> None:
    """It is told once, and the chat goes on."""
    with OnTerminal(sys.executable, FAKES, "--log", path, width=80) as terminal:
        terminal.wait_for(lambda: any(f"nothing more is logged: {path}: " in row for row in terminal.rows))
        terminal.type(b"one\r")
        terminal.expect("✓ one", "peer: you said one", ">")
        assert sum("logged" in row for row in terminal.rows) == 1


def test_terminal_goes_away_while_the_output_is_a_pipe() -> None:
    """The program comes to its end, and does not spin for ever."""
    master, slave = pty.openpty()
    with subprocess.Popen([sys.executable, FAKES], stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        os.close(slave)
        assert done.stderr is not None
        assert HERE.encode() in done.stderr.readline()
        os.close(master)
        assert done.wait(20) == 0


def test_no_such_folder_for_downloads() -> None:
    done = run_piped(b"", arguments=["--downloads", "/nowhere"])
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "fakes.py: --downloads /nowhere: no such directory; to make it: mkdir /nowhere"
    ]


def test_output_not_a_terminal() -> None:
    """Typed on a terminal, shown in a file: no editor and no escape sequence anywhere."""
    with OnTerminal("sh", "-c", f"{sys.executable} {FAKES} | cat") as terminal:
        terminal.expect(HERE)
        terminal.type(b"hello\n")
        terminal.expect("delivered: hello", "peer: you said hello")
        assert b"\x1b" not in terminal.raw
        terminal.type(b"/exit\n")
        assert terminal.ends() == 0


def test_input_not_a_terminal() -> None:
    with OnTerminal("sh", "-c", f"echo hello | {sys.executable} {FAKES}") as terminal:
        terminal.expect(HERE, "peer: you said hello")
        assert b"\x1b" not in terminal.raw


def test_ascii_terminal() -> None:
    """Marks in ASCII, and what the character set lacks as a question mark."""
    with OnTerminal(PYTHONIOENCODING="ascii") as terminal:
        terminal.expect(HERE, ">")
        terminal.type(b"hold\r")
        terminal.expect("+ hold", ">")
        terminal.type(b"one\r")
        terminal.expect(". one", "peer: you said one", ">")
        terminal.type(b"lose\r")
        terminal.ends()
        terminal.expect("NOT delivered to peer: lose")
        assert {"! one", "! lose"} <= set(terminal.rows)
        assert max(terminal.raw) < 128


def test_dumb_terminal_lines() -> None:
    """No editor: the terminal's own line mode, and no escape sequence."""
    with OnTerminal(TERM="dumb") as terminal:
        terminal.expect(HERE)
        terminal.type(b"hello\n")
        terminal.expect("hello", "delivered: hello", "peer: you said hello")
        assert b"\x1b" not in terminal.raw
        terminal.type(b"exit\n")
        assert terminal.ends() == 0


# --- from pipes ------------------------------------------------------------------------------------------------------


def run_piped(data: bytes, arguments: Sequence[str] = ()) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, FAKES, *arguments]
    return subprocess.run(command, input=data, timeout=20, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_pipe_of_lines() -> None:
    done = run_piped(b"one\r\n\nb\xc3\xa9\xff\nbye")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == ["peer: you said one", "peer: you said ", "peer: you said bé\ufffd"]
    assert done.stderr.decode().splitlines() == [HERE, "peer left"]


def test_pipe_lines_not_delivered() -> None:
    with subprocess.Popen(
        [sys.executable, FAKES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hold\nanything\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"peer: you said anything\n"
        errors = process.communicate(b"one\nlose\n", timeout=20)[1]
        assert process.returncode == 1
        assert "NOT delivered to peer: one" in errors.decode()


def test_pipe_line_without_end() -> None:
    done = run_piped(b"x" * 300000 + b"\nfine\nbye\n")
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == ["peer: you said fine"]
    assert done.stderr.decode().count("NOT delivered") == 1


def test_pipe_whose_reader_leaves() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, FAKES], input=b"one\n", timeout=20, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_pipe_whose_reader_does_not_read_signal() -> None:
    """Where output waits for its reader, a signal still ends the program."""
    with subprocess.Popen([sys.executable, FAKES], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"flood 20000\n")
        process.stdin.flush()
        assert process.stdout.read(1) == b"p"
        process.send_signal(signal.SIGTERM)
        process.stdin.close()
        assert process.wait(10) == 143
