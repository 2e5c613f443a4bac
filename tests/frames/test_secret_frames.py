"""What a man in the middle achieves without --secret, and not with it: on real frames."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from lab import Host, Lab, Program, RawPort
from test_real_frames import ETHERTYPE, address_of, lab as lab_fixture, start

import constants as c
from alexstream import Segment, SegmentError, decode_segment, encode_segment
from alexstream_client import OPENSSL
from protocol import FrameError, decode_frame, encode_frame

pytestmark = pytest.mark.root
lab = lab_fixture
PYTHON = [sys.executable, "-bb"]
HEADER = c.ETHERNET_HEADER_BYTES
Meddling = Callable[["Mallory", int, Segment], List[Tuple[int, Segment]]]


@pytest.fixture(scope="module")
def secret(tmp_path_factory: Any) -> str:
    """A file, made by the command that is printed."""
    path = str(tmp_path_factory.mktemp("secret") / "team.pem")
    subprocess.check_call(["sh", "-c", OPENSSL.format(path)], stderr=subprocess.DEVNULL)
    return path


class Mallory:
    """A machine between two others, which passes every frame on, but for segments: of those what `meddle` returns."""

    def __init__(self, host: Host, meddle: Meddling) -> None:
        self._ports = [RawPort(port, ETHERTYPE) for port in host.ports]
        self._meddle = meddle
        self._ends = False
        self.last: Dict[int, Segment] = {}  # from each side
        self.meddled = 0
        self.is_armed = False  # the two have come together
        self._threads = [threading.Thread(target=self._pass_on, args=(side,), daemon=True) for side in (0, 1)]
        for thread in self._threads:
            thread.start()

    def _pass_on(self, side: int) -> None:
        while not self._ends:
            frame = self._ports[side].receive(0.1)
            if frame is None:
                continue
            try:
                mesh = decode_frame(frame[HEADER:])
                segment = decode_segment(mesh.payload, mesh.origin, mesh.dest)
            except (FrameError, SegmentError):
                self._ports[1 - side].send(frame, padded=False)
                continue
            for toward, said in self._meddle(self, side, segment):
                origin, dest = (mesh.origin, mesh.dest) if toward != side else (mesh.dest, mesh.origin)
                ethernet = frame[:HEADER] if toward != side else frame[6:12] + frame[:6] + frame[12:HEADER]
                changed = mesh._replace(origin=origin, dest=dest, payload=encode_segment(said, origin, dest))
                self._ports[toward].send(ethernet + encode_frame(changed), padded=False)
            self.last[side] = segment

    def close(self) -> None:
        """Let the cable be dead."""
        self._ends = True
        for thread in self._threads:
            thread.join()
        for port in self._ports:
            port.close()


def change_the_sum(mallory: Mallory, side: int, segment: Segment) -> List[Tuple[int, Segment]]:
    """Where a line of text goes by, its numbers become others."""
    if b"100" in segment.payload:
        mallory.meddled += 1
    return [(1 - side, segment._replace(payload=segment.payload.replace(b"100", b"900")))]


def change_a_byte(mallory: Mallory, side: int, segment: Segment) -> List[Tuple[int, Segment]]:
    """The last byte of whatever one says."""
    if mallory.is_armed and side == 0 and segment.payload:
        mallory.meddled += 1
        segment = segment._replace(payload=segment.payload[:-1] + bytes([segment.payload[-1] ^ 1]))
    return [(1 - side, segment)]


def swallow_and_acknowledge(mallory: Mallory, side: int, segment: Segment) -> List[Tuple[int, Segment]]:
    """What is said does not arrive, and its sender is told that it did."""
    known = mallory.last.get(1 - side)
    if mallory.is_armed and side == 0 and segment.payload and known is not None:
        mallory.meddled += 1
        stop = (segment.seq + len(segment.payload)) & 0xFFFFFFFF
        ts = (known.ts + 1) & 0xFFFFFFFF
        flags = known.flags & ~(c.FLAG_DATA | c.FLAG_FIN | c.FLAG_PUSH)
        return [(side, known._replace(flags=flags, ack=stop, ts=ts, echo=segment.ts, payload=b"", sacks=()))]
    return [(1 - side, segment)]


@pytest.fixture
def meddling(lab: Lab) -> Iterator[Callable[[Meddling], Tuple[Host, Host, Mallory]]]:
    """Start the man in the middle; return the machines on both sides of him."""
    ended: List[Mallory] = []

    def begin(meddle: Meddling) -> Tuple[Host, Host, Mallory]:
        left, middle, right = lab.line(3)
        ended.append(Mallory(middle, meddle))
        return left, right, ended[0]

    yield begin
    for mallory in ended:
        mallory.close()


def talk(meddled: Tuple[Host, Host, Mallory], options: List[str]) -> Tuple[Program, Program]:
    """Ann, who speaks through a pipe, and bob in whose room she is; both tell programs what happens."""
    left, right, mallory = meddled
    bob = start(right, "alexchat_server.py", "eth0", "--name", "bob", "--json", *options)
    ann = start(left, "alexchat_client.py", "eth0", address_of(bob), "--name", "ann", "--json", *options)
    bob.expect('"type": "joined", "name": "ann"', timeout=20)
    ann.expect('"type": "joined", "name": "bob"', timeout=20)
    mallory.is_armed = True
    return ann, bob


def test_without_a_secret_the_man_in_the_middle_says_what_he_likes(meddling: Any) -> None:
    place = meddling(change_the_sum)
    ann, bob = talk(place, [])
    ann.send("pay him 100\n")
    bob.expect('"text": "pay him 900"')
    ann.expect('"type": "delivered".*"text": "pay him 100"')
    assert place[2].meddled


def test_with_a_secret_nothing_of_what_he_changed_is_shown(meddling: Any, secret: str) -> None:
    place = meddling(change_a_byte)
    ann, bob = talk(place, ["--secret", secret])
    ann.send("pay him 100\n")
    bob.expect('"type": "lost".*what came was not sent by a holder of the secret', timeout=20)
    assert place[2].meddled
    assert '"type": "line"' not in bob.out
    assert '"type": "delivered"' not in ann.out


def test_without_a_secret_he_makes_lines_disappear_that_are_delivered(meddling: Any) -> None:
    place = meddling(swallow_and_acknowledge)
    ann, bob = talk(place, [])
    ann.send("pay him 100\n")
    ann.expect('"type": "delivered".*"text": "pay him 100"')
    assert place[2].meddled
    assert '"type": "line"' not in bob.out


def test_with_a_secret_what_disappears_is_not_called_delivered(meddling: Any, secret: str) -> None:
    place = meddling(swallow_and_acknowledge)
    ann, bob = talk(place, ["--secret", secret])
    ann.send("pay him 100\npay him 200\n")
    while not place[2].meddled:
        time.sleep(0.01)
    ann.signal(signal.SIGTERM)
    ann.expect('"type": "not delivered", "id": 1, "text": "pay him 100"', timeout=20)
    assert place[2].meddled
    assert '"type": "line"' not in bob.out
    assert '"type": "delivered"' not in ann.out


def test_a_secret_room_of_three_and_what_a_capture_of_it_holds(lab: Lab, secret: str, tmp_path: Any) -> None:
    """Names stand in it, lines and files do not; who has another secret, or none, stays outside and is told why."""
    hosts = lab.bridge(4)
    pcap = tmp_path / "room.pcap"
    ann = start(hosts[0], "alexchat_server.py", "eth0", "--name", "annabella", "--secret", secret, "--pcap", str(pcap))
    ann.expect(r"^alexmesh: secret: only holders of .*team.pem \(fingerprint \w{4}-\w{4}\)$", where="err")
    others = [
        start(hosts[number], "alexchat_client.py", "eth0", "--name", name, "--secret", secret)
        for number, name in ((1, "bartholomew"), (2, "carolina"))
    ]
    for one in (ann, *others):
        one.expect("^(bartholomew|annabella) .*is here$", where="err", timeout=20)
        one.expect("^(carolina|annabella) .*is here$", where="err", timeout=20)
    others[0].expect("^carolina .*is here$", where="err", timeout=20)
    others[0].send("meet me at the old mill\n")
    for one in (ann, others[1]):
        one.expect("^bartholomew: meet me at the old mill$")
    address = address_of(ann)
    plain = hosts[3].start([*PYTHON, "alexchat_client.py", "eth0", address])
    plain.close_stdin()
    assert plain.wait(20) == 1
    assert "it is for holders of a secret (--secret)" in plain.err
    other = str(tmp_path / "other.pem")
    subprocess.check_call(["sh", "-c", OPENSSL.format(other)], stderr=subprocess.DEVNULL)
    stranger = hosts[3].start([*PYTHON, "alexchat_client.py", "eth0", address, "--secret", other])
    stranger.close_stdin()
    assert stranger.wait(20) == 1
    assert stranger.err.splitlines()[-1] == f"alexchat_client.py: {address} does not hold this secret"
    ann.expect("^REFUSED: [0-9a-f:]{17} does not hold this secret$", where="err")
    message = hosts[3].start([*PYTHON, "send_message.py", "eth0", address, "I am carolina"])
    assert message.wait(20) == 0
    ann.expect("^NOT SECRET, may be anybody: message from [0-9a-f:]{17}: I am carolina$", where="err")
    for one in (*others, ann):
        one.signal(signal.SIGTERM)
        one.wait(20)
    data = pcap.read_bytes()
    assert b"annabella" in data
    assert b"carolina" in data
    assert b"old mill" not in data


def test_a_secret_file_in_a_chat(lab: Lab, secret: str, tmp_path: Any) -> None:
    left, right = lab.line(2)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(os.urandom(2000000))
    folder = tmp_path / "got"
    folder.mkdir()
    words = ["--no-timestamps", "--secret", secret]
    bob = right.terminal([*PYTHON, "alexchat_server.py", "eth0", "--name", "bob", "--downloads", str(folder), *words])
    bob.expect("the room is open", timeout=20)
    ann = left.terminal([*PYTHON, "alexchat_client.py", "eth0", "--name", "ann", *words])
    ann.expect("bob .*is here", timeout=20)
    ann.type("hello")
    bob.expect("^ann: hello$")
    ann.expect("^✓ ann: hello$|^[+] ann: hello$")
    ann.type(f"/send {photo}")
    bob.expect("ann offers photo.jpg", timeout=20)
    bob.type("/accept")
    bob.expect("photo.jpg from ann: received, 2.0 MB, SHA-256 checked", timeout=30)
    assert (folder / "photo.jpg").read_bytes() == photo.read_bytes()
    ann.type("exit")
    bob.expect("^-- ann left$")
    assert ann.wait() == 0
