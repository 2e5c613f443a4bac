"""Secret streams: the channel in memory against whoever changes its bytes, and nodes on memory links."""

import contextlib
import os
import pathlib
import random
import ssl
import subprocess
import sys
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from company import SECONDS, current
from test_node import Pair, impatience as impatience, in_company as in_company, next_event

import constants as c
from alexstream import _SECRET_FRAME, Channel
from alexstream_client import OPENSSL, NotAHolderError, Secret, SecretStream, use_secret
from node import SetupError, StrangerRefused, Stream, describe_event, format_ports

ANN, BOB, EVE = (bytes([2, 0, 0, 0, 0, number]) for number in (1, 2, 3))
SERVICE = 2
NO_SECRET = "does not hold this secret"


@pytest.fixture(scope="module")
def files(tmp_path_factory: Any) -> Dict[str, str]:
    """Two secrets, made by the command that is printed."""
    folder = tmp_path_factory.mktemp("secrets")
    found = {name: str(folder / (name + ".pem")) for name in ("team", "other")}
    for path in found.values():
        subprocess.check_call(["sh", "-c", OPENSSL.format(path)], stderr=subprocess.DEVNULL)
        assert os.stat(path).st_mode & 0o777 == 0o600
    return found


@pytest.fixture(scope="module")
def team(files: Dict[str, str]) -> Secret:
    return Secret(files["team"])


Change = Callable[[bytes], bytes]


class Link:
    """Two ends of a channel, and whoever sits between them."""

    def __init__(self, opener: Secret, other: Secret, **names: Any) -> None:
        self.ann = Channel(opener, opener=True, own=ANN, peer=names.get("called", BOB), port=names.get("port", SERVICE))
        self.bob = Channel(other, opener=False, own=BOB, peer=names.get("caller", ANN), port=SERVICE)
        self.got: Dict[str, bytes] = {"ann": b"", "bob": b""}
        self.sent: Dict[str, List[bytes]] = {"ann": [], "bob": []}  # what went out, from each

    def run(self, *, piece: int = 1 << 20, to_ann: Change = bytes, to_bob: Change = bytes) -> None:
        """Carry bytes in pieces of that size, as somebody changes them, until nobody says anything."""
        self.got["ann"] += self.ann.receive(b"")
        for _ in range(1000):
            there, back = self.ann.take(), self.bob.take()
            self.sent["ann"].append(there)
            self.sent["bob"].append(back)
            if not there and not back:
                return
            for data, end, name in ((to_bob(there), self.bob, "bob"), (to_ann(back), self.ann, "ann")):
                for at in range(0, len(data), piece):
                    self.got[name] += end.receive(data[at : at + piece])
        raise AssertionError("they never stop")

    @property
    def faults(self) -> Tuple[str, str]:
        return self.ann.fault, self.bob.fault


@pytest.fixture
def link(team: Secret) -> Link:
    """Two who have proved themselves to each other."""
    link = Link(team, team)
    link.run()
    assert link.ann.is_verified
    assert link.bob.is_verified
    return link


# --- The channel -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100, 1500, 1 << 20])
def test_bytes_arrive_with_receipts_and_ends_however_they_are_cut(team: Secret, piece: int) -> None:
    link = Link(team, team)
    link.run(piece=piece)
    link.ann.write(b"hello")
    link.ann.write(bytes(c.SECRET_FRAME_BYTES))
    link.run(piece=piece)
    assert link.got == {"ann": b"", "bob": b"hello" + bytes(c.SECRET_FRAME_BYTES)}
    assert link.ann.delivered == 0
    link.bob.on_taken(5)
    link.bob.acknowledge()
    link.run(piece=piece)
    assert link.ann.delivered == 5
    link.ann.finish()
    link.run(piece=piece)
    assert (link.bob.at_end, link.bob.is_over, link.ann.at_end) == (True, False, False)
    link.bob.write(b"still talking")
    link.bob.finish()
    link.bob.on_taken(c.SECRET_FRAME_BYTES + 1)
    link.bob.acknowledge()
    link.run(piece=piece)
    link.ann.on_taken(len(b"still talking") + 1)
    link.ann.acknowledge()
    link.run(piece=piece)
    assert link.got["ann"] == b"still talking"
    assert (link.ann.is_over, link.bob.is_over) == (True, True)
    assert link.faults == ("", "")


def test_holders_of_different_secrets_refuse_each_other(files: Dict[str, str]) -> None:
    for one, two in (("team", "other"), ("other", "team")):
        link = Link(Secret(files[one]), Secret(files[two]))
        link.run()
        assert link.faults == (NO_SECRET, NO_SECRET)
        assert (link.ann.is_verified, link.bob.is_verified) == (False, False)


def test_a_caller_without_a_certificate_is_refused(team: Secret) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = context.wrap_bio(incoming, outgoing)
    bob = Channel(team, opener=False, own=BOB, peer=ANN, port=SERVICE)
    for _ in range(10):
        with contextlib.suppress(ssl.SSLError):
            client.do_handshake()
        bob.receive(outgoing.read())
        incoming.write(bob.take())
    assert bob.fault
    assert not bob.is_verified


@pytest.mark.parametrize("opener", [True, False])
@pytest.mark.parametrize("said", [b"plain text\n", b"\x16\x03\x01\xff\xff" + bytes(70000), b"GET / HTTP/1.0\r\n\r\n"])
def test_what_is_no_tls_is_refused(team: Secret, opener: bool, said: bytes) -> None:
    end = Channel(team, opener=opener, own=BOB, peer=ANN, port=SERVICE)
    end.receive(b"")
    assert end.receive(said) == b""
    assert end.fault.startswith("is no holder of the secret, or somebody meddles")


def test_our_certificate_with_another_key_is_no_secret(files: Dict[str, str], tmp_path: Any) -> None:
    """It can be had from any conversation of TLS 1.2; no TLS library lets it be used without its key."""
    texts = [pathlib.Path(files[name]).read_text() for name in ("team", "other")]
    mark = "-----BEGIN CERTIFICATE-----"
    mixed = tmp_path / "mixed.pem"
    mixed.write_text(texts[1][: texts[1].index(mark)] + texts[0][texts[0].index(mark) :])
    with pytest.raises(ssl.SSLError):
        Secret(str(mixed))


def test_a_man_in_the_middle_with_another_secret_is_refused_by_both(files: Dict[str, str]) -> None:
    team, own = Secret(files["team"]), Secret(files["other"])
    for link in (Link(team, own), Link(own, team)):
        link.run()
        assert link.faults == (NO_SECRET, NO_SECRET)


def test_a_recorded_conversation_replayed_to_either_side_is_refused(team: Secret, link: Link) -> None:
    link.ann.write(b"the key is under the mat")
    link.run()
    for name, opener in (("ann", False), ("bob", True)):
        again = Channel(team, opener=opener, own=BOB, peer=ANN, port=SERVICE)
        got = again.receive(b"")
        for data in link.sent[name]:
            got += again.receive(data)
        assert got == b""
        assert not again.is_verified
        assert again.fault or name == "ann"  # of a whole recording the callee lacks the answer to its own challenge


def records(data: bytes) -> List[bytes]:
    """The TLS records in a piece of a stream."""
    found = []
    while data:
        size = 5 + int.from_bytes(data[3:5], "big")
        found.append(data[:size])
        data = data[size:]
    return found


MEDDLINGS: Dict[str, Callable[[List[bytes], int], List[bytes]]] = {
    "repeated": lambda found, at: [*found[: at + 1], *found[at:]],
    "changed": lambda found, at: [*found[:at], found[at][:-1] + bytes([found[at][-1] ^ 1]), *found[at + 1 :]],
    "cut": lambda found, at: [*found[:at], found[at][:-1], *found[at + 1 :]],
    "left out": lambda found, at: [*found[:at], *found[at + 1 :]],
    "swapped": lambda found, at: [*found[:at], *reversed(found[at : at + 2]), *found[at + 2 :]],
    "injected": lambda found, at: [*found[:at], b"\x17\x03\x03\x00\x20" + bytes(32), *found[at:]],
}


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("meddling", MEDDLINGS)
def test_no_byte_of_a_record_that_somebody_meddled_with_is_believed(team: Secret, meddling: str, at: int) -> None:
    link = Link(team, team)
    link.run()
    lines = [b"one\n", b"two\n", b"three\n", b"four\n", b"five\n", b"six\n"]
    for line in lines:
        link.ann.write(line)
    link.run(to_bob=lambda data: b"".join(MEDDLINGS[meddling](records(data), at)) if data else data)
    assert link.got["bob"] == b"".join(lines[:at]) + lines[at] * (meddling == "repeated")
    assert link.bob.fault.endswith("what came was not sent by a holder of the secret")
    assert link.ann.delivered == 0


def test_a_flipped_bit_anywhere_in_the_handshake_lets_nobody_in(team: Secret) -> None:
    rng = random.Random(1)
    is_done: List[int] = []

    def flip(data: bytes) -> bytes:
        if not data or is_done or rng.random() < 0.5:
            return data
        is_done.append(1)
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]

    refused = 0
    for number in range(60):
        link = Link(team, team)
        del is_done[:]
        link.run(to_ann=flip) if number % 2 else link.run(to_bob=flip)
        for end in (link.ann, link.bob):
            if end.is_verified and not end.fault:
                end.write(b"secret")
        link.run()
        assert set(link.got.values()) <= ({b""} if any(link.faults) else {b"secret"})
        refused += any(link.faults)
    assert refused > 30


@pytest.mark.parametrize("names", [{"called": EVE}, {"caller": EVE}, {"port": SERVICE + 1}])
def test_a_stream_led_to_another_member_name_or_service_is_refused(team: Secret, names: Dict[str, Any]) -> None:
    link = Link(team, team, **names)
    link.run()
    assert link.bob.fault == "holds this secret, but is another one than was called"
    assert not link.bob.is_verified
    assert not link.ann.is_verified


def test_what_is_reflected_to_its_sender_is_refused(team: Secret) -> None:
    ann = Channel(team, opener=True, own=ANN, peer=BOB, port=SERVICE)
    for _ in range(10):
        ann.receive(ann.take())
    assert ann.fault
    twin = Link(team, team, called=ANN, caller=ANN)  # led back to a second stream of its own
    twin.run()
    assert twin.bob.fault == "holds this secret, but is another one than was called"


@pytest.mark.parametrize(
    ("count", "taken"), [(0, 6), (0, 2), (c.SECRET_FRAME_BYTES + 1, 5), (0xFFFFFFFE, 5), (0, 1 << 63)]
)
def test_a_member_that_lies_about_what_it_took_is_refused(link: Link, count: int, taken: int) -> None:
    """More than was written, less than before, or frames that are too long."""
    link.ann.write(b"hello")
    link.run()
    link.bob.on_taken(5)
    link.bob.acknowledge()
    link.run()
    link.bob._tls.write(_SECRET_FRAME.pack(count, taken))
    link.run()
    assert link.ann.fault == "breaks the protocol"
    assert link.ann.delivered == 5


def test_what_comes_after_a_frame_that_breaks_the_protocol_is_not_shown(link: Link) -> None:
    frames = [_SECRET_FRAME.pack(count, 0) + b"before" for count in (6, 0xFFFFFFFE, 6)]
    link.bob._tls.write(b"".join(frames))
    link.run()
    assert link.ann.fault == "breaks the protocol"
    assert link.got["ann"] == b"before"


def test_a_receipt_is_said_once_and_only_if_something_was_taken(link: Link) -> None:
    link.ann.write(b"hello")
    link.run()
    link.bob.acknowledge()
    assert link.bob.take() == b""
    link.bob.on_taken(5)
    link.bob.acknowledge()
    assert link.bob.take() != b""
    link.bob.acknowledge()
    assert link.bob.take() == b""


def test_nothing_comes_after_the_end(link: Link) -> None:
    link.ann.finish()
    link.ann.write(b"more")
    link.run()
    assert link.got["bob"] == b""
    assert link.bob.fault == "breaks the protocol"
    link.ann.write(b"and more")
    assert link.bob.receive(link.ann.take()) == b""


def test_the_end_of_tls_is_not_that_of_the_stream(link: Link) -> None:
    link.ann.write(b"half a f")
    with contextlib.suppress(ssl.SSLError):
        link.ann._tls.unwrap()
    link.run()
    assert link.got["bob"] == b"half a f"
    assert (link.bob.at_end, link.bob.fault) == (False, "ended TLS without ending the stream")


# --- The file --------------------------------------------------------------------------------------------------------


def told(path: str) -> str:
    with pytest.raises(SetupError) as caught:
        use_secret(None, path, is_quiet=True)  # type: ignore[arg-type]
    return str(caught.value)


def test_files_that_are_no_secret_are_told_with_the_next_command(files: Dict[str, str], tmp_path: Any) -> None:
    missing = str(tmp_path / "my team.pem")
    said = told(missing)
    assert said.startswith(f"--secret '{missing}': No such file or directory; to make one: ")
    subprocess.check_call(["sh", "-c", said.split("to make one: ")[1]], stderr=subprocess.DEVNULL)
    assert len(Secret(missing).fingerprint) == 9
    os.chmod(missing, 0o640)
    assert told(missing) == f"--secret '{missing}': others may read it: chmod 600 '{missing}'"
    team = pathlib.Path(files["team"]).read_text()
    for content in ("", "nonsense", team[:-100]):
        (tmp_path / "bad.pem").write_text(content)
        (tmp_path / "bad.pem").chmod(0o600)
        assert "not a key without passphrase and its certificate" in told(str(tmp_path / "bad.pem"))
    assert "not a key and a certificate" in told(str(tmp_path))
    command = ["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", files["team"]]
    locked = subprocess.check_output(command, stderr=subprocess.DEVNULL).decode()
    (tmp_path / "bad.pem").write_text(locked + team.partition("-----END PRIVATE KEY-----\n")[2])
    assert "not a key without passphrase" in told(str(tmp_path / "bad.pem"))


def test_without_a_secret_tls_is_not_even_loaded() -> None:
    body = "import sys; import alexchat_server; sys.exit('ssl' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", body], cwd=os.path.dirname(use_secret.__code__.co_filename)) == 0


# --- Streams ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(files: Dict[str, str]) -> Iterator[Pair]:
    """Two nodes whose streams are secret."""
    pair = Pair()
    for node in pair.nodes:
        node.shows_texts = True
        use_secret(node, files["team"], is_quiet=True)
    with pair.nodes[0], pair.nodes[1]:
        yield pair


def test_a_secret_stream_is_a_file_as_others_are(pair: Pair) -> None:
    near, far = pair.connect()
    assert isinstance(near, SecretStream)
    near.write(b"one line\n" + bytes(300000))
    assert far.readline() == b"one line\n"
    assert near.delivered < near.written == 300009
    rest = current().in_thread(far.readall)
    near.finish()
    assert rest() == bytes(300000)
    near.drain(SECONDS)
    assert (near.delivered, near.drained) == (300009, True)
    far.write(b"answer")
    far.finish()
    assert near.read() == b"answer"
    current().until(lambda: near.ended and far.ended)
    assert (near.error, far.error) == (None, None)


def test_many_bytes_both_ways_at_once_arrive_exactly(pair: Pair) -> None:
    near, far = pair.connect()
    data = [os.urandom(3000000) for _ in range(2)]
    got = [bytearray(), bytearray()]
    sent = [0, 0]
    near.setblocking(False)
    far.setblocking(False)

    def move() -> bool:
        for number, (writer, reader) in enumerate(((near, far), (far, near))):
            sent[number] += writer.write(data[number][sent[number] :]) or 0
            got[number] += reader.read(40009 + 99999 * number) or b""
        return [len(part) for part in got] == [3000000] * 2

    current().until(move)
    assert [bytes(part) for part in got] == data


def test_who_reads_nothing_bounds_what_is_taken_for_it(pair: Pair) -> None:
    near, far = pair.connect()
    near.setblocking(False)
    total, idle = 0, 0
    while idle < 50:
        taken = near.write(bytes(65536)) or 0
        total, idle = total + taken, 0 if taken else idle + 1
        current().pause(0.005)
    assert isinstance(far, SecretStream)
    assert len(far._unread) <= c.SECRET_UNREAD_BYTES + c.SECRET_FRAME_BYTES
    assert total < 8 * c.BUFFER_BYTES


def test_who_reads_slowly_says_so_before_it_has_read_all(pair: Pair) -> None:
    near, far = pair.connect()
    near.setblocking(False)
    far.setblocking(False)
    total = 0
    while total < 200000:
        total += near.write(bytes(200000 - total)) or 0
        current().pause(0.005)
    assert isinstance(far, SecretStream)
    current().until(lambda: len(far._unread) == 200000)
    taken = sum(len(far.read(20000) or b"") for _ in range(5))
    assert far._unread
    current().until(lambda: 65536 <= near.delivered <= taken)


def test_a_stream_that_ends_without_the_end_inside_was_cut_off(pair: Pair) -> None:
    near, far = pair.connect()
    near.write(b"half a f")
    assert far.read(100) == b"half a f"
    near._session.finish()  # as an outsider can
    with pytest.raises(NotAHolderError, match="was cut off before its end"):
        far.read(100)


def test_a_peer_that_restarts_is_told_as_elsewhere(pair: Pair) -> None:
    near, far = pair.connect()
    far.abort()
    current().until(lambda: near.ended)
    assert "reset by peer" in str(near.error)
    assert not near.restarted


def test_holders_of_another_secret_and_callers_without_one_are_refused_and_told(
    pair: Pair, files: Dict[str, str]
) -> None:
    one, two = pair.nodes
    stranger: Any = one
    for path, why in ((files["other"], "does not hold this secret"), (None, "refused")):
        stranger.port_bit, stranger.make_stream = 0, Stream
        if path:
            use_secret(stranger, path, is_quiet=True)
        with two.listen(2) as listener:
            with pytest.raises(ConnectionError, match=why):
                one.connect(two.address, 2, timeout=SECONDS)
            assert listener.accept(timeout=0) is None
    event = next_event(two, StrangerRefused)
    assert describe_event(event) == f"REFUSED: 02:00:00:00:00:01 {NO_SECRET}"


def test_the_port_of_a_secret_service_is_shown_as_its_own(pair: Pair) -> None:
    one, two = pair.nodes
    with two.listen(1):
        ports = one.echo(two.address, timeout=SECONDS).ports
    assert ports == (1 | c.PORT_SECRET,)
    assert format_ports(ports) == "1 (secret)"
    assert format_ports(()) == "-"


def test_a_thousand_callers_that_never_prove_themselves_keep_no_member_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("constants.PROOF_SECONDS", 0.5)
    one, two = pair.nodes
    with two.listen(2) as listener:
        streams = []
        for number in range(1000):
            session = one._endpoint.connect(two.address, 2 | c.PORT_SECRET, now=one.now()) if number % 50 else None
            if session is not None:
                streams.append(session)
            else:
                current().until(lambda: sum(each.closed is None for each in streams) <= c.UNPROVEN_PER_NODE)
                member = one.connect(two.address, 2, timeout=SECONDS)
                accepted = listener.accept(timeout=SECONDS)
                assert accepted is not None
                member.write(b"hello")
                assert accepted.read(5) == b"hello"
                member.abort()
                accepted.abort()
            assert len(two._unproven) <= c.UNPROVEN_PER_NODE
            if len(one._endpoint.sessions) > 900:
                break
        current().until(lambda: not two._unproven)
        assert listener.accept(timeout=0) is None
    assert describe_event(next_event(two, StrangerRefused)).endswith("has not proved in time that it holds this secret")
