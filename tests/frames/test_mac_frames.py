"""The programs on a Darwin that is not there (fakebsd.py), on real frames; scapy takes its own Darwin branch.

ALEXCHAT_MACS: interpreters to run them with, separated by `:` (that of the tests); each needs scapy.
ALEXCHAT_MEGABYTES is the size of the file that is sent (20).
"""

import hashlib
import os
import re
import signal
import sys
from typing import Any, List, Tuple

import pytest
from lab import Host, Lab, Program, Terminal, call
from test_chat_frames import version_of
from test_real_frames import ADDRESS, MEGABYTES, lab as lab_fixture

pytestmark = pytest.mark.root
lab = lab_fixture
MACS = os.environ.get("ALEXCHAT_MACS", sys.executable).split(":")
SIGINFO = 30  # as fakebsd.py plays it: Ctrl-T


class Mac:
    """A machine of the lab whose programs believe that they run on macOS."""

    def __init__(self, host: Host, python: str, folder: str) -> None:
        self.host = host
        self._command = ["env", f"PYTHONPATH={folder}", f"FAKEBSD_DIR={folder}", python, "-bb"]

    def start(self, script: str, *arguments: str, **options: Any) -> Program:
        """Start a script on its interface."""
        return self.host.start([*self._command, script, "eth0", *arguments], **options)

    def up(self, script: str, *arguments: str, **options: Any) -> Tuple[Program, str]:
        """Start a script, and return its address too."""
        program = self.start(script, *arguments, **options)
        return program, program.expect(f"^alexmesh: node {ADDRESS} on eth0", where="err", timeout=20).group(1)

    def run(self, script: str, *arguments: str, status: int = 0) -> Program:
        """Run a script to its end."""
        program = self.start(script, *arguments)
        program.close_stdin()
        assert program.wait(20) == status, str(program)
        return program

    def terminal(self, script: str, *arguments: str) -> Terminal:
        """Start a script on a terminal."""
        locale = ["env", "PYTHONIOENCODING=utf-8", "LC_ALL=C.UTF-8"]
        return self.host.terminal([*locale, *self._command, script, "eth0", "--no-timestamps", *arguments])


@pytest.fixture(params=MACS, ids=version_of)
def macs(request: Any, lab: Lab, tmp_path: Any) -> Tuple[Mac, Mac]:
    """Two of them on one cable."""
    (tmp_path / "sitecustomize.py").symlink_to(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fakebsd.py"))
    left, right = (Mac(host, str(request.param), str(tmp_path)) for host in lab.line(2))
    return left, right


def test_mac_every_script_does_what_it_is_for(macs: Tuple[Mac, Mac]) -> None:
    left, right = macs
    node, address = right.up("node.py", "--name", "dora")
    assert f"{address}  1 hop  direct  MTU 1500" in left.run("send_handshake.py").out
    assert (
        "2 sent, 2 received, 0% lost" in left.run("send_handshake.py", "dora", "--count", "2", "--interval", "0.1").out
    )
    assert f" 1  {address}  dora  " in left.run("send_handshake.py", "dora", "--trace").out
    assert f"delivered to {address}" in left.run("send_message.py", "dora", "supper is ready").out
    node.expect("^[0-9a-f:]{17}: supper is ready$")
    node.signal(SIGINFO)
    node.expect("^(neighbour|node) ", where="err")
    server, address = right.up("alexstream_server.py", "--once")
    left.run("alexstream_client.py", address, "one line")
    assert server.wait() == 0
    assert server.out == "one line"
    node.signal(signal.SIGTERM)
    assert node.wait() == 143


def test_mac_chat_on_terminals(macs: Tuple[Mac, Mac]) -> None:
    left, right = macs
    bob = right.terminal("alexchat_server.py", "--name", "bob")
    bob.expect("the room is open", timeout=20)
    ann = left.terminal("alexchat_client.py", "--name", "ann")
    bob.expect("^-- ann .* is here", timeout=20)
    ann.type("hello from a Mac")
    bob.expect("^ann: hello from a Mac$")
    ann.expect("^✓ ann: hello from a Mac$")
    bob.type("/who")
    bob.expect(r"^ann +02|^ann +[0-9a-f:]{17} +1 +\d+\.\d\d ms +here$")
    ann.type("exit")
    bob.expect("^-- ann left$")
    assert ann.wait() == 0


def transfer(left: Mac, right: Mac, size: int) -> Tuple[Program, Program, str]:
    """Begin to send random bytes from left to right; return sender, receiver and the bytes' digest."""
    data = os.urandom(size)
    server, address = right.up("alexstream_server.py", "--once")
    client, _ = left.up("alexstream_client.py", address, "-")
    client.send(data)
    client.close_stdin()
    return client, server, hashlib.sha256(data).hexdigest()


def digest_of(program: Program) -> str:
    """What a program has written."""
    return hashlib.sha256(bytes(program._collected["out"])).hexdigest()


def test_mac_file_arrives_whole(macs: Tuple[Mac, Mac]) -> None:
    client, server, digest = transfer(*macs, MEGABYTES * 1000000)
    assert (client.wait(120), server.wait(120)) == (0, 0), f"{client}{server}"
    assert digest_of(server) == digest


@pytest.mark.parametrize("change", ["down", "unplugged", "unplugged, and another card put in"])
def test_mac_stream_survives_its_interface(lab: Lab, macs: Tuple[Mac, Mac], change: str) -> None:
    """A program that has given up root needs it no more; another card may have another MAC."""
    left, right = macs
    server, address = right.up("alexstream_server.py")
    nobody = {"SUDO_UID": "65534", "SUDO_GID": "65534", "SUDO_USER": "nobody"}
    client, _ = left.up("alexstream_client.py", address, "-", "-v", env=nobody)
    client.expect("^alexmesh: root is given up for nobody", where="err")
    client.send("before\n")
    server.expect("^before$")
    host = left.host
    if change == "down":
        host.run("ip", "link", "set", "eth0", "down")
        client.expect("^eth0: ", where="err")
        host.run("ip", "link", "set", "eth0", "up")
    else:
        mac = ["address", "02:00:00:00:00:77"] if "another" in change else ["address", host.ports[0].address]
        host.run("ip", "link", "del", "eth0")
        client.expect("^eth0: ", where="err")
        peer = ["peer", "name", "eth0", "netns", right.host.namespace, "address", right.host.ports[0].address]
        host.run("ip", "link", "add", "eth0", *mac, "type", "veth", *peer)
        right.host.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "link", "set", "eth0", "up")
    client.expect("^eth0: works again$", where="err", timeout=20)
    client.send("after\n")
    server.expect("^after$", timeout=30)
    client.close_stdin()
    assert client.wait(30) == 0, str(client)
    assert client.err.count("works again") == 1


def test_mac_programs_on_one_card_talk_and_are_all_reached_from_outside(macs: Tuple[Mac, Mac]) -> None:
    left, right = macs
    one, first = right.up("node.py", "--name", "one")
    two, second = right.up("node.py", "--name", "two")
    for name in ("one", "two"):
        assert "delivered to" in left.run("send_message.py", name, f"hello {name}").out
    assert "delivered to" in right.run("send_message.py", "two", "from the same card").out
    two.expect("from the same card$")
    one.expect(f"^found {second}\\b", where="err")
    two.expect(f"^found {first}\\b", where="err")
    for program in (one, two):
        assert not re.search("^lost .*(?<!: left)$", program.err, re.MULTILINE)
        assert "another node has" not in program.err


def test_mac_frames_of_another_machine_with_the_same_address_are_heard(macs: Tuple[Mac, Mac]) -> None:
    left, right = macs
    node, address = right.up("node.py")
    call("ip", "-n", left.host.namespace, "link", "set", "eth0", "address", right.host.ports[0].address)
    found = left.start("send_handshake.py", "-v")
    found.close_stdin()
    found.wait(20)
    node.expect("^another node has this node's address", where="err")
    assert address


def refused(mac: Mac, change: List[str]) -> str:
    mac.host.run("ip", "link", "set", "eth0", *change)
    return mac.run("node.py", status=2).err


def test_mac_errors_name_commands_of_that_system(macs: Tuple[Mac, Mac]) -> None:
    left, _ = macs
    assert refused(left, ["mtu", "100"]).endswith("MTU 100 is too small: sudo ifconfig eth0 mtu 128 or more\n")
    assert refused(left, ["mtu", "1500", "down"]) == "node.py: eth0 is down: sudo ifconfig eth0 up\n"
