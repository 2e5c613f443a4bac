#!/usr/bin/env python3
"""The pictures and the sample capture of the README, made from the real programs (root, tmux, tshark).

sudo python3 tests/pictures.py                  all of them
sudo python3 tests/pictures.py sample chat      tests/sample.pcap and tests/pictures/chat.svg
"""

import os
import signal
import sys

from lab import Host, Lab, Program

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE = os.path.join(HERE, "sample.pcap")
FOLDER = os.path.join(HERE, "pictures")
ADDRESS = "(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"

# --- traffic ---------------------------------------------------------------------------------------------------------


def start(host: Host, script: str, *arguments: str) -> Program:
    """Start a script of ours on all interfaces of a host and wait until its node is up."""
    program = host.start([sys.executable, script, host.interfaces, *arguments])
    program.expect("^alexmesh: node", where="err")
    return program


def finish(program: Program) -> None:
    """Wait for the end of a program, which must be a good one."""
    if program.wait(30):
        raise RuntimeError(str(program))


def record_traffic(lab: Lab, on_cable: str, in_relay: str, *, data: bytes, loss: float, mtu: int) -> None:
    """A chat, a stream of `data`, a ping and a message over one relay; the last cable loses `loss` per cent of frames.

    The file `on_cable` is what dumpcap sees on the first cable, `in_relay` what the relay's own --pcap writes.
    """
    left, relay, right = lab.line(3)
    for port in left.ports + relay.ports + right.ports:
        lab.set_mtu(port, mtu)
    sniffer = left.start(["dumpcap", "-q", "-P", "-i", "eth0", "-w", on_cable])
    sniffer.expect("^File: ", where="err")
    node = start(relay, "node.py", "--name", "relay", "--pcap", in_relay)
    bob = start(right, "alexchat_server.py", "--name", "bob")
    lab.lose(right.ports[0], loss)
    address = right.ports[0].address

    alice = start(left, "alexchat_client.py", address, "--name", "alice", "--linger", "0")
    alice.send("Hello! No IP between us.\n")
    bob.expect("alice: Hello")
    bob.send("And no TCP either.\n")
    alice.expect("bob: And no TCP")
    alice.close_stdin()
    finish(alice)
    finish(start(left, "send_handshake.py", address, "--count", "3", "--interval", "0.1"))
    bob.signal(signal.SIGINT)
    bob.wait()

    sink = start(right, "alexstream_server.py", "--once")
    source = start(left, "alexstream_client.py", address, "-")
    source.send(data)
    source.close_stdin()
    finish(source)
    finish(sink)
    finish(start(left, "send_message.py", relay.ports[0].address, "supper is ready"))
    node.signal(signal.SIGTERM)
    node.wait()
    sniffer.signal(signal.SIGINT)
    finish(sniffer)


def make_sample() -> None:
    """Write tests/sample.pcap: what the first cable of `record_traffic` carried."""
    with Lab() as lab:
        data = b"".join(b"line %d of the stream\n" % number for number in range(1, 200))
        record_traffic(lab, SAMPLE, os.devnull, data=data, loss=15, mtu=600)


def main() -> int:
    make_sample()
    return 0


if __name__ == "__main__":
    sys.exit(main())
