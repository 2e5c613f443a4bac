#!/usr/bin/env python3
"""What bench_stream.py compares with: reliable transports in Python, each run as its own examples do.

    bench_others.py NAME sink                    on 10.77.0.2: prints "ready WORD"
    bench_others.py NAME source WORD SECONDS     on 10.77.0.1

NAME: aioquic, aiortc, reticulum, reticulum-tcp, pytcp. Each runs in a virtual environment of its own, which
bench_stream.py makes. Both ends print their result; the sink measures from the first byte to the last one.
"""

import asyncio
import contextlib
import functools
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Awaitable, Callable, Dict, Iterator, Optional, Tuple

from bench_stream import Meter, until

SOURCE, SINK = "10.77.0.1", "10.77.0.2"
PORT = 4242
POLL_SECONDS = 0.2
# Two of them push nobody back who writes: the amount is given, not the time
QUIC_BYTES_A_SECOND = 20_000_000
PYTCP_BYTES_A_SECOND = 500_000
MESSAGE = os.urandom(16 << 10)  # of a data channel, as in aiortc's example of a file transfer
BUFFERED_BYTES = 1 << 20  # handed to a data channel and not yet sent
RESOURCE = os.urandom(16 << 20)
DONE = b"done"


class Counter:
    """Bytes that have arrived; measures from the first of them."""

    def __init__(self) -> None:
        self._meter: Optional[Meter] = None
        self._ended = 0.0
        self.size = 0

    def add(self, size: int) -> None:
        """So many more."""
        self._meter = self._meter or Meter()
        self._ended = time.monotonic()
        self.size += size

    def report(self) -> None:
        """Print the result."""
        assert self._meter is not None
        self._meter.report(self.size, ended=self._ended)


# --- aioquic: a stream of QUIC, by its asyncio interface -------------------------------------------------------------


def make_certificate(folder: str) -> Tuple[str, str]:
    """A key and a certificate for it, as files."""
    key, certificate = os.path.join(folder, "key"), os.path.join(folder, "certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x",
         "-keyout", key, "-out", certificate],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return certificate, key


async def aioquic_sink(address: str) -> None:
    """Count one stream."""
    from aioquic.asyncio import serve  # type: ignore[import-not-found, unused-ignore]
    from aioquic.quic.configuration import QuicConfiguration  # type: ignore[import-not-found, unused-ignore]

    over = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counter = Counter()
        while True:
            data = await reader.read(1 << 18)
            if not data:
                break
            counter.add(len(data))
        counter.report()
        writer.write(DONE)
        writer.write_eof()
        over.set()

    configuration = QuicConfiguration(is_client=False)
    with tempfile.TemporaryDirectory() as folder:
        configuration.load_cert_chain(*make_certificate(folder))
    tasks = []  # the loop itself holds tasks only weakly

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(take(reader, writer)))

    await serve(address, PORT, configuration=configuration, stream_handler=on_stream)
    print("ready", address, flush=True)
    await over.wait()
    await asyncio.sleep(1)  # for the answer


async def aioquic_source(address: str, seconds: float) -> None:
    """Write so much that it takes about so long."""
    from aioquic.asyncio import connect  # type: ignore[import-not-found, unused-ignore]
    from aioquic.quic.configuration import QuicConfiguration  # type: ignore[import-not-found, unused-ignore]

    configuration = QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE)
    async with connect(address, PORT, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        meter = Meter()
        data = os.urandom(int(QUIC_BYTES_A_SECOND * seconds))
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == DONE
        meter.report(len(data))


# --- aiortc: a data channel of WebRTC, SCTP over DTLS over ICE -------------------------------------------------------


def peer_connection() -> Any:
    """An end that asks no servers for its addresses."""
    from aiortc import RTCConfiguration, RTCPeerConnection  # type: ignore[import-not-found, unused-ignore]

    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def aiortc_sink(address: str) -> None:
    """Count the messages until one says that it was the last."""
    from aiortc.contrib.signaling import TcpSocketSignaling  # type: ignore[import-not-found, unused-ignore]

    peer, over, counter = peer_connection(), asyncio.Event(), Counter()

    @peer.on("datachannel")  # type: ignore[untyped-decorator, unused-ignore]
    def on_channel(channel: Any) -> None:
        @channel.on("message")  # type: ignore[untyped-decorator, unused-ignore]
        def on_message(message: bytes) -> None:
            if message == DONE:
                counter.report()
                channel.send(DONE)
                over.set()
            else:
                counter.add(len(message))

    print("ready", address, flush=True)
    signaling = TcpSocketSignaling(SOURCE, PORT)  # where the one who offers listens
    offer = None
    while offer is None:
        try:
            offer = await signaling.receive()
        except ConnectionRefusedError:  # noqa: PERF203  until it listens
            await asyncio.sleep(POLL_SECONDS)
    await peer.setRemoteDescription(offer)
    await peer.setLocalDescription(await peer.createAnswer())
    await signaling.send(peer.localDescription)
    await over.wait()
    await asyncio.sleep(1)  # for the answer
    await peer.close()


async def aiortc_source(address: str, seconds: float) -> None:
    """Send messages as long as the buffer is not full."""
    from aiortc.contrib.signaling import TcpSocketSignaling  # type: ignore[import-not-found, unused-ignore]

    peer, opened, drained, over = peer_connection(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    channel = peer.createDataChannel("bench")
    channel.bufferedAmountLowThreshold = BUFFERED_BYTES // 2
    channel.on("open", opened.set)
    channel.on("bufferedamountlow", drained.set)
    channel.on("message", lambda message: over.set())
    signaling = TcpSocketSignaling(SOURCE, PORT)
    await peer.setLocalDescription(await peer.createOffer())
    await signaling.send(peer.localDescription)
    await peer.setRemoteDescription(await signaling.receive())
    await opened.wait()
    meter = Meter()
    size = 0
    for _ in until(seconds):
        channel.send(MESSAGE)
        size += len(MESSAGE)
        while channel.bufferedAmount > BUFFERED_BYTES:
            drained.clear()
            await drained.wait()
    channel.send(DONE)
    await over.wait()
    meter.report(size)
    await peer.close()


# --- Reticulum: Resources over a Link --------------------------------------------------------------------------------

AUTO = "type = AutoInterface"  # what its own first configuration has: UDP on the local Ethernet
TCP_SERVER = f"type = TCPServerInterface\nlisten_ip = {SINK}\nlisten_port = {PORT}"  # long packets in the kernel's TCP
TCP_CLIENT = f"type = TCPClientInterface\ntarget_host = {SINK}\ntarget_port = {PORT}"


@contextlib.contextmanager
def reticulum(interface: str) -> Iterator[Any]:
    """A running instance with one interface."""
    import RNS  # type: ignore[import-not-found, unused-ignore]

    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config"), "w") as file:
            file.write(f"[reticulum]\nshare_instance = No\n[interfaces]\n[[bench]]\nenabled = Yes\n{interface}\n")
        RNS.Reticulum(folder, loglevel=RNS.LOG_CRITICAL)
        yield RNS


def reticulum_sink(interface: str, address: str) -> None:
    """Count the Resources of one Link."""
    over, counter = threading.Event(), Counter()
    with reticulum(interface) as rns:

        def on_link(link: Any) -> None:
            link.set_resource_strategy(rns.Link.ACCEPT_ALL)
            link.set_resource_started_callback(lambda resource: counter.add(0))
            link.set_resource_concluded_callback(on_resource)
            link.set_link_closed_callback(lambda link: over.set())

        def on_resource(resource: Any) -> None:
            counter.add(len(resource.data.read()))

        here = rns.Destination(rns.Identity(), rns.Destination.IN, rns.Destination.SINGLE, "bench", "sink")
        here.set_link_established_callback(on_link)
        print("ready", here.hash.hex(), flush=True)
        while not over.wait(POLL_SECONDS):
            if not counter.size:
                here.announce()
        time.sleep(POLL_SECONDS)  # the proof of the last Resource leaves before we are told of it
        counter.report()


def reticulum_source(interface: str, word: str, seconds: float) -> None:
    """Send one Resource after the other."""
    with reticulum(interface) as rns:
        there = bytes.fromhex(word)
        while not rns.Transport.has_path(there):
            rns.Transport.request_path(there)
            time.sleep(POLL_SECONDS)
        opened, delivered = threading.Event(), threading.Event()
        identity = rns.Identity.recall(there)
        destination = rns.Destination(identity, rns.Destination.OUT, rns.Destination.SINGLE, "bench", "sink")
        link = rns.Link(destination, established_callback=lambda link: opened.set())
        opened.wait()
        meter = Meter()
        size = 0
        for _ in until(seconds):
            delivered.clear()
            rns.Resource(RESOURCE, link, auto_compress=False, callback=lambda resource: delivered.set())
            delivered.wait()
            size += len(RESOURCE)
        meter.report(size)
        link.teardown()
        time.sleep(POLL_SECONDS)  # for the farewell


# --- PyTCP: its own TCP over its own IP, on a TAP interface -----------------------------------------------------------


def pytcp_socket(own: str) -> Any:
    """A socket of a running stack that says nothing."""
    from pytcp import TcpIpStack, config  # type: ignore[import-not-found, unused-ignore]

    config.LOG_CHANEL = set()
    mac = "02:00:00:77:77:" + own[-1].zfill(2)
    stack = TcpIpStack(
        interface="tap7", mac_address=mac, ip4_address=own + "/24", ip6_address=f"2001:db8::{own[-1]}/64"
    )
    stack.start()
    from pytcp.lib import socket  # type: ignore[import-not-found, unused-ignore]

    return socket.socket(family=socket.AF_INET4, type=socket.SOCK_STREAM)


def pytcp_sink(address: str) -> None:
    """Count one connection."""
    listener = pytcp_socket(address)
    listener.bind((address, PORT))
    listener.listen()
    print("ready", address, flush=True)
    stream, _ = listener.accept()
    counter = Counter()
    for data in iter(stream.recv, b""):
        counter.add(len(data))
        if data.endswith(DONE):
            break
    counter.report()
    stream.send(DONE)
    time.sleep(1)  # for the answer


def pytcp_source(address: str, seconds: float) -> None:
    """Write so much that it takes about so long."""
    stream = pytcp_socket(SOURCE)
    stream.bind((SOURCE, PORT))
    stream.connect((address, PORT))
    meter = Meter()
    data = os.urandom(int(PYTCP_BYTES_A_SECOND * seconds)) + DONE
    stream.send(data)
    assert stream.recv() == DONE
    meter.report(len(data))


COROUTINES: Dict[Tuple[str, str], Callable[..., Awaitable[None]]] = {
    ("aioquic", "sink"): aioquic_sink,
    ("aioquic", "source"): aioquic_source,
    ("aiortc", "sink"): aiortc_sink,
    ("aiortc", "source"): aiortc_source,
}
FUNCTIONS: Dict[Tuple[str, str], Callable[..., None]] = {
    ("reticulum", "sink"): functools.partial(reticulum_sink, AUTO),
    ("reticulum", "source"): functools.partial(reticulum_source, AUTO),
    ("reticulum-tcp", "sink"): functools.partial(reticulum_sink, TCP_SERVER),
    ("reticulum-tcp", "source"): functools.partial(reticulum_source, TCP_CLIENT),
    ("pytcp", "sink"): pytcp_sink,
    ("pytcp", "source"): pytcp_source,
}


def main(name: str, end: str, word: str = SINK, seconds: str = "") -> None:
    """Run one end of one of them."""
    arguments = [word, *map(float, filter(None, [seconds]))]
    if (name, end) in COROUTINES:
        asyncio.get_event_loop().run_until_complete(COROUTINES[name, end](*arguments))
    else:
        FUNCTIONS[name, end](*arguments)
    sys.stdout.flush()
    os._exit(0)  # some of them keep threads that do not end


if __name__ == "__main__":
    main(*sys.argv[1:])
