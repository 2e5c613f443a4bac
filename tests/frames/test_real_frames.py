"""The programs as a user runs them, on real Ethernet frames in network namespaces (root, Linux).

Skipped where that is not possible; with ALEXCHAT_ROOT_TESTS=required (as .ci/run sets it) it fails instead.
ALEXCHAT_MEGABYTES is the size of the file that is sent (20), ALEXCHAT_STOP_SECONDS how long a process is stopped (1).
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import struct
import sys
import tempfile
import termios
import threading
import time
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import pytest
import v1
from lab import Host, Lab, Program, RawPort, Terminal, call
from paths import ROOT

pytestmark = pytest.mark.root

ETHERTYPE = 0x88B5
V1_NODE = b"\x06\0\0\0\0\x99"
ADDRESS = r"((?:[0-9a-f]{2}:){5}[0-9a-f]{2})"
MEGABYTES = int(os.environ.get("ALEXCHAT_MEGABYTES", "20"))
STOP_SECONDS = float(os.environ.get("ALEXCHAT_STOP_SECONDS", "1"))
SCRIPTS = (
    "node.py",
    "send_handshake.py",
    "send_message.py",
    "alexstream_client.py",
    "alexstream_server.py",
    "alexchat_client.py",
    "alexchat_server.py",
)


def hindrance() -> str:
    """Why these tests cannot run here; empty when they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid():
        return "network namespaces need root"
    absent = [tool for tool in ("ip", "nft", "tmux", "setpriv") if shutil.which(tool) is None]
    return "not installed: " + " ".join(absent) if absent else ""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab; at the end no program may have shown a traceback, or coloured anything in a pipe."""
    reason = hindrance()
    if reason and os.environ.get("ALEXCHAT_ROOT_TESTS") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with Lab() as lab:
        yield lab
        shown = [str(program) for program in lab.programs] + [terminal.screen() for terminal in lab.terminals]
        assert not re.search("Traceback|Warning|internal error", "\n".join(shown)), "\n".join(shown)
        for program in lab.programs:  # into pipes
            is_stream = any("alexstream" in word for word in program.argv)  # whose data is whatever was sent
            assert not re.search("[\r\x1b]", program.err + program.out * (not is_stream)), str(program)


@pytest.fixture
def pair(lab: Lab) -> Tuple[Host, Host]:
    """Two machines on one cable."""
    left, right = lab.line(2)
    return left, right


@pytest.fixture(params=["cable", "lo"])
def two_places(request: Any, lab: Lab) -> "Places":
    """Where a client and a server run: on two machines, or both on one machine's `lo`."""
    if request.param == "cable":
        left, right = lab.line(2)
        return Places(left, right, "eth0")
    only = lab.host()
    return Places(only, only, "lo")


class Places(NamedTuple):
    """Two hosts (or twice the same) and the interface that both use."""

    left: Host
    right: Host
    interface: str


def script(name: str, *arguments: str) -> List[str]:
    """The command that runs a script as CI wants it: bytes compared with text is an error."""
    return [sys.executable, "-bb", name, *arguments]


def start(host: Host, name: str, *arguments: str, **options: Any) -> Program:
    """Start a script and wait until its node is up."""
    program = host.start(script(name, *arguments), **options)
    program.expect("^alexmesh: node ", where="err")
    return program


def address_of(program: Program) -> str:
    """The address in the first line on standard error, as every script prints it."""
    return program.expect(f"^alexmesh: node {ADDRESS} on", where="err").group(1)


def finish(host: Host, name: str, *arguments: str, status: int = 0, timeout: float = 20, **options: Any) -> Program:
    """Run a script to its end and check its exit status."""
    program = host.start(script(name, *arguments), **options)
    if program.process.stdin is not None:
        program.close_stdin()
    assert program.wait(timeout) == status, str(program)
    return program


def wait_until_read(program: Program) -> None:
    """Wait until the program has taken what was written to its standard input."""
    assert program.process.stdin is not None
    deadline = time.monotonic() + 10
    while struct.unpack("i", fcntl.ioctl(program.process.stdin, termios.FIONREAD, b"1234"))[0]:
        assert time.monotonic() < deadline, str(program)
        time.sleep(0.01)


# --- chat ------------------------------------------------------------------------------------------------------------


def chat_terminals(places: Places, *, with_address: bool) -> Tuple[Terminal, Terminal, str]:
    """A server and a client on terminals, connected; the server's address."""
    server = places.right.terminal(script("alexchat_server.py", places.interface, "--name", "bob"))
    address = server.expect(f"^alexmesh: node {ADDRESS} on").group(1)
    command = server.expect(r"python\S* (alexchat_client\.py \S+( \S+)?)").group(1)
    arguments = command.split() if with_address else command.split()[:2]
    client = places.left.terminal(script(*arguments, "--name", "alice"))
    server.expect("alice.*(joined|is here|connected)")
    return server, client, address


@pytest.mark.parametrize("with_address", [True, False])
def test_chat_both_ways_on_terminals(two_places: Places, with_address: bool) -> None:
    server, client, _ = chat_terminals(two_places, with_address=with_address)
    client.type("hello from the client")
    server.expect("alice: hello from the client")
    client.expect("✓")
    server.type("hello from the server")
    client.expect("bob: hello from the server")
    client.type("exit")
    assert client.wait() == 0
    server.expect("alice.* left")
    server.keys("C-d")
    assert server.wait() == 0


def test_an_arriving_line_keeps_what_is_being_typed(pair: Tuple[Host, Host]) -> None:
    server, client, _ = chat_terminals(Places(*pair, "eth0"), with_address=True)
    client.type("half of a li", enter=False)
    client.expect("half of a li")
    server.type("interrupting")
    client.expect(r"bob: interrupting(.|\n)*half of a li\s*$")
    client.type("ne")
    server.expect("alice: half of a line$")


def test_chat_through_pipes(two_places: Places) -> None:
    left, right, interface = two_places
    server = start(right, "alexchat_server.py", interface, "--name", "bob")
    address = address_of(server)
    client = start(left, "alexchat_client.py", interface, address, "--name", "alice")
    client.send("one\ntwo\n")
    server.expect("^alice: two$")
    server.send("three\n")
    client.expect("^bob: three$")
    client.send("four, and no line end")
    client.close_stdin()
    server.expect("^alice: four, and no line end$")
    server.close_stdin()
    assert client.wait() == 0, str(client)
    assert re.findall("^alice: .*$", server.out, re.MULTILINE) == [
        "alice: one",
        "alice: two",
        "alice: four, and no line end",
    ]


def test_chat_told_in_json(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    server = start(right, "alexchat_server.py", "eth0", "--name", "bob", "--json")
    address, options = address_of(server), ["--name", "alice", "--json", "-q", "--linger", "0"]
    client = left.start(script("alexchat_client.py", "eth0", address, *options))
    server.expect('"joined"')
    client.send("one\n")
    client.expect('"delivered"')
    client.close_stdin()
    server.expect('"left"')
    assert [json.loads(line) for line in server.out.splitlines()] == [
        {"type": kind, "name": "alice", "address": left.ports[0].address, **more}
        for kind, more in (("joined", {}), ("line", {"text": "one"}), ("left", {}))
    ]
    assert json.loads(client.out.splitlines()[-1]) == {"type": "delivered", "id": 1, "text": "one"}
    assert client.err == ""


def test_what_is_said_after_the_others_input_has_ended_arrives(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    server = start(right, "alexchat_server.py", "eth0", "--name", "bob")
    client = start(left, "alexchat_client.py", "eth0", address_of(server), "--name", "alice")
    server.send("my last words\n")
    server.close_stdin()
    client.expect("^bob: my last words$")
    client.send("still here\n")
    server.expect("^alice: still here$")
    client.close_stdin()
    assert client.wait() == 0, str(client)


def test_what_is_answered_after_ones_own_input_has_ended_arrives(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    server = start(right, "alexchat_server.py", "eth0", "--name", "bob")
    client = start(left, "alexchat_client.py", "eth0", address_of(server), "--name", "alice")
    client.send("what time is it?\n")
    client.close_stdin()
    server.expect("^alice: what time is it")
    server.send("late\n")
    client.expect("^bob: late$")
    server.send("exit\n")  # not a command in a pipe
    client.expect("^bob: exit$")
    server.signal(signal.SIGTERM)
    assert server.wait() == 143
    assert client.wait() == 0, str(client)


def test_a_line_that_does_not_arrive_is_sent_to_the_next_program_there(pair: Tuple[Host, Host]) -> None:
    """Once, and nothing that had arrived before."""
    left, right = pair
    server = start(right, "alexchat_server.py", "eth0")
    client = start(left, "alexchat_client.py", "eth0", address_of(server), "--linger", "0", "--json")
    client.send("arrives\n")
    client.expect('"delivered"')  # not only shown there: what is shown and not acknowledged yet comes again
    server.signal(signal.SIGSTOP)
    client.send("does not\n")
    server.signal(signal.SIGKILL)
    server.wait()
    again = start(right, "alexchat_server.py", "eth0")
    again.expect("does not$")
    client.close_stdin()
    assert client.wait(15) == 0, str(client)
    assert len(again.out.splitlines()) == 1


def test_lines_delivered_to_a_server_that_stands_still_are_shown_later(pair: Tuple[Host, Host]) -> None:
    """Nobody reads its output. The node behind it says "delivered", and program after program ends with that."""
    left, right = pair
    reading, writing = os.pipe()
    with os.fdopen(reading) as out:
        with os.fdopen(writing, "w") as pipe:
            server = right.start(script("alexchat_server.py", "eth0"), stdout=pipe)
        command = script("alexchat_client.py", "eth0", address_of(server), "--name", "ann", "--linger", "0", "--json")
        said = [["x" * 1000] * 150, *([str(number)] for number in range(5))]  # the first fill the pipe
        for lines in said:
            client = left.start(command)
            client.send("".join(line + "\n" for line in lines))
            client.close_stdin()
            assert client.wait() == 0, str(client)
            assert client.out.count('"delivered"') == len(lines)
        assert [out.readline() for lines in said for line in lines] == [
            f"ann: {line}\n" for lines in said for line in lines
        ]
        server.close()


def test_a_line_that_does_not_arrive_is_named(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    server = start(right, "alexchat_server.py", "eth0")
    client = start(left, "alexchat_client.py", "eth0", address_of(server), "--json")
    client.send("arrives\n")
    client.expect('"delivered"')
    server.signal(signal.SIGKILL)
    server.wait()
    client.send("does not\n")
    wait_until_read(client)
    client.signal(signal.SIGTERM)
    assert client.wait(15) == 143
    assert re.search("not delivered.*: does not$", client.err, re.MULTILINE | re.IGNORECASE), str(client)
    assert "arrives" not in client.err


def test_three_on_a_bridge_with_one_server(lab: Lab) -> None:
    hosts = lab.bridge(3)
    server = start(hosts[0], "alexchat_server.py", "eth0", "--name", "hub")
    clients = [
        start(host, "alexchat_client.py", "eth0", "--linger", "0", "--name", f"n{i}")
        for i, host in enumerate(hosts[1:], 2)
    ]
    for name in ("n2", "n3"):
        server.expect(f"{name}.*(joined|is here|connected)", where="err")
    for client, other in zip(clients, ("n3", "n2")):
        client.expect(f"{other}.*is here", where="err")
    clients[0].send("to all of you\n")
    server.expect("^n2: to all of you$")
    clients[1].expect("^n2: to all of you$")
    server.send("and back\n")
    for client in clients:
        client.expect("^hub: and back$")
        client.close_stdin()
        assert client.wait() == 0, str(client)


def test_two_chats_side_by_side_on_one_interface(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    servers = [start(right, "alexchat_server.py", "eth0", "--name", name) for name in ("first", "second")]
    addresses = [address_of(server) for server in servers]
    assert addresses[0] == right.ports[0].address
    assert addresses[1].startswith("02:")
    assert addresses[0] != addresses[1]
    undecided = finish(left, "alexchat_client.py", "eth0", status=2)  # two servers: it lists them
    for address in addresses:
        assert address in undecided.out + undecided.err
    for server, address in zip(servers, addresses):
        client = start(left, "alexchat_client.py", "eth0", address, "--name", "alice", "--linger", "0")
        client.send(f"for {address} only\n")
        server.expect(f"^alice: for {address} only$")
        client.close_stdin()
        assert client.wait() == 0
    assert servers[0].out.count("only") == servers[1].out.count("only") == 1


def test_a_client_finds_no_server(pair: Tuple[Host, Host]) -> None:
    finish(pair[0], "alexchat_client.py", "eth0", status=1)


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def big_file() -> Iterator[str]:
    """A file of random bytes, in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="alexchat-")
    path = os.path.join(folder, "sent")
    with open(path, "wb") as file:
        for _ in range(MEGABYTES):
            file.write(os.urandom(1000000))
    yield path
    shutil.rmtree(folder)


def digest(path: str) -> str:
    """SHA-256 of a file."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()


@pytest.mark.parametrize("percent", [0, 5])
def test_a_file_arrives_whole(two_places: Places, percent: int, big_file: str, tmp_path: Any) -> None:
    left, right, interface = two_places
    received = str(tmp_path / "received")
    with open(received, "wb") as output:
        server = start(right, "alexstream_server.py", interface, "--once", stdout=output)
        for port in {host.lo if interface == "lo" else host.ports[0] for host in (left, right)}:
            right.lab.lose(port, percent)
        with open(big_file, "rb") as data:
            client = start(left, "alexstream_client.py", interface, address_of(server), "-", stdin=data)
            assert client.wait(120) == 0, str(client)
        assert server.wait() == 0, str(server)
    assert digest(received) == digest(big_file)


def test_a_long_transfer_shows_its_progress(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    with open(os.devnull, "wb") as sink:
        server = start(right, "alexstream_server.py", "eth0", stdout=sink)
    command = " ".join(script("alexstream_client.py", "eth0", address_of(server)))
    client = left.terminal(["sh", "-c", f"exec {command} < /dev/zero"])
    client.expect(r"[0-9.]+ [kMG]?B.*[0-9.]+ [kMG]?B/s")
    client.keys("C-c")
    assert client.wait() == 130


def test_streams_at_once_into_files(pair: Tuple[Host, Host], tmp_path: Any) -> None:
    left, right = pair
    server = start(right, "alexstream_server.py", "eth0", "--output", str(tmp_path))
    texts = [b"x" * size for size in (0, 1, 100000)] + [b"no line end", b"\x00\xff\x1b[2J"]
    clients = [start(left, "alexstream_client.py", "eth0", address_of(server)) for _ in texts]
    for client, text in zip(clients, texts):
        client.send(text)
        client.close_stdin()
    assert [client.wait() for client in clients] == [0] * len(texts)
    server.signal(signal.SIGINT)
    assert server.wait() == 130
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == sorted(texts)


def test_a_text_as_argument_and_empty_input(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    for arguments, expected in ((["two words"], "two words"), ([], "")):
        server = start(right, "alexstream_server.py", "eth0", "--once")
        finish(left, "alexstream_client.py", "eth0", address_of(server), *arguments)
        assert server.wait() == 0, str(server)
        assert server.out.rstrip("\n") == expected


def test_a_terminal_is_shown_safe_text_and_who_sent_it(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    server = right.terminal(script("alexstream_server.py", "eth0"))
    address = server.expect(f"^alexmesh: node {ADDRESS} on").group(1)
    finish(left, "alexstream_client.py", "eth0", address, "evil \x1b[2J\x1b]0;title\x07 \u202e text")
    server.expect(re.escape("evil ^[[2J^[]0;title^G <U+202E> text"))
    server.expect(left.ports[0].address.replace("02:00:00:00:00:01", ADDRESS))


# --- messages, discovery and v1.0 ------------------------------------------------------------------------------------


def v1_frame(kind: int, dest: bytes, number: int, payload: bytes, *, to: bytes) -> bytes:
    """A whole frame of the v1.0 node, made by an encoder that shares nothing with the project."""
    return v1.ethernet(to, V1_NODE, v1.encode(kind, V1_NODE, dest, 5, number, payload))


def hear(port: RawPort, kind: int, destination: bytes, *, timeout: float = 5) -> Optional[bytes]:
    """The payload of the next frame of a type for a node, padding and all; None when none comes in time."""
    while True:
        frame = port.receive(timeout)
        if frame is None:
            return None
        header = v1.decode(frame[14:])
        if (header.version, header.type, header.dest) == (1, kind, destination):
            return header.payload


def raw(address: str) -> bytes:
    """Six bytes of an address."""
    return bytes.fromhex(address.replace(":", ""))


def test_a_v1_message_is_printed_and_acknowledged(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    node = start(right, "node.py", "eth0")
    me = raw(address_of(node))
    with RawPort(left.ports[0], ETHERTYPE) as card:
        for number, text in ((1763000000123, b"hi"), (1763000000124, "Grüße ⚓".encode())):
            message = v1_frame(v1.MESSAGE, me, number, text, to=v1.ETHERNET_BROADCAST)
            for _ in range(2):  # a repeated one is acknowledged again and printed once
                card.send(message)
                status = hear(card, v1.STATUS, V1_NODE)
                assert status is not None
                assert status.rstrip(b"\0") == b"ACK:%d" % number
            node.expect(f"^06:00:00:00:00:99: {text.decode()}\n")
        assert node.out == "06:00:00:00:00:99: hi\n06:00:00:00:00:99: Grüße ⚓\n"


def test_a_v1_handshake_makes_its_origin_known(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    node = start(right, "node.py", "eth0")
    me = raw(address_of(node))
    with RawPort(left.ports[0], ETHERTYPE) as card:
        card.send(v1_frame(v1.HANDSHAKE, v1.EVERYONE, 1763000000125, b"", to=v1.ETHERNET_BROADCAST))
        node.expect("06:00:00:00:00:99", where="err")
        card.send(v1_frame(v1.HANDSHAKE, me, 1763000000126, b"", to=me))
        assert hear(card, v1.HANDSHAKE, V1_NODE) is not None


def test_hostile_text_is_shown_escaped(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    node = start(right, "node.py", "eth0")
    me = raw(address_of(node))
    text = b"a\x1b[2Jb\nnode: forged \xe2\x80\xae\0\0"
    with RawPort(left.ports[0], ETHERTYPE) as card:
        card.send(v1_frame(v1.MESSAGE, me, 7, text, to=me))
        node.expect("forged.*\n")
    assert node.out == "06:00:00:00:00:99: a^[[2Jb\n    node: forged <U+202E>\n"


def test_frames_cut_anywhere_are_survived(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    node = start(right, "node.py", "eth0")
    me = raw(address_of(node))
    with RawPort(left.ports[0], ETHERTYPE) as card:
        for kind in range(8):
            whole = v1_frame(kind, me, kind, b"payload", to=me)
            for size in range(14, len(whole)):
                card.send(whole[:size], padded=False)
        card.send(v1_frame(v1.MESSAGE, me, 1000, b"alive", to=me))
        node.expect("^06:00:00:00:00:99: alive$")


def test_handshakes_find_the_nodes(lab: Lab) -> None:
    hosts = lab.bridge(3)
    nodes = [address_of(start(host, "node.py", "eth0", "--name", host.name)) for host in hosts[1:]]
    found = finish(hosts[0], "send_handshake.py", "eth0")
    for node in nodes:
        assert re.search(rf"{node} .*\b1\b.* [0-9.]+ ms", found.out), str(found)
    assert len(found.out.splitlines()) == len(nodes)


def test_nobody_answers_a_handshake(pair: Tuple[Host, Host]) -> None:
    finish(pair[0], "send_handshake.py", "eth0", "--wait", "0.3", status=1)


def test_a_message_is_delivered_or_not(two_places: Places) -> None:
    left, right, interface = two_places
    node = start(right, "node.py", interface)
    sent = finish(left, "send_message.py", interface, address_of(node), "hello, node")
    assert re.search(r"delivered.* [0-9.]+ ms", sent.out + sent.err), str(sent)
    node.expect(f"^{ADDRESS}: hello, node$")
    lost = finish(left, "send_message.py", interface, "02:00:00:00:12:34", "anyone?", "--timeout", "0.5", status=1)
    assert "not delivered" in lost.out + lost.err


def test_a_broadcast_message_reaches_everyone(lab: Lab) -> None:
    hosts = lab.bridge(3)
    nodes = [start(host, "node.py", "eth0") for host in hosts[1:]]
    finish(hosts[0], "send_message.py", "eth0", "ff:ff:ff:ff:ff:ff", "to whom it may concern")
    for node in nodes:
        node.expect(f"^{ADDRESS}: to whom it may concern$")


def test_a_message_arrives_although_frames_are_lost(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    node = start(right, "node.py", "eth0")
    left.lab.lose(right.ports[0], 30)
    for number in range(10):
        finish(left, "send_message.py", "eth0", address_of(node), f"number {number}", "--timeout", "10")
    texts = re.findall("number [0-9]+", node.out)
    assert texts == [f"number {number}" for number in range(10)]


def test_a_message_too_large_is_refused_by_size(pair: Tuple[Host, Host]) -> None:
    text = "x" * 1478
    refused = finish(pair[0], "send_message.py", "eth0", "02:00:00:00:00:02", text, status=2)
    assert "1478" in refused.err
    assert "1477" in refused.err


def test_nodes_come_and_go(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    node = start(right, "node.py", "eth0")
    other = start(left, "node.py", "eth0")
    node.expect("^found " + address_of(other), where="err")
    other.signal(signal.SIGTERM)
    assert other.wait() == 143
    node.expect(f"^lost {address_of(other)}: ", where="err")


# --- errors ----------------------------------------------------------------------------------------------------------


def arguments_of(name: str, interface: str, peer: str) -> List[str]:
    """A whole command line for a script."""
    return {
        "send_message.py": [interface, peer, "text"],
        "alexstream_client.py": [interface, peer, "text"],
        "alexchat_client.py": [interface, peer],
    }.get(name, [interface])


def arguments_to(name: str, peer: str) -> List[str]:
    """The same for a script that calls somebody."""
    return ["eth0", peer, "--count", "1"] if name == "send_handshake.py" else arguments_of(name, "eth0", peer)


def one_line(program: Program) -> str:
    """The one line of standard error that an error is told in."""
    lines = [line for line in program.err.splitlines() if not line.startswith("alexmesh: node")]
    assert len(lines) == 1, str(program)
    return lines[0]


@pytest.mark.parametrize("name", SCRIPTS)
def test_interfaces_that_cannot_be_used(lab: Lab, name: str) -> None:
    host = lab.line(2)[0]
    host.run("ip", "tuntap", "add", "mode", "tun", "name", "tun0")
    host.run("ip", "link", "set", "tun0", "up")
    peer = "02:00:00:00:00:02"
    wrong = finish(host, name, *arguments_of(name, "nope0", peer), status=2)
    assert "nope0" in one_line(wrong)
    assert "eth0" in one_line(wrong)
    wrong = finish(host, name, *arguments_of(name, "tun0", peer), status=2)
    assert "tun0" in one_line(wrong)
    assert "Ethernet" in one_line(wrong)
    lab.set_up(host.ports[0], False)
    wrong = finish(host, name, *arguments_of(name, "eth0", peer), status=2)
    assert "ip link set eth0 up" in one_line(wrong)


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_the_right_to_raw_sockets(lab: Lab, name: str) -> None:
    argv = script(name, *arguments_of(name, "lo", "02:00:00:00:00:02"))
    program = lab.host().start(["setpriv", "--bounding-set=-all", "--inh-caps=-all", *argv])  # root in a container
    assert program.wait() == 2, str(program)
    assert "cannot open lo: " in one_line(program)
    assert "not permitted" in one_line(program)


def test_as_nobody(lab: Lab, tmp_path: Any) -> None:
    """Root's own Python may lie where nobody else can read: the system's is used, with copies of what it needs."""
    scapy = pytest.importorskip("scapy")
    folder = tempfile.mkdtemp(prefix="alexchat-")
    try:
        project = ROOT
        for name in os.listdir(project):
            if name.endswith(".py"):
                shutil.copy(os.path.join(project, name), folder)
        shutil.copytree(os.path.dirname(scapy.__file__), os.path.join(folder, "scapy"))
        call("chmod", "-R", "a+rX", folder)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        host = lab.host()
        for name in SCRIPTS:
            arguments = arguments_of(name, "lo", "02:00:00:00:00:02")
            host.start([*nobody, "/usr/bin/python3", os.path.join(folder, name), *arguments])
        for program in host.lab.programs:
            assert program.wait() == 2, str(program)
            assert "sudo" in one_line(program)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_scapy(lab: Lab, name: str) -> None:
    argv = [sys.executable, "-S", "-bb", name, *arguments_of(name, "lo", "02:00:00:00:00:02")]
    program = lab.host().start(argv)
    assert program.wait() == 2, str(program)
    assert "apt install" in one_line(program)
    assert "python3-scapy" in one_line(program)


PEER_SCRIPTS = ("send_handshake.py", "send_message.py", "alexstream_client.py", "alexchat_client.py")


@pytest.mark.parametrize("name", PEER_SCRIPTS)
def test_addresses_that_cannot_be_reached(pair: Tuple[Host, Host], name: str) -> None:
    left, _ = pair
    for bad in ("02:00:00:00:00", "no name", "02:00:00:00:00:zz"):
        assert bad in one_line(finish(left, name, *arguments_to(name, bad), status=2))
    own = left.ports[0].address
    assert re.search("own|itself", one_line(finish(left, name, *arguments_to(name, own), status=2)))


@pytest.mark.parametrize(("there", "absent"), [("", "ip"), ("ip", "tmux")])
def test_lab_without_its_tools(lab: Lab, there: str, absent: str, tmp_path: Any) -> None:
    if there:
        (tmp_path / there).symlink_to(str(shutil.which(there)))
    program = Program([sys.executable, "tests/frames/lab.py", "pair"], env={"PATH": str(tmp_path)})
    lab.programs.append(program)
    assert program.wait() == 2, str(program)
    assert one_line(program).startswith(f"lab.py: {absent} is not installed: sudo apt install -y ")


def test_names_in_place_of_addresses(pair: Tuple[Host, Host], tmp_path: Any) -> None:
    """One of the mesh, one of the user's file, and one that nobody has."""
    left, right = pair
    start(right, "alexstream_server.py", "eth0", "--name", "bob")
    names = tmp_path / "names"
    names.write_text(f"{right.ports[0].address} robert\nnonsense\n")
    finish(left, "alexstream_client.py", "eth0", "bob", "text")
    finish(left, "send_handshake.py", "eth0", "robert", "--count", "1", "--names", str(names))
    unknown = finish(left, "send_message.py", "eth0", "zoe", "text", "--names", str(names), status=2)
    assert unknown.err.startswith(f"{names}:2: 'nonsense' is not an address")
    assert re.search(f"no node is named zoe, but: robert .{right.ports[0].address}.\n$", unknown.err), str(unknown)
    absent = finish(left, "node.py", "eth0", "--names", "/nowhere", status=2)
    assert one_line(absent) == "node.py: cannot read the names in /nowhere: No such file or directory"


def test_a_chat_with_a_name(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    start(right, "alexchat_server.py", "eth0", "--name", "bob")
    finish(left, "alexchat_client.py", "eth0", "bob", "--linger", "0")


def test_quiet_is_silent_and_verbose_is_not(pair: Tuple[Host, Host]) -> None:
    """Each script against one that does not answer, all of them at once."""
    left, right = pair
    silent, loud = (
        [host.start(script(name, *arguments_of(name, "eth0", "02:00:00:00:12:34"), option)) for name in SCRIPTS]
        for host, option in ((left, "-q"), (right, "-v"))
    )
    for program in loud:
        program.expect(f"^alexmesh: eth0 is {ADDRESS}, MTU 1500$", where="err")
        if "alexchat_client.py" not in program.argv:  # which tells of the mesh while it talks
            program.expect(f"^found {ADDRESS}", where="err")
    for program in silent:
        program.signal(signal.SIGINT)
        program.wait()
        assert not re.search("^alexmesh:|found", program.err, re.MULTILINE), str(program)


def test_nobody_answers(lab: Lab) -> None:
    """All scripts that call somebody, at once, each on a card of its own; by a name that nobody has too."""
    wrong = [
        lab.line(2)[0].start(script(name, *arguments_to(name, peer)))
        for name in PEER_SCRIPTS
        for peer in ("02:00:00:00:12:34", "zoe")
    ]
    for program in wrong:
        assert program.wait(25) == 1, str(program)
        assert re.search("no answer|no such node|no node named", one_line(program)), str(program)


@pytest.mark.parametrize("name", ["alexstream_client.py", "alexchat_client.py"])
def test_nobody_listens(pair: Tuple[Host, Host], name: str) -> None:
    left, right = pair
    peer = address_of(start(right, "node.py", "eth0"))
    program = finish(left, name, *arguments_of(name, "eth0", peer), status=1)
    assert "refused" in one_line(program)


@pytest.fixture
def under_way(pair: Tuple[Host, Host]) -> "Transfer":
    """A stream without an end, in the middle of it."""
    left, right = pair
    with open(os.devnull, "wb") as sink:
        server = start(right, "alexstream_server.py", "eth0", stdout=sink)
    address = address_of(server)
    with open("/dev/zero", "rb") as zeros:
        client = start(left, "alexstream_client.py", "eth0", address, "-", stdin=zeros)
    server.expect(address_of(client), where="err")
    return Transfer(client, server, address, right)


class Transfer(NamedTuple):
    """The two ends of a stream."""

    client: Program
    server: Program
    address: str
    right: Host


def test_the_server_is_killed_in_mid_stream_and_started_again(under_way: Transfer) -> None:
    under_way.server.signal(signal.SIGKILL)
    under_way.server.wait()
    again = start(under_way.right, "alexstream_server.py", "eth0")
    assert address_of(again) == under_way.address
    assert under_way.client.wait(15) == 1
    assert "restarted" in under_way.client.err


def test_the_client_is_killed_in_mid_stream(under_way: Transfer, tmp_path: Any) -> None:
    under_way.client.signal(signal.SIGKILL)
    under_way.client.wait()
    server, address = under_way.server, under_way.address
    finish(under_way.right.lab.hosts[0], "alexstream_client.py", "eth0", address, "the next one")
    assert server.process.poll() is None


class Feed(NamedTuple):
    """A stream whose bytes the test writes, received into a file."""

    client: Program
    server: Program
    received: str
    sha: Any

    def send(self, count: int) -> None:
        """Write random bytes; waits as long as the stream takes none."""
        data = os.urandom(count)
        self.sha.update(data)
        self.client.send(data)

    def wait_for(self, count: int, *, timeout: float = 20) -> None:
        """Wait until so many bytes in all are in the file."""
        deadline = time.monotonic() + timeout
        while os.path.getsize(self.received) < count:
            assert time.monotonic() < deadline, f"not {count} bytes\n{self.client}\n{self.server}"
            time.sleep(0.02)

    def finish(self, timeout: float = 60) -> None:
        """End the input; both must end well and the file must be what was written."""
        self.client.close_stdin()
        assert self.client.wait(timeout) == 0, str(self.client)
        assert self.server.wait(timeout) == 0, str(self.server)
        assert digest(self.received) == self.sha.hexdigest()


def feed(near: Host, far: Host, interface: str, path: str) -> Feed:
    """Open a stream from one host to another."""
    with open(path, "wb") as output:
        server = start(far, "alexstream_server.py", interface, "--once", stdout=output)
    client = start(near, "alexstream_client.py", interface, address_of(server), "-")
    return Feed(client, server, path, hashlib.sha256())


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_a_process_is_stopped_for_a_while(two_places: Places, who: str, tmp_path: Any) -> None:
    """(ALEXCHAT_STOP_SECONDS=60 on demand.) Nothing is lost and it goes on at once."""
    stream = feed(*two_places, str(tmp_path / "received"))
    stream.send(300000)
    stream.wait_for(1)
    stopped = stream.client if who == "sender" else stream.server
    stopped.signal(signal.SIGSTOP)
    writer = threading.Thread(target=stream.send, args=(12000000,))
    writer.start()
    writer.join(STOP_SECONDS)
    assert writer.is_alive()  # the window is full, or nobody reads the pipe
    stopped.signal(signal.SIGCONT)
    stream.wait_for(1300000)
    writer.join()
    stream.finish()


@pytest.mark.parametrize("fault", ["down", "mtu", "silence"])
def test_a_cable_changes_under_a_stream(pair: Tuple[Host, Host], fault: str, tmp_path: Any) -> None:
    """14.9: `ip link set down` and `up`, `mtu 900`, and frames that vanish without a word."""
    left, right = pair
    lab, port = left.lab, left.ports[0]
    stream = feed(left, right, "eth0", str(tmp_path / "received"))
    stream.send(300000)
    stream.wait_for(1)
    writer = threading.Thread(target=stream.send, args=(12000000,))
    if fault == "mtu":
        for end in (port, right.ports[0]):
            lab.set_mtu(end, 900)
        writer.start()
    else:
        (lab.block if fault == "silence" else lambda cut: lab.set_up(cut, False))(port)
        writer.start()
        writer.join(1)
        assert writer.is_alive()  # nothing gets through
        lab.unblock(port) if fault == "silence" else lab.set_up(port, True)
    stream.wait_for(800000)
    writer.join()
    stream.finish()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_mid_stream(under_way: Transfer, number: int) -> None:
    under_way.client.signal(number)
    assert under_way.client.wait() == 128 + number
    under_way.server.expect("reset", where="err")
    under_way.server.signal(number)
    assert under_way.server.wait() == 128 + number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["node.py", "alexstream_server.py", "alexchat_server.py"])
def test_signals_end_what_waits(lab: Lab, name: str, number: int) -> None:
    program = start(lab.host(), name, "lo")
    program.signal(number)
    assert program.wait(5) == 128 + number, str(program)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", SCRIPTS[1:4] + SCRIPTS[5:6])
def test_signals_end_what_asks(pair: Tuple[Host, Host], name: str, number: int) -> None:
    options = {"send_handshake.py": ["--wait", "60"], "send_message.py": ["--timeout", "60"]}.get(name, [])
    program = start(pair[0], name, *arguments_of(name, "eth0", "02:00:00:00:12:34"), *options)
    program.signal(number)
    assert program.wait(5) == 128 + number, str(program)


def test_ctrl_c_in_a_chat_gives_the_terminal_back(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    server = start(right, "alexchat_server.py", "eth0")
    shell = left.terminal(["sh"])
    shell.type("exec 2>&1; stty -a | md5sum; {}; echo status $?; stty -a | md5sum".format(" ".join(
        script("alexchat_client.py", "eth0", address_of(server), "--name", "alice"))))  # fmt: skip
    server.expect("alice", where="err")
    shell.type("typed and left", enter=False)
    shell.expect("typed and left")
    shell.keys("C-c", "C-c")  # the first takes back what was typed, as in a shell
    shell.expect("status 130")
    sums = re.findall("([0-9a-f]{32})  -", shell.expect(r"status 130\n[0-9a-f]{32}  -").string)
    assert len(sums) == 2, shell.screen()
    assert sums[0] == sums[1]
    server.expect("alice.* left", where="err")


def test_a_reader_that_goes_away(pair: Tuple[Host, Host]) -> None:
    """Closed standard output: `| head -1`."""
    left, right = pair
    node = right.start(["sh", "-c", '"$0" "$@" | head -1', *script("node.py", "eth0")])
    node.expect("^alexmesh: node", where="err")
    for text in ("one", "two", "three"):
        with contextlib.suppress(AssertionError):  # the node goes away at the second line
            finish(left, "send_message.py", "eth0", right.ports[0].address, text, "--timeout", "1", timeout=5)
    node.wait()
    assert node.out.endswith(": one\n")


def test_a_stream_whose_reader_goes_away_is_reset(pair: Tuple[Host, Host]) -> None:
    left, right = pair
    command = '"$0" "$@" | head -c 10 > /dev/null'
    server = right.start(["sh", "-c", command, *script("alexstream_server.py", "eth0")])
    server.expect("^alexmesh: node", where="err")
    with open("/dev/zero", "rb") as zeros:
        client = finish(left, "alexstream_client.py", "eth0", right.ports[0].address, stdin=zeros, status=1)
    assert "reset" in client.err
    server.wait()


def test_a_full_disk(pair: Tuple[Host, Host], tmp_path: Any) -> None:
    left, right = pair
    folder = str(tmp_path / "small")
    os.mkdir(folder)
    # mounted inside the namespace's own view of the file system: it goes with the server
    mount = "mount -t tmpfs -o size=1m tmpfs {} && exec {}".format(
        folder,
        " ".join(script("alexstream_server.py", "eth0", "--output", folder)),
    )
    server = right.start(["sh", "-c", mount])
    address = address_of(server)
    with open("/dev/zero", "rb") as zeros:
        client = finish(left, "alexstream_client.py", "eth0", address, stdin=zeros, status=1)
    assert "reset" in client.err
    server.expect("No space left on device", where="err")
    assert server.process.poll() is None or server.wait() == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_and_misuse_need_no_root(name: str) -> None:
    if hindrance():
        pytest.skip(hindrance())
    program = Program(["setpriv", "--bounding-set=-all", *script(name, "--help")])
    assert program.wait() == 0
    assert "usage" in program.out
    program.close()
    program = Program(script(name))
    assert program.wait() == 2
    assert "usage" in program.err
    program.close()
