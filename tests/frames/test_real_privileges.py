"""Programs that a user starts by sudo, on real frames: what they are afterwards, and what still works (root, Linux)."""

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import signal
import sys
import tempfile
from typing import Dict, Iterator, List, NamedTuple

import pytest
from lab import Host, Lab, Program, call
from test_real_frames import ADDRESS, SCRIPTS, arguments_of, finish, lab as bare_lab, one_line, script, start

__all__ = ["bare_lab"]  # the fixture

pytestmark = pytest.mark.root

SUDOERS = "/etc/sudoers.d"


class User(NamedTuple):
    """Somebody who may call sudo without a password."""

    name: str
    uid: int
    home: str

    def sudo(self, host: Host, name: str, *arguments: str) -> Program:
        """Start a script as this user would."""
        me = ["setpriv", "--reuid", self.name, "--regid", str(self.uid), "--init-groups"]
        return host.start([*me, "sudo", "-n", *script(name, *arguments)])


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """A user made for these tests, in a group of the same number and in a second one."""
    absent = [tool for tool in ("sudo", "useradd", "setpriv") if shutil.which(tool) is None]
    if absent or os.geteuid() or not os.path.isdir(SUDOERS):
        if os.environ.get("ALEXCHAT_ROOT_TESTS") == "required":
            pytest.fail(f"not installed: {absent}")
        pytest.skip("needs root, sudo and useradd")
    name = f"alexchat{os.getpid()}"
    rule = os.path.join(SUDOERS, name)
    with open(os.path.join(tempfile.gettempdir(), "alexchat-users.lock"), "w") as lock:  # tests in parallel
        fcntl.flock(lock, fcntl.LOCK_EX)
        call("useradd", "--create-home", "--user-group", "--groups", "audio", name)
    account = pwd.getpwnam(name)
    try:
        with open(rule, "w") as file:
            file.write(f"{name} ALL=(root) NOPASSWD: ALL\n")
        os.chmod(rule, 0o440)
        yield User(name, account.pw_uid, account.pw_dir)
    finally:
        os.unlink(rule)
        with open(os.path.join(tempfile.gettempdir(), "alexchat-users.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            call("userdel", "--remove", name)


@pytest.fixture
def lab(bare_lab: Lab) -> Iterator[Lab]:
    """An empty lab. At its end it kills what it started: sudo, but not what sudo started."""
    yield bare_lab
    for host in bare_lab.hosts:
        for pid in call("ip", "netns", "pids", host.namespace).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)


def status_of(host: Host) -> Dict[str, List[str]]:
    """What the kernel says of the one Python process in a namespace."""
    found = []
    for pid in call("ip", "netns", "pids", host.namespace).split():
        with open(f"/proc/{pid}/cmdline") as file:
            if file.read().startswith(sys.executable):
                found.append(pid)
    (pid,) = found
    with open(f"/proc/{pid}/status") as file:
        return {key: value.split() for key, value in (line.split(":", 1) for line in file)}


@pytest.mark.parametrize("name", ["node.py", "alexstream_server.py", "alexchat_server.py", "send_handshake.py"])
def test_under_sudo_a_program_becomes_the_user(lab: Lab, user: User, name: str) -> None:
    host = lab.host()
    program = user.sudo(host, name, "lo", *["--wait", "60"] * (name == "send_handshake.py"))
    program.expect("^alexmesh: node", where="err")
    status = status_of(host)
    assert status["Uid"] == status["Gid"] == [str(user.uid)] * 4
    assert set(status["Groups"]) == {str(user.uid), call("getent", "group", "audio").split(":")[2]}
    assert int(status["CapEff"][0], 16) == int(status["CapPrm"][0], 16) == 0
    assert status["NoNewPrivs"] == ["1"]


def test_keep_root(lab: Lab, user: User) -> None:
    host = lab.host()
    program = user.sudo(host, "node.py", "lo", "--keep-root")
    program.expect("^alexmesh: node", where="err")
    assert status_of(host)["Uid"] == ["0"] * 4


def test_root_without_sudo_stays_root(lab: Lab) -> None:
    host = lab.host()
    start(host, "node.py", "lo")
    assert status_of(host)["Uid"] == ["0"] * 4


def test_files_belong_to_the_user(lab: Lab, user: User) -> None:
    left, right = lab.line(2)
    server = user.sudo(right, "alexstream_server.py", "eth0", "--once", "--output", user.home)
    address = server.expect(f"^alexmesh: node {ADDRESS} on", where="err").group(1)
    finish(left, "alexstream_client.py", "eth0", address, "a text")
    assert server.wait() == 0, str(server)
    (path,) = [entry.path for entry in os.scandir(user.home) if entry.name.startswith("02-")]
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, status.st_size) == (user.uid, user.uid, 6)


def test_the_chats_log_belongs_to_the_user(lab: Lab, user: User) -> None:
    left, right = lab.line(2)
    path = os.path.join(user.home, "log")
    server = user.sudo(right, "alexchat_server.py", "eth0", "--name", "bob", "--log", path, "--json", "-q")
    finish(left, "alexchat_client.py", "eth0", "bob", "--name", "ann", "--linger", "0")
    server.expect('"left"')
    with open(path, encoding="utf-8") as log:
        assert [line.split()[2:] for line in log][1:] == [["ann", "left"]]
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (user.uid, user.uid)


@pytest.mark.parametrize("away", ["down", "removed"])
def test_an_interface_that_comes_back_is_heard_without_root(lab: Lab, user: User, away: str) -> None:
    left, right = lab.line(2)
    program = user.sudo(right, "node.py", "eth0")
    address = program.expect(f"^alexmesh: node {ADDRESS} on", where="err").group(1)
    finish(left, "send_message.py", "eth0", address, "before")
    program.expect("before$")
    if away == "down":
        lab.set_up(right.ports[0], False)
    else:
        right.run("ip", "link", "delete", "eth0")
    program.expect("^eth0: (Network is down|no interface with this name)$", where="err")  # what is noticed first
    if away == "down":
        lab.set_up(right.ports[0], True)
    else:
        right.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", left.namespace)
        for host in (left, right):
            host.run("ip", "link", "set", "eth0", "address", host.ports[0].address, "up")
    program.expect("^eth0: works again$", where="err")
    finish(left, "send_message.py", "eth0", address, "after")
    program.expect("after$")
    assert status_of(right)["Uid"] == [str(user.uid)] * 4
    assert len(re.findall("works again", program.err)) == 1, str(program)


@pytest.mark.parametrize("name", SCRIPTS)
def test_where_root_cannot_be_given_up_nothing_starts(lab: Lab, name: str) -> None:
    """The kernel told (by securebits) to let root's capabilities outlive the change of the user."""
    sudo = ["env", "SUDO_UID=65534", "SUDO_GID=65534", "SUDO_USER=nobody"]
    keep = ["setpriv", "--securebits", "+no_setuid_fixup"]
    program = lab.host().start([*keep, *sudo, *script(name, *arguments_of(name, "lo", "02:00:00:00:00:02"))])
    assert program.wait() == 2, str(program)
    assert "--keep-root" in one_line(program)
