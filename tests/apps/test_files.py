"""Files in the chat: offered, fetched, resumed, checked; and offers and fetchers that mean no good. Over fakes."""

import contextlib
import hashlib
import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from fakes import FakeAside, FakeConsole, FakeNode, FakeStream, Peer, connect

import alexstream_client
import constants
from alexchat_client import CAN, Room
from alexstream_client import Decline, Offer
from alexstream_server import Files
from constants import PORT_CHAT, PORT_FILE

CONTENT = bytes(range(256)) * 10000
TOKEN, DIGEST = "0123456789abcdef", hashlib.sha256(CONTENT).hexdigest()


class Person(NamedTuple):
    """A room, who sits there, and where the files go."""

    node: FakeNode
    console: Any
    room: Any
    folder: str

    def type(self, *lines: str) -> None:
        self.console.typed += lines

    @property
    def told(self) -> List[str]:
        return [*self.console.shown, *self.console.notes]

    def files(self) -> Dict[str, bytes]:
        """What is in the folder."""
        found = {}
        for name in os.listdir(self.folder):
            with open(os.path.join(self.folder, name), "rb") as file:
                found[name] = file.read()
        return found


class World:
    """A hub and its guests; every node reaches every other."""

    def __init__(self, folder: str) -> None:
        self.people: List[Person] = []
        self._folder = folder
        self._nodes = contextlib.ExitStack()
        self._numbers = iter(range(1, 100))

    def enter(self, name: str) -> Person:
        """Somebody comes; the first one is the hub."""
        node = self._nodes.enter_context(FakeNode(next(self._numbers)))
        console: Any = FakeConsole(is_interactive=True)
        folder = os.path.join(self._folder, name)
        os.makedirs(folder, exist_ok=True)
        is_opener = not self.people
        room: Any = Room(node, console, name=name, downloads=folder, is_opener=is_opener)  # type: ignore[arg-type]
        self.people.append(Person(node, console, room, folder))
        for one in self.people:
            one.node.others = {other.node.address: other.node for other in self.people if other is not one}
        if len(self.people) > 1:
            room.join(node.open(self.people[0].node.address, PORT_CHAT))
        self.run()
        return self.people[-1]

    def run(self, turns: int = 12) -> None:
        """Let everybody do what there is to do."""
        for _ in range(turns):
            for person in self.people:
                person.room.turn()

    def close(self) -> None:
        """Everybody goes."""
        for person in self.people:
            person.room.files.close()
        self._nodes.close()


@pytest.fixture
def world(tmp_path: Any) -> Iterator[World]:
    world = World(str(tmp_path))
    world.enter("hub")
    yield world
    world.close()


@pytest.fixture
def file(tmp_path: Any) -> str:
    path = os.path.join(str(tmp_path), "photo.jpg")
    with open(path, "wb") as out:
        out.write(CONTENT)
    return path


def offer(world: World, sender: Person, path: str) -> None:
    sender.type("/send " + path)
    world.run()


# --- what people do --------------------------------------------------------------------------------------------------


def test_files_told_in_json(world: World, file: str) -> None:
    """Both ends: what is offered, accepted, received, declined and damaged, each with its SHA-256."""
    ann, bob = world.enter("ann"), world.enter("bob")
    ann.console.as_json = bob.console.as_json = True
    offer(world, ann, file)
    bob.type("/accept 1")
    world.run()
    offer(world, ann, file)
    bob.type("/decline 2")
    world.run()
    offer(world, ann, file)
    with open(file, "r+b") as out:
        out.write(b"other")
    bob.type("/accept 3")
    world.run()
    digest = hashlib.sha256(CONTENT).hexdigest()
    sent = {"name": "ann", "address": "02:00:00:00:00:02", "sha256": digest}
    got = {"file": "photo.jpg", **sent}
    bad = "refused: its SHA-256 is not the one that was said"
    assert bob.console.events == [
        {"type": "file offered", **got, "number": 1, "size": len(CONTENT)},
        {"type": "file accepted", **got, "number": 1},
        {"type": "file finished", **got, "number": 1, "path": os.path.join(bob.folder, "photo.jpg")},
        {"type": "file offered", **got, "number": 2, "size": len(CONTENT)},
        {"type": "file offered", **got, "number": 3, "size": len(CONTENT)},
        {"type": "file accepted", **got, "number": 3},
        {"type": "file failed", **got, "number": 3, "reason": bad},
    ]
    mine = {"type": "file offered", **sent, "path": file, "size": len(CONTENT)}
    taken = {"name": "bob", "address": "02:00:00:00:00:03", "path": file, "sha256": digest}
    assert ann.console.events == [
        mine,
        {"type": "file finished", **taken},
        mine,
        {"type": "file declined", "name": "bob", "path": file, "sha256": digest},
        mine,
        {"type": "file failed", **taken, "reason": "got photo.jpg damaged"},
    ]


def test_file_from_guest_to_guest(world: World, file: str) -> None:
    """Offered through the hub, carried between the two nodes alone, the same at the end, and both are told."""
    ann, bob = world.enter("ann"), world.enter("bob")
    offer(world, ann, file)
    assert ann.told[-1] == "offered photo.jpg (2.6 MB); it goes to who accepts it"
    assert bob.console.shown == ["ann offers photo.jpg (2.6 MB): /accept 1 or /decline 1"]
    assert bob.files() == {}
    bob.type("/accept")
    world.run()
    assert bob.files() == {"photo.jpg": CONTENT}
    assert bob.told[-1] == f"photo.jpg from ann: received, 2.6 MB, SHA-256 checked: {bob.folder}/photo.jpg"
    assert ann.told[-1] == "bob holds all of photo.jpg, SHA-256 checked"
    assert PORT_FILE not in world.people[0].node.listeners
    assert oct(os.stat(os.path.join(bob.folder, "photo.jpg")).st_mode & 0o111) == "0o0"
    bob.type("/accept")
    world.run()
    assert bob.told[-1] == "no file is offered"


@pytest.mark.parametrize("size", [0, 1, 65536, 65537])
def test_file_of_any_size_between_hub_and_guest(world: World, tmp_path: Any, size: int) -> None:
    hub, ann = world.people[0], world.enter("ann")
    for number, (sender, receiver) in enumerate(((hub, ann), (ann, hub))):
        path = os.path.join(str(tmp_path), f"file{number}")
        with open(path, "wb") as out:
            out.write(CONTENT[:size])
        offer(world, sender, path)
        receiver.type("/accept " + sender.room.own_name)
        world.run()
        assert receiver.files() == {f"file{number}": CONTENT[:size]}


def test_file_for_everybody_who_wants_it(world: World, file: str) -> None:
    hub = world.people[0]
    guests = [world.enter(name) for name in ("ann", "bob", "eve")]
    offer(world, guests[0], file)
    for person in (hub, *guests[1:]):
        person.type("/accept 1")
    world.run()
    assert [person.files() for person in (hub, *guests[1:])] == [{"photo.jpg": CONTENT}] * 3


def test_file_of_a_name_that_is_taken(world: World, file: str) -> None:
    """Also by a link to nowhere, which nothing is written through."""
    ann, bob = world.enter("ann"), world.enter("bob")
    os.symlink(os.path.join(bob.folder, "nowhere"), os.path.join(bob.folder, "photo.jpg"))
    for _ in range(2):
        offer(world, ann, file)
        bob.type("/accept")
        world.run()
    assert sorted(os.listdir(bob.folder)) == ["photo-1.jpg", "photo-2.jpg", "photo.jpg"]
    assert os.path.islink(os.path.join(bob.folder, "photo.jpg"))


def test_file_declined(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("bob")
    offer(world, ann, file)
    bob.type("/decline")
    world.run()
    assert ann.told[-1] == "bob does not want photo.jpg"
    assert bob.room.files.incoming == {}
    offer(world, world.people[0], file)
    bob.type("/decline 2")
    world.run()
    assert world.people[0].told[-1] == "bob does not want photo.jpg"


def test_several_offers_are_listed(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("bob")
    offer(world, ann, file)
    offer(world, ann, file)
    bob.type("/accept")
    world.run()
    assert bob.told[-1] == "which file? Give its number:\n  1  photo.jpg from ann\n  2  photo.jpg from ann"
    assert bob.files() == {}


def test_file_that_cannot_be_offered(world: World, tmp_path: Any) -> None:
    ann = world.enter("ann")
    os.mkfifo(os.path.join(str(tmp_path), "fifo"))
    for name, reason in (("absent", "No such file"), ("", "is not a file"), ("fifo", "is not a file")):
        offer(world, ann, os.path.join(str(tmp_path), name))
        assert reason in ann.told[-1]
    assert world.people[0].room.files.incoming == {}


def test_file_offered_to_nobody(world: World, file: str) -> None:
    hub = world.people[0]
    offer(world, hub, file)
    assert hub.told[-1].startswith("NOT offered: photo.jpg")
    plain = Peer(connect(hub.node, FakeNode(50)).other, "plain")
    hub.node.listeners[PORT_CHAT].arrived.append(plain.stream.other)
    world.run()
    plain.heard()
    offer(world, hub, file)
    assert hub.told[-1].startswith("NOT offered: photo.jpg")
    assert plain.heard() == []


def test_progress_is_shown(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("bob")
    offer(world, ann, file)
    bob.type("/accept")
    bob.room.turn()
    (stream,) = ann.node.listeners[PORT_FILE].arrived
    stream.room = len(CONTENT) // 2
    world.run()
    assert bob.console.prompt == "photo.jpg 50 %> "
    assert ann.console.prompt == "photo.jpg 50 %> "
    bob.type("/accept")
    world.run(1)
    assert bob.told[-1] == "photo.jpg is under way already"
    stream.room = len(CONTENT)
    world.run()
    assert bob.console.prompt == ann.console.prompt == "> "


# --- breaks ----------------------------------------------------------------------------------------------------------


def half(world: World, sender: Person, receiver: Person, path: str) -> FakeStream:
    """Bring half of a file over; return the sender's end of the stream."""
    offer(world, sender, path)
    receiver.type("/accept")
    receiver.room.turn()
    (stream,) = sender.node.listeners[PORT_FILE].arrived
    stream.room = len(CONTENT) // 2
    world.run()
    return stream


def test_file_resumed_after_a_break(world: World, file: str) -> None:
    """Only what is missing is sent again."""
    ann, bob = world.enter("ann"), world.enter("bob")
    half(world, ann, bob, file).abort()
    world.run()
    bob.node.time += constants.RETRY_SECONDS
    bob.room.turn()
    (stream,) = ann.node.listeners[PORT_FILE].arrived
    world.run()
    assert stream.written == len(CONTENT) - len(CONTENT) // 2
    assert bob.files() == {"photo.jpg": CONTENT}


def test_file_resumed_by_hand(world: World, file: str) -> None:
    """A break that lasts ends the attempt, says so, and keeps the offer."""
    ann, bob = world.enter("ann"), world.enter("bob")
    stream = half(world, ann, bob, file)
    bob.node.others = {}
    stream.abort()
    for _ in range(int(constants.RESUME_SECONDS / constants.RETRY_SECONDS) + 3):
        bob.node.time += constants.RETRY_SECONDS
        bob.room.turn()
    assert bob.told[-1] == "photo.jpg from ann: stopped at 50 %: refused; /accept goes on there"
    ann.room.turn()
    assert ann.told[-1] == "bob stopped taking photo.jpg at 50 %"
    bob.node.others = {person.node.address: person.node for person in world.people}
    bob.type("/accept")
    world.run()
    assert bob.files() == {"photo.jpg": CONTENT}


def test_file_resumed_by_a_new_program(world: World, file: str) -> None:
    """Both programs end; a new offer of the same file goes on where the old one stopped."""
    ann, bob = world.enter("ann"), world.enter("bob")
    half(world, ann, bob, file).abort()
    bob.room.files.close()
    (part,) = bob.files()
    assert part.startswith(".")
    again = world.enter("bob")
    assert again.folder == bob.folder
    offer(world, ann, file)
    again.type("/accept")
    again.room.turn()
    (stream,) = ann.node.listeners[PORT_FILE].arrived
    world.run()
    assert stream.written == len(CONTENT) - len(CONTENT) // 2
    assert again.files() == {"photo.jpg": CONTENT}


def test_download_goes_on_when_the_conversation_has_ended(world: World, file: str) -> None:
    """A file has a stream of its own."""
    ann, bob = world.enter("ann"), world.enter("bob")
    stream = half(world, ann, bob, file)
    for person in world.people:
        person.node.others.clear()
    for one in list(bob.room.chats):
        one.stream.abort()
    world.run(2)
    assert bob.room.chats == []
    stream.room = len(CONTENT)
    world.run()
    assert bob.files() == {"photo.jpg": CONTENT}


def test_file_that_changes_after_the_offer(world: World, file: str) -> None:
    """Nothing of it stays, and both are told."""
    ann, bob = world.enter("ann"), world.enter("bob")
    offer(world, ann, file)
    with open(file, "r+b") as out:
        out.write(b"changed")
    bob.type("/accept")
    world.run()
    assert bob.told[-1] == "photo.jpg from ann: refused: its SHA-256 is not the one that was said"
    assert ann.told[-1] == "bob got photo.jpg damaged"
    assert list(bob.files().values()) in ([], [b""])


def test_file_that_becomes_shorter_after_the_offer(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("bob")
    offer(world, ann, file)
    os.truncate(file, 1000)
    bob.type("/accept")
    for _ in range(40):
        world.run(2)
        bob.node.time += constants.RETRY_SECONDS
    assert "stopped at 0 %" in bob.told[-1]
    assert "photo.jpg" not in bob.files()


# --- who means no good -----------------------------------------------------------------------------------------------


class Evil:
    """A node of its own, which says to one client what it likes, and serves what it likes."""

    def __init__(self, tmp_path: Any) -> None:
        self._nodes = contextlib.ExitStack()
        self.node = self._nodes.enter_context(FakeNode(66))
        node = self._nodes.enter_context(FakeNode(2))
        self.listener = self.node.listen(PORT_FILE)
        node.others = {self.node.address: self.node}
        console: Any = FakeConsole(is_interactive=True)
        room: Any = Room(node, console, name="bob", downloads=str(tmp_path))  # type: ignore[arg-type]
        self.bob = Person(node, console, room, str(tmp_path))
        stream = connect(node, self.node)
        room.join(stream)
        self.peer = Peer(stream.other, "evil", can=CAN)
        self.turn()

    def turn(self, turns: int = 3) -> None:
        for _ in range(turns):
            self.bob.room.turn()

    def offer(self, **fields: Any) -> None:
        record = Offer(TOKEN, "photo.jpg", len(CONTENT), DIGEST)
        self.peer.say(record._replace(**fields))
        self.turn()

    def serve(self, data: bytes, *, ends: bool = True) -> FakeStream:
        """Let bob accept, and answer with these bytes."""
        self.bob.type("/accept")
        self.turn()
        stream = self.listener.arrived.popleft()
        stream.write(data)
        if ends:
            stream.finish()
        self.turn(10)
        return stream

    def close(self) -> None:
        self.bob.room.files.close()
        self._nodes.close()


@pytest.fixture
def evil(tmp_path: Any) -> Iterator[Evil]:
    evil = Evil(tmp_path)
    yield evil
    evil.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"size": -1}, {"size": 1 << 63}, {"size": 10**400}, {"token": ""}, {"token": "../../../etc/pass"},
        {"token": "0" * 17}, {"sha256": "../x"}, {"sha256": "A" * 64}, {"sha256": DIGEST + "\n"},
    ],
)  # fmt: skip
def test_offer_that_makes_no_sense(evil: Evil, fields: Dict[str, Any]) -> None:
    evil.offer(**fields)
    assert evil.bob.room.files.incoming == {}
    assert evil.bob.told[-1] == "evil offers a file in a way that makes no sense: ignored"


def test_offer_with_wrong_types(evil: Evil) -> None:
    sizes: List[Any] = ["5", None, 1.5, True, [], {}]
    for size in sizes:
        line = {"type": "offer", "token": TOKEN, "file": "x", "size": size, "sha256": DIGEST}
        evil.peer.stream.write(json.dumps(line).encode() + b"\n")
    evil.turn()
    assert evil.bob.room.files.incoming == {}
    assert evil.bob.told[-1] == "evil sent a line that cannot be read: wrong fields (and 5 more)"


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("../../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\windows\\system.ini", "system.ini"),
        ("..", "file"),
        ("", "file"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("a\0b\n\x1b]52;c;x\x07.sh", "a_b__]52_c_x_.sh"),
        ("cv\u202efdp.exe", "cv_fdp.exe"),
        ("na\u00efve \u65e5\u672c.txt", "na\u00efve \u65e5\u672c.txt"),
        ("nai\u0308ve.txt", "na\u00efve.txt"),
        ("$(reboot);`x`|y.", "_(reboot)__x__y"),
        ("x" * 300 + ".tar.gz", "x" * 193 + ".tar.gz"),
        ("x" * 150 + "." + "y" * 70, "x" * 129 + "." + "y" * 70),
        ("\u65e5" * 100 + ".txt", "\u65e5" * 65 + ".txt"),
    ],
)
def test_offered_name_is_made_safe(evil: Evil, name: str, saved: str) -> None:
    evil.offer(file=name)
    evil.serve(CONTENT)
    assert evil.bob.files() == {saved: CONTENT}
    assert not any(ord(char) < 32 for line in evil.bob.told for char in line)


def test_many_offers_are_bounded(evil: Evil) -> None:
    """By node and in all, said once."""
    for number in range(100):
        evil.offer(token=format(number, "016x"))
    assert len(evil.bob.room.files.incoming) == constants.OFFERS_PER_NODE
    for number in range(1000):
        offered = Offer(format(number, "016x"), "x", 1, DIGEST)
        evil.bob.room.files.take_offer(offered, "evil", bytes((2, 0, 0, 1, number >> 8, number & 255)))
    assert len(evil.bob.room.files.incoming) == constants.OFFERS_MAX
    assert sum("offers more files" in line for line in evil.bob.told) == 1
    evil.bob.type("/decline 1")
    evil.turn()
    assert len(evil.bob.room.files.incoming) == constants.OFFERS_MAX - 1


def test_the_same_offer_twice_is_one(evil: Evil) -> None:
    evil.offer()
    evil.offer()
    assert len(evil.bob.room.files.incoming) == 1


def test_more_than_was_said_is_refused(evil: Evil) -> None:
    evil.offer()
    stream = evil.serve(CONTENT + b"!", ends=False)
    assert evil.bob.told[-1] == "photo.jpg from evil: refused: it is longer than it was said to be"
    assert isinstance(stream.error, ConnectionResetError)
    assert all(len(data) <= len(CONTENT) for data in evil.bob.files().values())


def test_another_content_than_was_said_is_refused(evil: Evil) -> None:
    evil.offer()
    evil.serve(CONTENT[::-1])
    assert "SHA-256" in evil.bob.told[-1]
    assert sum(map(len, evil.bob.files().values())) == 0
    evil.serve(CONTENT)  # the offer stands, and a right one is taken
    assert evil.bob.files()["photo.jpg"] == CONTENT


def test_less_than_was_said_is_asked_for_a_while(evil: Evil) -> None:
    evil.offer()
    evil.serve(CONTENT[:100])
    for _ in range(40):
        evil.bob.node.time += constants.RETRY_SECONDS
        evil.turn()
        for stream in evil.listener.arrived:
            stream.finish()
    assert evil.bob.told[-1].startswith("photo.jpg from evil: stopped at 0 %: it ended early")


def test_more_than_the_disk_holds_is_refused(evil: Evil) -> None:
    evil.offer(size=1 << 62)
    evil.bob.type("/accept")
    evil.turn()
    assert evil.bob.told[-1] == f"NOT accepted: photo.jpg: not enough room on the disk in {evil.bob.folder}"
    assert not evil.listener.arrived


def test_a_link_in_place_of_the_part_is_not_followed(evil: Evil) -> None:
    target = os.path.join(evil.bob.folder, "precious")
    with open(target, "w") as out:
        out.write("mine")
    os.symlink(target, os.path.join(evil.bob.folder, f".{DIGEST[:32]}.alexchat-part"))
    evil.offer()
    evil.bob.type("/accept")
    evil.turn()
    assert evil.bob.told[-1].startswith("NOT accepted: photo.jpg")
    with open(target) as precious:
        assert precious.read() == "mine"


def test_a_full_disk_is_told_and_the_part_kept(evil: Evil, monkeypatch: Any) -> None:
    evil.offer()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        evil.serve(CONTENT)
    assert evil.bob.told[-1] == "photo.jpg from evil: stopped at 0 %: No space left on device; /accept goes on there"
    evil.serve(CONTENT)
    assert evil.bob.files()["photo.jpg"] == CONTENT


def test_a_name_that_is_always_taken(evil: Evil, monkeypatch: Any) -> None:
    monkeypatch.setattr(constants, "NAMES_TRIED", 2)
    for name in ("photo.jpg", "photo-1.jpg"):
        with open(os.path.join(evil.bob.folder, name), "w"):
            pass
    evil.offer()
    evil.serve(CONTENT)
    assert "2 files are called photo.jpg" in evil.bob.told[-1]
    assert evil.bob.files()["photo.jpg"] == b""


GET = b'{"id": "%s", "offset": 0}\n'


def fetch(world: World, sender: Person, path: str, said: bytes) -> FakeStream:
    """Offer a file; return the end of a stranger who asks so for it, `%s` being its token."""
    offer(world, sender, path)
    (token,) = sender.room.files._shared
    stream = connect(FakeNode(77), sender.node)
    sender.node.listeners[PORT_FILE].arrived.append(stream.other)
    stream.write(said.replace(b"%s", token.encode()))
    return stream


@pytest.mark.parametrize(
    "request_line",
    [
        b"\n", b"{}\n", b"[]\n", b'{"id": 1, "offset": 0}\n', b'{"id": "%s"}\n', b'{"id": "%s", "offset": -1}\n',
        b'{"id": "%s", "offset": 9999999}\n', b'{"id": "%s", "offset": true}\n', b'{"id": "unknown", "offset": 0}\n',
        b"[" * 1000 + b"\n", b"x" * 5000 + b"\n", b"\xff\xfe\n",
    ],
)  # fmt: skip
def test_fetcher_that_asks_wrongly(world: World, file: str, request_line: bytes) -> None:
    ann = world.enter("ann")
    stream = fetch(world, ann, file, request_line)
    world.run()
    assert isinstance(stream.error, ConnectionResetError)
    assert ann.room.files._uploads == []


def test_fetcher_whose_last_word_comes_just_after_a_look(world: World, file: str) -> None:
    """And with it the end of the stream: the file was not refused at 100 %."""
    ann = world.enter("ann")
    stream = fetch(world, ann, file, GET)
    world.run()
    assert stream.read(2 * len(CONTENT)) == CONTENT

    def confirm() -> None:
        stream.write(b'{"type": "got", "ok": true}\n')
        stream.finish()

    stream.other.then = confirm
    world.run()
    assert ann.told[-1].endswith("holds all of photo.jpg, SHA-256 checked")


def test_fetcher_that_holds_all_before_it_can(world: World, file: str) -> None:
    """It is not believed, and no stream of it is left over."""
    ann = world.enter("ann")
    stream = fetch(world, ann, file, GET + b'{"type": "got", "ok": true}\n')
    stream.other.room = 100
    world.run()
    assert isinstance(stream.error, ConnectionResetError)
    assert ann.told[-1].endswith("got photo.jpg damaged")


@pytest.fixture
def fetching(tmp_path: Any) -> Iterator[Tuple[FakeNode, Files, FakeStream]]:
    """A node, its files of which one of 1.5 MiB is being fetched, and the sender's end of that stream."""
    with FakeNode(1) as node, FakeNode(2) as other:
        other.listen(PORT_FILE)
        node.others = {other.address: other}
        console: Any = FakeConsole(is_interactive=True)
        kind: Any = Files
        files = kind(node, console, str(tmp_path), tell=lambda *_, **__: None, send_to=lambda *_: None)
        digest = hashlib.sha256(bytes(3 << 19)).hexdigest()
        files.take_offer(Offer("0" * 16, "a", 3 << 19, digest), "bob", other.address)
        files.accept(1)
        files.turn(str)
        yield node, files, other.listeners[PORT_FILE].arrived.popleft()
        files.close()


def test_what_is_left_after_a_turn_is_fetched_without_being_woken_up(fetching: Any) -> None:
    _, files, stream = fetching
    stream.write(bytes(3 << 19))
    stream.finish()
    files.turn(str)
    assert files._downloads[1].offset < 3 << 19
    while files.is_busy:
        files.turn(str)
    files.turn(str)  # the digest is there
    assert files._downloads == {}


def test_next_try_of_a_download_is_due_even_if_the_turn_took_long(fetching: Any) -> None:
    node, files, stream = fetching
    stream.abort()
    files.turn(str)
    node.time += constants.RETRY_SECONDS + 1
    assert files.next_deadline() <= node.time


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_disk_that_fails_at_the_end_leaves_no_empty_file(fetching: Any, failing: str, monkeypatch: Any) -> None:
    _, files, stream = fetching
    (part,) = os.listdir(files._folder)
    stream.write(bytes(3 << 19))
    stream.finish()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    while files._downloads:
        files.turn(str)
    assert os.listdir(files._folder) == [part]


def test_a_disk_that_fails_at_closing_too_ends_only_the_download(fetching: Any, monkeypatch: Any) -> None:
    _, files, stream = fetching
    close, descriptor = os.close, files._downloads[1]._descriptor

    def fail(number: int, *_: Any) -> None:
        if number == descriptor:
            raise OSError(122, "Disk quota exceeded")
        close(number)

    monkeypatch.setattr(os, "pwrite", fail)
    monkeypatch.setattr(os, "close", fail)
    stream.write(b"x")
    files.turn(str)
    assert files._downloads == {}
    close(descriptor)


def test_fetchers_that_say_nothing(world: World, file: str) -> None:
    """So many of one node, so many in all, for so long."""
    ann = world.enter("ann")
    offer(world, ann, file)
    streams = [connect(FakeNode(77 + n // 10), ann.node) for n in range(200)]
    ann.node.listeners[PORT_FILE].arrived.extend(stream.other for stream in streams)
    world.run(1)
    assert [stream.ended for stream in streams[:5]] == [False] * constants.UPLOADS_PER_NODE + [True]
    assert sum(not stream.ended for stream in streams) == constants.UPLOADS_IN_LINE
    ann.node.time += constants.REQUEST_SECONDS
    world.run(1)
    assert all(stream.ended for stream in streams)
    assert "stopped" not in "".join(ann.told)


def test_who_fetches_and_takes_nothing_goes_behind_those_that_wait(world: World, file: str) -> None:
    ann = world.enter("ann")
    offer(world, ann, file)
    (token,) = ann.room.files._shared
    streams = [connect(FakeNode(77 + n), ann.node) for n in range(constants.UPLOADS_MAX + 1)]
    for stream in streams:
        stream.other.room = 1000
        stream.write(json.dumps({"type": "get", "id": token, "offset": 0}).encode() + b"\n")
        ann.node.listeners[PORT_FILE].arrived.append(stream.other)
    world.run(2)
    assert [len(stream._arrived) for stream in streams] == [1000] * constants.UPLOADS_MAX + [0]
    assert [row[0] for row in ann.room.files.rows()] == ["goes"] * constants.UPLOADS_MAX + ["waits", "offered"]
    ann.node.time += constants.UPLOAD_STALL_SECONDS
    streams[0].other.room = 1000
    world.run(2)
    assert len(streams[-1]._arrived) == 1000
    assert len(streams[0]._arrived) == 2000


def test_who_waits_in_line_is_told_how_many_are_before(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("bob")
    offer(world, ann, file)
    (token,) = ann.room.files._shared
    streams = [connect(FakeNode(77 + n), ann.node) for n in range(constants.UPLOADS_MAX + 2)]
    for stream in streams:
        stream.other.room = 1000
        stream.write(json.dumps({"type": "get", "id": token, "offset": 0}).encode() + b"\n")
        ann.node.listeners[PORT_FILE].arrived.append(stream.other)
    world.run(2)
    bob.type("/accept")
    world.run()
    bob.type("/files")
    world.run()
    assert bob.told[-1] == "comes  photo.jpg  waits, 3 before you  from ann"
    for stream in streams[:3]:
        stream.abort()
    world.run()
    bob.type("/files")
    world.run(1)
    assert "before you" not in bob.told[-1]
    assert bob.files() == {"photo.jpg": CONTENT}


def test_reading_a_file_to_be_offered_is_shown(world: World, file: str, monkeypatch: Any) -> None:
    ann = world.enter("ann")
    monkeypatch.setattr(FakeAside, "done", False)
    ann.type(f"/send {file}", "/files")
    world.run(1)
    assert ann.told[-1] == "is read  photo.jpg  100 %  by you"
    assert ann.console.prompt == "photo.jpg is read, 100 %> "
    assert ann.room.next_deadline() <= ann.node.time + 1


def test_how_far_a_file_is_read_can_be_seen_from_outside(file: str, monkeypatch: Any) -> None:
    descriptor, seen = os.open(file, os.O_RDONLY), []
    monkeypatch.setattr(constants, "HASH_BYTES", len(CONTENT) // 2)
    read = alexstream_client.read_piece

    def look(*arguments: Any) -> bytes:
        seen.append(alexstream_client.hash_progress(descriptor, len(CONTENT)))
        return read(*arguments)

    monkeypatch.setattr(alexstream_client, "read_piece", look)
    assert alexstream_client.hash_file(os.dup(descriptor), len(CONTENT)) == DIGEST
    assert seen == ["0 %", "50 %"]
    os.close(descriptor)


def test_files_are_listed_with_rate_and_time_left_on_both_sides(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("bob")
    bob.type("/files")
    bob.room.turn()
    assert bob.told[-1] == "no files"
    stream = half(world, ann, bob, file)
    ann.node.time += 2
    bob.node.time += 2
    for person in (ann, bob):
        person.type("/files")
    world.run(1)
    rate = "640.0 kB/s, 0:02 left"
    assert bob.told[-1] == f"comes  photo.jpg  50 %, {rate}  from ann"
    assert ann.told[-1].splitlines() == [
        f"goes     photo.jpg  50 %, {rate}  to 02:00:00:00:00:03",
        "offered  photo.jpg  2.6 MB                       by you",
    ]
    assert bob.console.prompt == f"photo.jpg 50 %, {rate}> "
    stream.room = len(CONTENT)
    world.run()
    assert bob.files() == {"photo.jpg": CONTENT}


def test_offer_is_taken_back(world: World, file: str) -> None:
    """Also from who is fetching it; nobody else can have it then."""
    ann, bob, eve = world.enter("ann"), world.enter("bob"), world.enter("eve")
    half(world, ann, bob, file)
    ann.type("/unsend nothing", "/unsend photo.jpg")
    world.run()
    assert "which file of yours? /files lists them" in ann.told
    assert ann.told[-1] == "photo.jpg is offered no more"
    assert eve.told[-1] == "ann offers photo.jpg no more"
    assert ann.room.files._shared == {}
    bob.node.time += constants.RESUME_SECONDS + 1
    world.run()
    assert not bob.room.files.is_active


def test_offer_that_all_have_declined_or_got_is_over(world: World, file: str) -> None:
    ann, bob, eve = world.enter("ann"), world.enter("bob"), world.enter("eve")
    for _ in range(2 * constants.OFFERS_MAX):
        offer(world, ann, file)
        for person in (world.people[0], bob, eve):
            person.type("/decline")
        world.run()
    assert ann.room.files._shared == {}
    offer(world, ann, file)
    world.people[0].type("/decline")
    bob.type("/accept")
    eve.room.leave()
    world.run(30)
    assert bob.files() == {"photo.jpg": CONTENT}
    assert ann.room.files._shared == {}


def test_leaving_with_an_offer_that_nobody_waits_for(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("bob")
    offer(world, ann, file)
    for person in (world.people[0], bob):
        person.room.files.decline(1)
    ann.room.files._wanted_by[next(iter(ann.room.files._shared))].clear()
    ann.room.leave()
    world.run()
    assert ann.room.files._shared == {}


def test_nothing_is_left_of_what_is_declined(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("bob")
    half(world, ann, bob, file)
    assert len(bob.files()) == 1
    bob.type("/decline")
    world.run()
    assert bob.files() == {}


def test_part_begun_by_another_is_no_reason_to_blame_who_sends_the_rest(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("bob")
    bob.console.as_json = True
    with open(os.path.join(bob.folder, f".{DIGEST[:32]}.alexchat-part"), "wb") as part:
        part.write(b"wrong" * 1000)
    offer(world, ann, file)
    bob.type("/accept")
    world.run(30)
    assert "photo.jpg from ann: its beginning, from an earlier try, was damaged: once more from the start" in bob.told
    assert [event["type"] for event in bob.console.events][-3:] == ["file offered", "file accepted", "file finished"]
    assert bob.files() == {"photo.jpg": CONTENT}


def test_file_that_has_become_shorter_is_told_once_and_offered_no_more(world: World, file: str) -> None:
    people = [world.enter("ann"), world.enter("bob"), world.enter("eve")]
    ann = people[0]
    streams = [half(world, ann, people[1], file)]
    people[2].type("/accept")
    world.run(1)
    os.truncate(file, 1000)
    streams[0].room = len(CONTENT)
    world.run(30)
    assert sum("has become shorter" in line for line in ann.told) == 1
    assert ann.room.files._shared == {}


def test_file_names_as_people_give_them(world: World, tmp_path: Any) -> None:
    """Plain, quoted, as they are dragged into a terminal; and those that are no files."""
    ann = world.enter("ann")
    path = tmp_path / "my photo.jpg"
    path.write_bytes(b"x")
    for typed in (str(path), f"'{path}'", f'"{path}"', str(path).replace(" ", "\\ ")):
        offer(world, ann, typed)
        assert ann.told[-1] == "offered my photo.jpg (1 bytes); it goes to who accepts it"
    ann.type("/send", "/send /proc/cpuinfo", "/send 'my")
    world.run()
    assert ann.told[-3:] == [
        "usage: /send PATH", "/proc/cpuinfo is not a file of a known size", "'my: No such file or directory",
    ]  # fmt: skip


def test_number_in_the_list_goes_before_a_person_called_so(world: World, file: str) -> None:
    ann, bob = world.enter("ann"), world.enter("2")
    offer(world, ann, file)
    offer(world, bob, file)
    world.people[0].type("/accept 1")
    world.run(30)
    assert world.people[0].files() == {"photo.jpg": CONTENT}
    assert list(world.people[0].room.files.incoming) == [2]


def test_own_offers_are_bounded(world: World, file: str) -> None:
    ann = world.enter("ann")
    ann.type(*["/send " + file] * (constants.OFFERS_MAX + 1))
    world.run(constants.OFFERS_MAX * 4)
    assert f"{constants.OFFERS_MAX} files are offered already" in ann.told
    assert len(world.people[0].room.files.incoming) == constants.OFFERS_PER_NODE


def test_decline_of_a_file_that_is_not_ours(world: World) -> None:
    ann = world.enter("ann")
    before = list(ann.told)
    world.people[0].room.chats[0].put(Decline("f" * 16))
    world.run()
    assert ann.told == before


def test_nothing_stays_open(tmp_path: Any, file: str) -> None:
    before = sorted(os.listdir("/dev/fd"))
    world = World(os.path.join(str(tmp_path), "w"))
    world.enter("hub")
    ann, bob = world.enter("ann"), world.enter("bob")
    half(world, ann, bob, file)
    world.close()
    assert sorted(os.listdir("/dev/fd")) == before
