"""The impure half of the stack: raw Ethernet, the one wait, the clock, the random source.

    EthernetLink      one Ethernet interface, over scapy's raw socket
    Node              runs a Router (AlexMesh, L3) and an Endpoint (AlexStream, L4) on its links
    Stream, Listener  what applications hold: files whose other end is on another node
    open_node, run    the command line that all scripts share

HOW A STREAM FRAME TRAVELS. `Node._round` sleeps in `_sleep`, the one place; it wakes, `_receive` takes a batch of
frames from the link (`receive`), and `Router.receive_all` keeps those whose cached `Flow` is ours.
`Endpoint.receive_all` finds the session by their first bytes; `Session.receive_expected` takes them (any other:
`decode_segment`, `Session.receive`), `Receiver.take` stores them, and `post_event` says Readable. `Node._take_events`
sets its `has_news`, `Node.wait` returns, and the application's `Stream.read` takes the bytes by `Session.read`.
The acknowledgement leaves with the next round, or with the answer: `Node._transmit`, `Endpoint.bursts_to_send`,
`Session.transmit`, `Router.send_streams`, the link's `send`.

HOW A TYPED LINE TRAVELS. `Console._read` takes the keys, `LineEditor.feed` makes them a line, `Room._say` a record of
it, `Conversation.put` queues it and `flush` gives it to `Stream.write`; `Session.send` keeps it until it is
acknowledged, and `Node.step` sends it as above. On the other side `Node.wait` returns to `Room.turn`,
`Conversation.receive` reads and decodes the line, `Room._hear` shows it by `Console.show`, `Screen` paints, and
`Output.write` writes what the terminal takes.

As a program this module keeps the machine visible in the mesh, reports nodes that come and go, and prints messages.
"""

import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python3 -I leaves it out
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import argparse
import contextlib
import errno
import fcntl
import functools
import gc
import importlib.util
import io
import itertools
import json
import pwd
import random
import select
import shlex
import socket
import stat
import struct
import threading
import time
import types
from collections import Counter, deque
from types import FrameType
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    TextIO,
    Tuple,
    Type,
    Union,
)

import constants as c
from alexstream import (
    Accepted,
    Channel as Channel,
    Closed,
    Connected,
    Endpoint,
    Event,
    Session as Session,
    Stalled,
    State,
)
from protocol import (
    INFINITY as INFINITY,
    PAYLOAD_OFFSET,
    Delivered,
    DuplicateAddress,
    Echoed as Echoed,
    InterfaceConfig,
    MeshEvent,
    MessageReceived as MessageReceived,
    Neighbour,
    NodeFound as NodeFound,
    NodeInfo as NodeInfo,
    NodeLost as NodeLost,
    PathChanged,
    RouteChanged,
    Router,
    StrangeNode,
    Undelivered,
    text_payload,
)
from utils import (
    TokenBucket,
    format_address,
    is_name,
    is_unicast,
    label_names,
    parse_address,
    parse_names,
    printable,
    printable_name,
)


class SetupError(Exception):
    """What keeps a program from starting; the message names the cause and the next command."""


# --- Links ----------------------------------------------------------------------------------------------------------


class Link:
    """One Ethernet interface, never blocking. `mac` is its Ethernet address, `mtu` the largest payload of a frame."""

    name: str
    mac: bytes
    mtu: int
    loopback: bool  # every program hears every frame, the sender too, and all share one Ethernet address
    send: Callable[[bytes], object]  # one Ethernet frame; OSError as the system says it
    receive: Callable[[], List[bytes]]  # what has arrived, about RECEIVE_BATCH; OSError when the interface is down

    notices = -1  # a file that can be read once something about the interface has changed, if the system says so

    def fileno(self) -> int:
        """Return what is to be watched for frames."""
        raise NotImplementedError

    def claim(self) -> Optional[int]:
        """Return this program's slot among those of this machine that send with `mac`, until `close`.

        0 is also the right to use `mac` as the address of a node; NO_SLOT: all others are taken; None: not known.
        """
        return 0

    def refresh(self) -> bool:
        """Bring `name`, `mac` and `mtu` up to date; return whether there is a carrier.

        Raise OSError where the interface is gone, down, or of no use.
        """
        return True

    def reopen(self) -> None:
        """Start over after the interface was down or away; raise OSError if that fails."""

    def close(self) -> None:
        """Close the socket."""


@contextlib.contextmanager
def _quick_import() -> Iterator[None]:
    """Import scapy (so not before it is needed): 0.1 s, half of what it takes with the garbage collector and tables.

    scapy.all would take 0.7 s. Its warnings are about what we do not use.
    """
    import logging

    for logger in ("scapy.loading", "scapy.runtime"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    gc.disable()
    try:
        if "scapy.data" not in sys.modules:
            _import_without_tables()
        yield
    finally:
        gc.enable()
        # What scapy defined lives for ever: a full collection need not look at it. (From Python 3.7 on.)
        getattr(gc, "freeze", int)()


def _import_without_tables() -> None:
    """Import scapy.data so that every file it reads is empty: vendors, services, protocols, 3 MB of no use here.

    Nor does it keep a cache of them, which would be root's in the home of the user.
    """
    import scapy.main

    spec: Any = importlib.util.find_spec("scapy.data")
    data: Any = importlib.util.module_from_spec(spec)
    data.open = lambda *_, **__: io.BytesIO()
    sys.modules["scapy.libs.bluetoothids"] = types.SimpleNamespace(DATA={})  # type: ignore[assignment]
    scapy.main.SCAPY_CACHE_FOLDER = None
    sys.modules["scapy.data"] = scapy.data = data
    spec.loader.exec_module(data)


def _spare_scapy_its_select() -> None:
    """Let scapy not wait while it opens a socket: its `select` knows no file from number 1024 on.

    It empties the socket so, as `_use_packet_socket` does again.
    """
    import scapy.arch.linux as scapy_linux

    scapy_linux._flush_fd = lambda _: None  # type: ignore[assignment,unused-ignore]


class EthernetLink(Link):
    """An Ethernet interface through scapy's raw socket; every difference between the platforms is in here.

    Raises SetupError. The programs of one machine hear each other, on a card as on Linux's `lo`. `name` may also be an
    altname. Once open, the interface is known by its index: its name, like its MAC and MTU, may change.
    """

    def __init__(self, name: str) -> None:
        clock = time.time()
        if clock > c.SEQ_MAX:  # more than scapy's netlink can say
            year = time.gmtime(clock).tm_year
            raise SetupError(f"this machine's clock says {year}; set it: sudo date -s 'YYYY-MM-DD HH:MM'")
        card = _usable_card(name)
        self._number, self.name, self.mac, self.mtu = card.number, card.name, card.mac, card.mtu
        self.loopback = bool(card.flags & _IFF_LOOPBACK)
        self._claims: Dict[bytes, _Claim] = {}  # by MAC: of the first, which may be a node's address, and of the last
        self._capture: Optional[Capture] = None
        self._notices: Optional[socket.socket] = None
        try:
            self._open()
        except ImportError:
            raise SetupError(_scapy_missing()) from None
        except OSError as error:
            if os.geteuid() == 0:
                hint = _NO_RAW if error.errno == errno.EPERM else ""
                raise SetupError(f"cannot open {quoted(name)}: {error}{hint}") from None
            command = start_command(" ".join(map(shlex.quote, sys.argv)), is_sudo=True)
            raise SetupError(f"raw Ethernet needs root: {command}") from None

    def _open(self) -> None:
        with _quick_import():
            from scapy.config import conf
            from scapy.error import Scapy_Exception

        try:
            if _LINUX:
                _spare_scapy_its_select()
            else:
                self._prepare_bpf()
            self._socket: Any = conf.L2socket(iface=self.name, type=c.ETHERTYPE, promisc=False)
        except (Scapy_Exception, ValueError) as error:  # ValueError: an interface that has gone meanwhile
            raise OSError(str(error)) from None
        if _LINUX and self._notices is None:
            self._subscribe()
        if isinstance(getattr(self._socket, "ins", None), socket.socket):
            self._use_packet_socket(self._socket.ins)
        elif hasattr(self._socket, "get_blen"):
            self._use_bpf(self._socket)
        else:
            self._use_pcap(self._socket)
        if self._capture is not None:
            self.record(self._capture)

    def _subscribe(self) -> None:
        """Linux tells of every change of an interface: rtnetlink(7), group RTMGRP_LINK."""
        self._notices = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
        self._notices.bind((0, 1))
        self.notices = self._notices.fileno()

    def _use_packet_socket(self, port: socket.socket) -> None:
        """Linux: one frame a call, of our EtherType only. scapy's own send and recv_raw would take twice as long.

        A socket of one EtherType is not shown what other programs send by this card, one of all EtherTypes is. What
        scapy's socket has taken before it had the filter is no loss: a node that starts is not known yet.
        """
        port.setblocking(False)
        self._attach_filter(port)
        while _receive_batch(port.recv):
            pass
        port.bind((self.name, _ETH_P_ALL))
        _set_buffer(port, socket.SO_RCVBUF, c.SOCKET_BUFFER_BYTES)
        _set_buffer(port, socket.SO_SNDBUF, c.SEND_BUFFER_BYTES)
        self.send = port.send
        self.receive = functools.partial(_receive_batch, port.recv)

    def _attach_filter(self, port: socket.socket) -> None:
        """Let the kernel drop what is not for this program. Needs no privilege."""
        import ctypes

        lines = linux_filter(self.mac, loopback=self.loopback)
        code = b"".join(struct.pack("=HBBI", *line) for line in lines)
        program = ctypes.create_string_buffer(code, len(code))
        sock_fprog = struct.pack("HP", len(lines), ctypes.addressof(program))
        port.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, sock_fprog)

    def _prepare_bpf(self) -> None:
        """Ask for the interface's address, and for a buffer of the device that holds more than 84 full frames."""
        from scapy.arch.bpf import supersocket

        supersocket.BPF_BUFFER_LENGTH = c.BPF_BUFFER_BYTES  # type: ignore[attr-defined,unused-ignore]
        self._ask_mac()

    def _ask_mac(self) -> None:
        from scapy.arch import get_if_hwaddr
        from scapy.config import conf

        conf.ifaces.reload()
        self.mac = parse_address(get_if_hwaddr(self.name))

    def _use_bpf(self, port: Any) -> None:
        """BSD and macOS: many frames a read. What this machine sends comes too: from other programs it must."""
        from scapy.arch.bpf import supersocket

        port.set_nonblock()
        self._set_bpf_filter(port)
        file, length_at, alignment = port.fileno(), supersocket.bpf_hdr.bh_caplen.offset, supersocket.BPF_ALIGNMENT
        size = port.get_blen()  # a read must be of exactly this

        def send(frame: bytes) -> None:
            if len(frame) > self.mtu + c.ETHERNET_HEADER_BYTES:  # up to 18 more would get lost without a word
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            os.write(file, frame)

        def receive() -> List[bytes]:
            try:
                return list(bpf_frames(os.read(file, size), length_at, alignment))
            except BlockingIOError:
                return []

        self.send = send
        self.receive = receive

    def _set_bpf_filter(self, port: Any) -> None:
        """Let the kernel drop what is not for this card; so most of what this program sends is never read again."""
        from scapy.arch.bpf import consts
        from scapy.libs import structures

        lines = bpf_filter(self.mac)
        program = (structures.bpf_insn * len(lines))(*(structures.bpf_insn(*line) for line in lines))
        fcntl.ioctl(port.fileno(), consts.BIOCSETF, structures.bpf_program(len(program), program))

    def _use_pcap(self, port: Any) -> None:
        """Use libpcap (`conf.use_pcap`): works everywhere, but slowly, and frames may wait 100 ms in its buffer."""
        port.pcap_fd.setnonblock(True)

        def send(frame: bytes) -> None:
            if port.pcap_fd.send(frame) < 0:  # it keeps the cause to itself
                self.refresh()
                too_long = len(frame) > self.mtu + c.ETHERNET_HEADER_BYTES
                raise OSError(errno.EMSGSIZE if too_long else errno.ENOBUFS, "libpcap could not send")

        def receive() -> List[bytes]:
            frames = itertools.islice(iter(lambda: port.recv_raw()[1], None), c.RECEIVE_BATCH)
            kind = c.ETHERTYPE.to_bytes(2, "big")
            return [frame for frame in frames if frame[12:14] == kind and (frame[0] & 1 or frame[:6] == self.mac)]

        self.send = send
        self.receive = receive

    def fileno(self) -> int:
        """Return the descriptor of the socket or device."""
        return int(self._socket.fileno())

    def claim(self) -> Optional[int]:
        """Lock a slot. A program that cannot (one without root) takes another address, which is always right.

        That of the first MAC is kept if another one comes: it may be the address of a node.
        """
        if self.loopback:
            return c.NO_SLOT
        if self.mac not in self._claims:
            for former in list(self._claims)[1:]:
                self._claims.pop(former).release()
            claim = _claim_slot(self.mac)
            if claim is None:
                return None
            self._claims[self.mac] = claim
        return self._claims[self.mac].slot

    def refresh(self) -> bool:
        """Ask the system. An interface that is gone may have come back under its name."""
        if self._notices is not None:
            with contextlib.suppress(OSError):  # no more of them, or ENOBUFS: too many
                while self._notices.recv(0x10000):
                    pass
        try:
            card = _ask_card(self._number)
        except OSError:
            card = _ask_card(socket.if_nametoindex(self.name))
        self._number, self.name, self.mtu = card.number, card.name, card.mtu
        if card.mac not in (b"", self.mac):
            self.mac = card.mac
            port = getattr(self._socket, "ins", None)
            if isinstance(port, socket.socket):
                self._attach_filter(port)
        if not card.flags & _IFF_UP:
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
        if self.mtu < c.MESH_MTU_MIN:
            raise OSError(errno.EMSGSIZE, _too_narrow(card))
        return bool(card.flags & _IFF_RUNNING)

    def reopen(self) -> None:
        """Hear the interface again, also one that was removed and came back under its name.

        The old socket or device is bound anew, which takes no privilege. Only libpcap's must be opened again, by root.
        """
        port = getattr(self._socket, "ins", None)
        if isinstance(port, socket.socket):
            port.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # "down" may wait there, a second time
            try:
                port.bind((self.name, _ETH_P_ALL))
            except UnicodeEncodeError:
                raise OSError(errno.ENODEV, _NOT_UTF_8) from None
        elif hasattr(self._socket, "get_blen"):
            request = _IOCTLS[_PLATFORM].set_interface
            fcntl.ioctl(self._socket.fileno(), request, os.fsencode(self.name).ljust(request >> 16 & 0x1FFF, b"\0"))
            self._ask_mac()
            self._set_bpf_filter(self._socket)
        elif os.geteuid() == 0:
            self._socket.close()
            self._open()

    def record(self, capture: "Capture") -> None:
        """Let `capture` have every frame that is sent and received from now on. (Until then it costs nothing.)"""
        self._capture = capture
        plain_send, plain_receive = self.send, self.receive

        def send(frame: bytes) -> None:
            plain_send(frame)
            capture.add([frame])

        def receive() -> List[bytes]:
            frames = plain_receive()
            capture.add(frames)
            return frames

        self.send, self.receive = send, receive

    def close(self) -> None:
        """Close the socket, give the address free."""
        self._socket.close()
        if self._capture is not None:
            self._capture.close()
        if self._notices is not None:
            self._notices.close()
        while self._claims:
            self._claims.popitem()[1].release()


def linux_filter(mac: bytes, *, loopback: bool) -> Sequence[Tuple[int, int, int, int]]:
    """Return a classic BPF program for a packet socket: a line is (code, jump if true, jump if false, number).

    It takes frames of our EtherType that no VLAN tag makes those of another LAN (a tag of VLAN 0 says a priority), and
    of what this machine sends only what the card's own programs are to hear. On `lo` that comes a second time.
    """
    is_tagged, tag, packet_type = (0xFFFFF000 + offset for offset in (48, 44, 4))  # linux/filter.h, SKF_AD_OFF
    outgoing = 4  # linux/if_packet.h
    lines = [
        (_LOAD_HALF, 0, 0, 12),
        (_EQUAL, 0, 12, c.ETHERTYPE),
        (_LOAD_HALF, 0, 0, is_tagged),
        (_EQUAL, 2, 0, 0),
        (_LOAD_HALF, 0, 0, tag),
        (_ANY_BIT, 8, 0, 0xFFF),
        (_LOAD_HALF, 0, 0, packet_type),
        (_EQUAL, 0, 7, outgoing),
        *_to_card(mac),
    ]
    if loopback:
        lines[7] = (_EQUAL, 6, 7, outgoing)
    return lines


def bpf_filter(mac: bytes) -> Sequence[Tuple[int, int, int, int]]:
    """Return the same for a BPF device: frames of our EtherType to a group or to this card, whoever sends them."""
    return [(_LOAD_HALF, 0, 0, 12), (_EQUAL, 0, 6, c.ETHERTYPE), *_to_card(mac)]


def _to_card(mac: bytes) -> Sequence[Tuple[int, int, int, int]]:
    """Return the end of both: drop the frame (last but one line) unless it goes to a group or to this card."""
    return [
        (_LOAD_BYTE, 0, 0, 0),
        (_ANY_BIT, 5, 0, 1),
        (_LOAD_WORD, 0, 0, 0),
        (_EQUAL, 0, 2, int.from_bytes(mac[:4], "big")),
        (_LOAD_HALF, 0, 0, 4),
        (_EQUAL, 1, 0, int.from_bytes(mac[4:], "big")),
        (_RESULT, 0, 0, 0),
        (_RESULT, 0, 0, 0x40000),
    ]


_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _EQUAL, _ANY_BIT, _RESULT = 0x20, 0x28, 0x30, 0x15, 0x45, 0x06  # net/bpf.h


class _Numbers(NamedTuple):
    """Requests of ioctl, which each system numbers in its own way; the size of their argument is part of them."""

    get_flags: int  # SIOCGIFFLAGS
    get_mtu: int  # SIOCGIFMTU
    set_interface: int = 0  # BIOCSETIF


# Linux: linux/sockios.h; the others: sys/sockio.h and net/bpf.h, where NetBSD's struct ifreq has 144 bytes, not 32.
_IOCTLS = {
    "linux": _Numbers(0x8913, 0x8921),
    "darwin": _Numbers(0xC0206911, 0xC0206933, 0x8020426C),
    "freebsd": _Numbers(0xC0206911, 0xC0206933, 0x8020426C),
    "openbsd": _Numbers(0xC0206911, 0xC020697E, 0x8020426C),
    "netbsd": _Numbers(0xC0906911, 0xC090697E, 0x8090426C),
}
_PLATFORM = next((name for name in _IOCTLS if sys.platform.startswith(name)), "freebsd")
_NO_RAW = "; this root lacks CAP_NET_RAW: outside the container, or docker run --cap-add NET_RAW"
_LINUX = sys.platform.startswith("linux")
_IFF_UP, _IFF_BROADCAST, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x2, 0x8, 0x40
_SIOCGIFHWADDR = 0x8927  # Linux
_ETH_P_ALL, _SO_ATTACH_FILTER = 3, 26  # Linux
_RTM_GETLINK, _NLM_F_REQUEST, _NLMSG_ERROR = 18, 1, 2
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_ALT_IFNAME = 3, 10, 18, 53
_IFLA_INFO_SLAVE_KIND = 4
_IFNAME_BYTES = 16  # with the NUL; an altname may be longer
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772  # the two of Linux's kinds of hardware that carry Ethernet frames
_RUN_DIRECTORY = "/var/run/alexchat"


def bpf_frames(data: bytes, length_at: int, alignment: int) -> Iterator[bytes]:
    """Yield the frames of one read from a BPF device.

    Before each stands a header, numbers in the machine's byte order: at `length_at` u32 bytes captured, u32 bytes on
    the wire, u16 length of the header with its padding. The next one begins at a multiple of `alignment`.
    """
    at = 0
    while at + length_at + 10 <= len(data):
        captured = int.from_bytes(data[at + length_at : at + length_at + 4], sys.byteorder)
        header = int.from_bytes(data[at + length_at + 8 : at + length_at + 10], sys.byteorder)
        yield data[at + header : at + header + captured]
        at += max(1, -(-(header + captured) // alignment)) * alignment


def _set_buffer(port: socket.socket, option: int, size: int) -> None:
    forced = {socket.SO_SNDBUF: 32, socket.SO_RCVBUF: 33}  # SO_SNDBUFFORCE and so on: beyond the limit, for root
    try:
        port.setsockopt(socket.SOL_SOCKET, forced[option], size)
    except OSError:
        port.setsockopt(socket.SOL_SOCKET, option, size)


def _receive_batch(receive: Callable[[int], bytes]) -> List[bytes]:
    frames: List[bytes] = []
    try:
        # Room for the largest frame of `lo`, as cheap as for 1500 bytes (KEPT_BYTES). What came before an error stays.
        frames.extend(map(receive, itertools.repeat(0x1000E, c.RECEIVE_BATCH)))
    except BlockingIOError:
        pass
    except OSError:
        if not frames:
            raise
    return frames


def _scapy_missing() -> str:
    """Return how to install scapy for this interpreter."""
    import shutil

    if sys.prefix == sys.base_prefix and shutil.which("apt"):
        return "scapy is not installed: sudo apt install -y --no-install-recommends python3-scapy"
    sudo = "sudo " * (sys.prefix == sys.base_prefix)
    return f"scapy is not installed: {sudo}{shlex.quote(sys.executable)} -m pip install scapy"


class _Card(NamedTuple):
    """What the system says of an interface."""

    number: int  # the kernel's index of it: names change, this does not
    name: str
    flags: int
    is_ethernet: bool
    mac: bytes  # empty on BSD and macOS
    mtu: int  # no more than HANDSHAKE can say: `lo` has one more


def _ask_card(number: int) -> _Card:
    """Ask about an interface; raise OSError if there is none. By ioctl: rtnetlink waits while any interface changes."""
    name = socket.if_indextoname(number)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:

        def ask(request: int) -> bytes:
            return fcntl.ioctl(anything.fileno(), request, os.fsencode(name).ljust(144, b"\0"))[16:]

        numbers = _IOCTLS[_PLATFORM]
        flags = int.from_bytes(ask(numbers.get_flags)[:2], sys.byteorder)
        mtu = min(0xFFFF, int.from_bytes(ask(numbers.get_mtu)[:4], sys.byteorder))
        if not _LINUX:
            return _Card(number, name, flags, bool(flags & _IFF_BROADCAST), b"", mtu)
        hardware = ask(_SIOCGIFHWADDR)
        kind = int.from_bytes(hardware[:2], sys.byteorder)
        return _Card(number, name, flags, kind in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK), hardware[2:8], mtu)


def _find_card(name: str) -> Tuple[int, int]:
    """Return the numbers of an interface and of the one that it is a port of, or 0; raise OSError if there is none.

    rtnetlink(7) knows altnames of any length, and ports.
    """
    if not _LINUX:
        return socket.if_nametoindex(name), 0
    text = os.fsencode(name) + b"\0"
    kind = _IFLA_IFNAME if len(text) <= _IFNAME_BYTES else _IFLA_ALT_IFNAME
    question = bytes(16) + struct.pack("=HH", 4 + len(text), kind) + text
    head = struct.pack("=IHH8x", 16 + len(question), _RTM_GETLINK, _NLM_F_REQUEST)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as kernel:
        kernel.send(head + question)
        answer = kernel.recv(0x10000)
    if int.from_bytes(answer[4:6], sys.byteorder) == _NLMSG_ERROR:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    said = _attributes(answer[32:])
    is_routed = _attributes(said.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_SLAVE_KIND) == b"vrf\0"  # stays a card
    master = b"" if is_routed else said.get(_IFLA_MASTER, b"")
    return int.from_bytes(answer[20:24], sys.byteorder), int.from_bytes(master, sys.byteorder)


def _attributes(data: bytes) -> Dict[int, bytes]:
    """Return the values of netlink attributes by type: u16 length with these four bytes, u16 type, value, padding."""
    found: Dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[max(4, length + 3 & ~3) :]
    return found


_NOT_UTF_8 = "its name is not UTF-8"


def _usable_card(name: str) -> _Card:
    """Return an interface that exists, carries Ethernet frames and is up; raise SetupError."""
    names = [known for _, known in socket.if_nameindex()]
    here = " ".join(printable(known) for known in names if known != name)
    try:
        number, master = _find_card(name)
        card = _ask_card(number)
        upper = quoted(socket.if_indextoname(master)) if master else ""
    except OSError:
        raise SetupError(f"there is no interface {printable(name)!r} here, but: {here}") from None
    shown = quoted(card.name)
    if not card.is_ethernet:
        raise SetupError(f"{shown} is not Ethernet; the interfaces here are: {here}")
    if upper:
        raise SetupError(f"{shown} is a port of {upper}: use {upper}")
    if not card.flags & _IFF_UP:
        raise SetupError(f"{shown} is down: sudo {_set_command(card, 'up')}")
    if card.mtu < c.MESH_MTU_MIN:
        raise SetupError(f"{shown}: {_too_narrow(card)}")
    try:
        card.name.encode()
    except UnicodeEncodeError:
        command = _set_command(card, f"name lan{card.number}")
        raise SetupError(f"{shown} cannot be opened, {_NOT_UTF_8}: sudo {command}") from None
    return card


def _too_narrow(card: _Card) -> str:
    """Return what is to be said of an interface whose frames carry no stream."""
    return f"MTU {card.mtu} is too small: sudo {_set_command(card, f'mtu {c.MESH_MTU_MIN}')} or more"


def _set_command(card: _Card, what: str) -> str:
    """Return the command that sets something of an interface."""
    return f"{'ip link set' if _LINUX else 'ifconfig'} {quoted(card.name)} {what}"


def quoted(name: str) -> str:
    """Return a name for a shell's command line, pure ASCII wherever it would not reach the terminal as it is."""
    if printable(name) == name:
        return shlex.quote(name)
    plain = (
        chr(octet) if 0x20 <= octet < 0x7F and octet not in b"'\\" else f"\\{octet:03o}" for octet in os.fsencode(name)
    )
    return f"$'{''.join(plain)}'"


class _Claim(NamedTuple):
    """A slot, and the file that is locked for it; -1 for NO_SLOT."""

    slot: int
    path: str
    file: int

    def release(self) -> None:
        """Free the slot. A program that gave up root cannot remove the file; the next one that claims a slot does."""
        if self.file >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            os.close(self.file)


def _claim_slot(mac: bytes) -> Optional[_Claim]:
    """Claim the lowest free slot of an Ethernet address in this network namespace; None if that cannot be known.

    One file a slot, locked while its program lives, however that ends. Under a lock of all those who claim, files that
    are not locked are removed first; so a file that is there then is a slot that is taken.
    """
    try:
        namespace = os.stat("/proc/thread-self/ns/net").st_ino if _LINUX else 0
        os.makedirs(_RUN_DIRECTORY, mode=0o755, exist_ok=True)
        directory = os.lstat(_RUN_DIRECTORY)
        if not stat.S_ISDIR(directory.st_mode) or directory.st_uid != os.geteuid() or directory.st_mode & 0o022:
            return None  # where others may write, they may also put links
        claiming = _open_locked(os.path.join(_RUN_DIRECTORY, "claiming"), os.O_CREAT, fcntl.LOCK_EX)
        try:
            _remove_unlocked()
            for slot in range(c.NO_SLOT):
                path = os.path.join(_RUN_DIRECTORY, f"{namespace}-{mac.hex()}-{slot}.lock")
                with contextlib.suppress(FileExistsError):
                    return _Claim(slot, path, _open_locked(path, os.O_CREAT | os.O_EXCL, fcntl.LOCK_EX))
            return _Claim(c.NO_SLOT, "", -1)
        finally:
            os.close(claiming)
    except OSError:
        return None


def _remove_unlocked() -> None:
    """Remove the lock files of programs that have ended."""
    names = (name for name in os.listdir(_RUN_DIRECTORY) if name.endswith(".lock"))
    for path in (os.path.join(_RUN_DIRECTORY, name) for name in names):
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            held = _open_locked(path, 0, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
            os.close(held)


def _open_locked(path: str, flags: int, operation: int) -> int:
    """Open a file of ours and lock it; raise OSError."""
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(file, operation)
    except OSError:
        os.close(file)
        raise
    return file


class Capture:
    """A file of whole frames in libpcap's classic format (magic number, microseconds, Ethernet), for Wireshark.

    Every frame is one unbuffered write, so that the file can be read while it grows. A frame's time is that of this
    process: when it was handed over, not when it was on the wire. Raises SetupError.
    """

    def __init__(self, path: str) -> None:
        try:
            # Not blocking: a pipe whose reader is too slow ends the capture, and does not hold up the node.
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise SetupError(f"cannot write {printable(path)}: {error.strerror}") from None
        self._path = path
        self._size = 0  # bytes written, whole frames only
        self._write(struct.pack("<IHHIIII", _PCAP_MAGIC, 2, 4, 0, 0, _PCAP_SNAPLEN, _PCAP_ETHERNET))

    def add(self, frames: Iterable[bytes]) -> None:
        """Write frames that came or went just now."""
        seconds, nanoseconds = divmod(int(time.time() * 1e9), 10**9)
        for frame in frames:
            self._write(struct.pack("<IIII", seconds, nanoseconds // 1000, len(frame), len(frame)) + frame)

    def close(self) -> None:
        """Close the file; what is added afterwards is lost."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, data: bytes) -> None:
        """Write the whole of it, or say why not and end the capture; what has been written stays readable."""
        if self._file < 0:
            return
        size = self._size + len(data)
        try:
            while data:  # a second write tells why the first was short
                data = data[os.write(self._file, data) :]
            self._size = size
        except OSError as error:
            with contextlib.suppress(OSError):  # a pipe cannot take anything back
                os.ftruncate(self._file, self._size)
            self.close()
            what = f"capture ended, cannot write {printable(self._path)}: {error.strerror}"
            print(f"alexmesh: {what}", file=sys.stderr, flush=True)


_PCAP_MAGIC, _PCAP_SNAPLEN, _PCAP_ETHERNET = 0xA1B2C3D4, 1 << 18, 1


# --- Node -----------------------------------------------------------------------------------------------------------


class LinkChanged(NamedTuple):
    """An interface went down (`reason` says why), or works again."""

    name: str
    up: bool
    reason: str


class StrangerRefused(NamedTuple):
    """A caller was not let in: it does not hold the secret of this program's streams, or said something else."""

    address: bytes
    reason: str


class ChangesOmitted(NamedTuple):
    """So many more nodes were found or lost, or had their route changed, than are reported one by one."""

    number: int


NodeEvent = Union[
    NodeFound, NodeLost, RouteChanged, MessageReceived, DuplicateAddress, StrangeNode, LinkChanged, ChangesOmitted,
    StrangerRefused,
]  # fmt: skip


_REFUSED = "send: refused size"


class Interrupts:
    """Signals that end the program, as exceptions: at once, but not in the middle of a machine (`with`), nor unnoticed.

    One of them in each process, as there is one main thread, which gets the signals.
    """

    def __init__(self) -> None:
        self._depth = 0  # of `with` blocks
        self._pending = 0  # the signal that came inside

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._pending and not self._depth:
            self._raise()

    def on_signal(self, number: int, _frame: Optional[FrameType]) -> None:
        """Take a signal, as a handler does."""
        self._pending = number
        if not self._depth:
            self._raise()

    def _raise(self) -> None:
        number, self._pending = self._pending, 0
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


INTERRUPTS = Interrupts()


class Aside:
    """A call that may wait for a disk (fsync, reading a whole file), made by a thread that touches nothing else.

    Once `done`, `result` returns what it returned, or raises what it raised; `Node.wait` ends at that time.
    """

    def __init__(self, action: Callable[[], Any], noticed: int) -> None:
        """`noticed`: the pipe that gets a byte at the end."""
        self.done = False
        self._value: Any = None
        self._error: Optional[Exception] = None
        self._noticed = noticed
        threading.Thread(target=self._run, args=(action,), daemon=True).start()

    def _run(self, action: Callable[[], Any]) -> None:
        try:
            self._value = action()
        except Exception as error:  # noqa: BLE001  raised again where the result is wanted
            self._error = error
        self.done = True
        with contextlib.suppress(OSError):  # the node is closed, or has enough to read
            os.write(self._noticed, b"\0")

    def result(self) -> Any:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._value


class Output:
    """What a program writes to a file that may take nothing for a while: a stopped terminal, a pipe that is not read.

    It is queued, and written as far as the file takes it: `flush` again when `Node.wait` says that `file` takes more.
    """

    def __init__(self, descriptor: int) -> None:
        self.waiting = 0  # bytes
        self._queue: Deque[bytes] = deque()
        self.file = descriptor
        kind = os.fstat(descriptor).st_mode
        self._may_block = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(descriptor)
        if self._may_block and not stat.S_ISSOCK(kind):
            # A description of our own may be non-blocking; that of stdout is shared with the shell and with others.
            with contextlib.suppress(OSError):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self.file = os.open(f"/proc/self/fd/{descriptor}", flags)
                self._may_block = False

    def write(self, data: bytes) -> None:
        """Queue bytes, and write what can be written; raise OSError."""
        if data:
            self._queue.append(data)
            self.waiting += len(data)
            self.flush()

    def flush(self) -> None:
        """Write what the file takes; raise OSError."""
        while self._queue and (not self._may_block or wait_for_files((), 0, [self.file])):
            data = self._queue[0]
            try:  # a pipe takes PIPE_BUF bytes if it takes any
                written = os.write(self.file, data[: select.PIPE_BUF] if self._may_block else data)
            except BlockingIOError:
                return
            self.waiting -= written
            self._queue[0] = data[written:]
            if written == len(data):
                self._queue.popleft()

    @property
    def is_full(self) -> bool:
        """Whether a program had better wait before it writes more."""
        return self.waiting > c.OUTPUT_BYTES


class StandardOutputs:
    """stdout (1) and stderr (2) as an `Output` each; one queue where both are one terminal, so that order is kept."""

    def __init__(self) -> None:
        self._outputs: Dict[int, Output] = {}  # by descriptor, from the first write on
        self.encoding = getattr(sys.stdout, "encoding", None) or "utf-8"

    def write(self, descriptor: int, data: bytes) -> None:
        """Write what the reader takes, and keep the rest; raise OSError."""
        if descriptor not in self._outputs:
            other = self._outputs.get(3 - descriptor)
            is_same = other is not None and os.path.sameopenfile(1, 2)
            self._outputs[descriptor] = other if other is not None and is_same else Output(descriptor)
        self._outputs[descriptor].write(data)

    def write_line(self, descriptor: int, text: str) -> None:
        """Write a line of text."""
        self.write(descriptor, (text + "\n").encode(self.encoding, "backslashreplace"))

    @property
    def waiting(self) -> List[int]:
        """The files that bytes wait for: wait until one takes more, then `flush`."""
        return list({output.file for output in self._outputs.values() if output.waiting})

    @property
    def is_full(self) -> bool:
        """Whether a program had better wait before it writes more."""
        return any(output.is_full for output in self._outputs.values())

    def flush(self) -> None:
        """Write what the readers take; raise OSError."""
        for output in self._outputs.values():
            output.flush()

    def drain(self) -> None:
        """Wait until all is written; raise OSError."""
        while self.waiting:
            wait_for_files((), None, self.waiting)
            self.flush()


class LinkQueue:
    """A link as its node uses it: down, blocked, or taking frames (then `retry_at` is infinite, `backlog` empty).

    A card that takes no frame for a moment gets it a little later, and what follows waits behind it; of an interface
    that is down or has changed, the router and the application learn here.
    """

    def __init__(
        self,
        index: int,
        link: Link,
        router: Router,
        *,
        tell: Callable[[LinkChanged], None],
        paths_changed: Callable[[float], None],
    ) -> None:
        """`paths_changed(now)`: frames of another size get through from now on."""
        self._index = index
        self.link = link
        self._router = router
        self._tell = tell
        self._paths_changed = paths_changed
        self.name, self.mac, self.mtu = link.name, link.mac, link.mtu  # as others know them
        self.drops: Counter[str] = Counter()
        self.up = True
        self.retry_at = INFINITY
        self.backlog: Deque[bytes] = deque()  # the oldest frame first
        self._blocked_since = INFINITY
        self._delay = c.BLOCKED_RETRY
        self._refusals = 0  # of the frame that blocks the link
        self._refused = INFINITY  # the length of a frame that did not get through while shorter ones did

    def send_all(self, frames: List[bytes], now: float) -> None:
        """Send frames: `send` for many."""
        rest = iter(frames)
        if self.retry_at == INFINITY:
            send, frame = self.link.send, b""
            try:
                for frame in rest:
                    send(frame)
            except OSError as error:
                self._not_sent(frame, error, now)
        for frame in rest:
            self.send(frame, now)

    def send(self, frame: bytes, now: float) -> None:
        """Send a frame, or keep it for a moment, or drop it."""
        if self.retry_at < INFINITY:
            if self.up and len(self.backlog) < c.BACKLOG_FRAMES:
                self.backlog.append(frame)
            else:
                self.drops["backlog" if self.up else "link down"] += 1
            return
        try:
            self.link.send(frame)
        except OSError as error:
            self._not_sent(frame, error, now)

    def _not_sent(self, frame: bytes, error: OSError, now: float) -> None:
        if error.errno in (errno.EAGAIN, errno.ENOBUFS):
            if len(frame) < self._refused:
                self._block(frame, now)
            else:
                self.drops[_REFUSED] += 1
            return
        if error.errno in (errno.ENETDOWN, errno.ENXIO, errno.ENODEV):
            self.take_down(os.strerror(error.errno), now)
            return
        self.drops[f"send: {error.strerror}"] += 1
        self._look(now)
        if error.errno == errno.EMSGSIZE and len(frame) <= self.mtu + c.ETHERNET_HEADER_BYTES:
            self._refuse_size(frame, now)

    def _refuse_size(self, frame: bytes, now: float) -> None:
        """A frame that the card refuses for its size, or for what the other end takes, did not get through: it is lost.

        What gets through to each neighbour beyond the size that every Ethernet carries is found out anew.
        """
        self.drops[_REFUSED] += 1
        if len(frame) < self._refused:
            self._refused = len(frame)
            self._router.interface_changed(self._index, mtu=self.link.mtu, now=now)
            self._paths_changed(now)

    def _block(self, frame: bytes, now: float) -> None:
        """Try the frame again a little later. A link blocked for long has no carrier, or its frames are stale.

        A veth refuses with the same error what is too large for its other end: then a shorter one gets through.
        """
        self._refusals += 1
        shortest = min(self.backlog, key=len, default=frame)
        if self._refusals >= c.BLOCKED_TRIES and len(shortest) < len(frame):
            with contextlib.suppress(OSError):
                self.link.send(shortest)
                self.backlog.remove(shortest)
                self._refusals = 0
                self._refuse_size(frame, now)
                return
        self.backlog.appendleft(frame)
        self._blocked_since = min(self._blocked_since, now)
        self.retry_at = now + self._delay
        self._delay = min(2 * self._delay, c.BLOCKED_RETRY_MAX)
        if now - self._blocked_since > c.BLOCKED_PATIENCE:
            self.drops["blocked"] += len(self.backlog) - 1
            self.backlog = deque([frame])  # to go on trying with
            self._look(now)

    def take_down(self, reason: str, now: float) -> None:
        """The interface cannot be used: look again every LINK_RETRY."""
        if self.up:
            self.up = False
            self.backlog.clear()
            self._router.interface_changed(self._index, up=False, now=now)
            self._tell(LinkChanged(self.name, False, reason))
        self.retry_at = now + c.LINK_RETRY

    def tend(self, now: float, *, is_time_to_look: bool) -> None:
        """Look at the interface if it is time; try again what is blocked or down."""
        if is_time_to_look:
            self._refused = INFINITY
            self._look(now)
        if self.retry_at <= now:
            self._retry(now)

    def _retry(self, now: float) -> None:
        """Send what waits for a blocked link; look whether one that was down is back."""
        if not self.up:
            self._look(now)
            return
        self.retry_at = INFINITY
        waiting = len(self.backlog)
        while self.backlog and self.retry_at == INFINITY:
            self.send(self.backlog.popleft(), now)
        if len(self.backlog) < waiting:
            self._blocked_since, self._delay, self._refusals = INFINITY, c.BLOCKED_RETRY, 0

    def _look(self, now: float) -> None:
        """Look at the interface: whether it can be used, and what of it has changed."""
        try:
            problem = "" if self.link.refresh() else "no carrier"
            if not problem and not self.up:
                self.link.reopen()
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            self.take_down(problem, now)
            return
        self._tell_changes(now)
        if not self.up:
            self.up, self.retry_at = True, INFINITY
            self._router.interface_changed(self._index, up=True, now=now)
            self._tell(LinkChanged(self.name, True, "works again"))
            self._paths_changed(now)

    def _tell_changes(self, now: float) -> None:
        """Tell the router and the application what of the interface is not as it was."""
        name, mac, mtu = self.link.name, self.link.mac, self.link.mtu
        if name != self.name:
            self._tell(LinkChanged(name, True, f"{printable(self.name)} is called so now"))
        if mac != self.mac:
            self._router.interface_changed(self._index, mac=mac, slot=self.link.claim(), now=now)
            self._tell(LinkChanged(name, True, f"new Ethernet address {format_address(mac)}"))
        if mtu != self.mtu:
            self._refused = INFINITY
            self._router.interface_changed(self._index, mtu=mtu, now=now)
            self._paths_changed(now)
        self.name, self.mac, self.mtu = name, mac, mtu


class Node:
    """A node of the mesh on one or more links: owns the clock and the random source, and drives the pure machines.

    It has no thread. Whoever waits drives: `wait`, `Stream.read`, `Listener.accept` and all else that waits goes round
    by round, and `_sleep` is the one place that sleeps. What a program asks for is sent before the call returns; what
    arrives is answered when it waits next. So a program must come back to wait often, and wait nowhere else.
    """

    def __init__(
        self, links: Sequence[Link], *, address: Optional[bytes] = None, name: str = "", rng: Any = None
    ) -> None:
        """`rng`: for tests; else the system's."""
        self.links = tuple(links)
        self.names: Dict[bytes, str] = {}  # what the user calls other nodes
        rng = rng or random.SystemRandom()
        slots = [link.claim() for link in links]
        if address is None:
            free = is_unicast(links[0].mac) and slots[0] == 0
            address = links[0].mac if free else b"\x02" + rng.getrandbits(40).to_bytes(5, "big")
        self.address = address
        interfaces = [
            InterfaceConfig(link.name, link.mac, link.mtu, link.loopback, slot) for link, slot in zip(links, slots)
        ]
        self._router = Router(address, interfaces, rng=rng, now=self.now(), seq=int(time.time()), name=name)
        self._endpoint = Endpoint(address, rng=rng, mtu=max(link.mtu for link in links))  # paths may have less
        self._queues = [
            LinkQueue(index, link, self._router, tell=self._add_event, paths_changed=self._paths_changed)
            for index, link in enumerate(links)
        ]
        self._notices = [link.notices for link in links if link.notices >= 0]
        self._look_at = self.now() + c.HANDSHAKE_INTERVAL  # at the interfaces
        self._streams: Dict[Session, Stream] = {}
        self._listeners: Dict[int, Listener] = {}
        self.make_stream: Callable[[Node, Session], Stream] = Stream  # in place of plain ones (`use_secret`)
        self.port_bit = 0  # what is added to the port of each service then
        self._unproven: Dict[Session, float] = {}  # of callers that must prove something first; until when
        self._refused: Dict[bytes, float] = {}  # addresses of which was told, and when
        self._events: Deque[NodeEvent] = deque()
        self.on_event: Optional[Callable[[NodeEvent], None]] = None  # takes events in place of `next_event`
        self._changes = TokenBucket(c.CHANGES_PER_SECOND, c.CHANGES_AT_ONCE)
        self._omitted = 0
        self._strange: Dict[bytes, str] = {}  # v1.0 programs with which nothing is possible, and why
        self.shows_texts = False  # whether the application reads events, and texts must not get lost
        self._echoes: Dict[int, Echoed] = {}  # answers, by token
        self._receipts: Dict[int, Union[Delivered, Undelivered]] = {}  # by msg_id
        self._has_news = False
        self._received_at = -INFINITY  # when frames last came
        self._batch = 0  # how many they were
        self._crowded_until = -INFINITY  # other programs want the processor
        self._looked_at = -INFINITY  # when the last round looked for frames
        self._asides: Tuple[int, ...] = ()  # a pipe, from the first `aside` on
        self.failure = ""  # why nothing works any more
        self._closing = False
        # One large block taken and given back makes glibc keep twice as much of what is freed later (mallopt(3),
        # M_MMAP_THRESHOLD). Else each batch gives its memory back and gets it page by page: half the speed on `lo`.
        bytes(c.KEPT_BYTES // 2)

    # Life

    def close(self, *, abort: bool = False) -> None:
        """Finish all streams and give them CLOSE_SECONDS to arrive, then say goodbye to the mesh.

        With `abort`, those that are not finished yet are reset: the peer must not take half a file for a whole one.
        """
        if self._closing:
            return
        self._closing = True
        try:
            if not self.failure:
                self._end_streams(abort)
                self._router.leave(now=self.now())
                self.step()
                # A reset or farewell that waits for a full card would be lost with the backlog.
                self.wait_until(lambda: not any(queue.backlog for queue in self._queues), c.BLOCKED_PATIENCE)
                if len(self.links) > 1 and self._router.neighbours.all():
                    self.wait_until(lambda: False, c.LEAVE_SECONDS)
        finally:
            self._fail("the node is closed")
            for link in self.links:
                link.close()
            for end in self._asides:
                os.close(end)
            self._asides = ()

    def _end_streams(self, abort: bool) -> None:
        for session, stream in list(self._streams.items()):
            stream.abort() if abort and session.state in _UNFINISHED else stream.finish()
        self.wait_until(lambda: not self._streams, c.CLOSE_SECONDS)
        for stream in list(self._streams.values()):
            stream.abort()

    def _fail(self, why: str) -> None:
        """Make every call that waits, now or later, raise OSError."""
        self.failure = self.failure or why
        self._has_news = True
        for stream in self._streams.values():
            stream.has_news = True

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(abort=kind is not None)

    # The one wait

    def wait(self, *files: int, writing: Sequence[int] = (), timeout: Optional[float] = None) -> List[int]:
        """Wait until something has happened for the application, or a file can be read, or one of `writing` written.

        Return those of the files that can. For the application has happened: a stream has bytes, room, an end or a new
        `delivered`; a listener has a stream; `next_event` has an event; the node has failed. Then look at all of these
        without waiting: at those streams that have news.
        """
        until = self.now() if self._has_news else INFINITY if timeout is None else self.now() + timeout
        while True:
            found = self._round(until, files, writing)
            if found or self._has_news or self.now() >= until:
                self._has_news = False
                return found

    def aside(self, action: Callable[[], Any]) -> Aside:
        """Make a call that may wait for a disk, beside this thread."""
        if not self._asides:
            self._asides = os.pipe()
            for end in self._asides:
                os.set_blocking(end, False)
        return Aside(action, self._asides[1])

    def wait_until(self, ready: Callable[[], object], timeout: Optional[float]) -> bool:
        """Wait until `ready()`; return False when `timeout` seconds have passed, raise OSError if the node failed."""
        until = INFINITY if timeout is None else self.now() + timeout
        while not ready():
            self._check()
            if self.now() >= until:
                return False
            self._round(until)
        return True

    def _round(self, until: float, files: Sequence[int] = (), writing: Sequence[int] = ()) -> List[int]:
        """Do what is due, wait for frames, timers, files or `until`, and take up to RECEIVE_BATCH frames of each link.

        Return which files can be used. What the frames call for is sent in the next round: so a caller can answer
        first, and its answer carries the acknowledgement. Input comes before timers: after a pause of the process
        (SIGSTOP) what arrived meanwhile counts first.
        """
        if self.failure:
            return []
        try:
            with INTERRUPTS:
                now = self.now()
                self._do_what_is_due(now)
                wake_at = min(self._deadline(), until)
                links = {queue.link.fileno(): index for index, queue in enumerate(self._queues) if queue.up}
            ready = self._sleep([*links, *self._notices, *self._asides[:1], *files], writing, now, wake_at)
            with INTERRUPTS:
                now = self._looked_at = self.now()
                for index in [links[file] for file in ready if file in links]:
                    self._received_at = now
                    self._receive(index, now)
                if not set(self._notices).isdisjoint(ready):
                    self._look_at = now
                if self._asides and self._asides[0] in ready:
                    os.read(self._asides[0], 4096)
                    self._has_news = True
                self._tend_links(now)
                self._take_events(now)
        except OSError:
            if self._closing:  # meanwhile
                return []
            for file in (*files, *writing):
                os.fstat(file)  # the caller has closed this one
            raise
        except Exception:
            self._fail("a round of the node has failed: this is a bug")
            raise
        return [file for file in (*files, *writing) if file in ready]

    def _tend_links(self, now: float) -> None:
        """Look at the interfaces if it is time; try again what is blocked or down."""
        if self._omitted and self._changes.take(now=now):
            self._add_event(ChangesOmitted(self._omitted))
            self._omitted = 0
        is_time_to_look = self._look_at <= now
        if is_time_to_look:
            self._look_at = now + c.HANDSHAKE_INTERVAL
        for queue in self._queues:
            queue.tend(now, is_time_to_look=is_time_to_look)
        for session in [session for session, until in self._unproven.items() if until <= now]:
            self.refuse(session.peer, "has not proved in time that it holds this secret")
            session.abort()

    def _sleep(self, reading: Sequence[int], writing: Sequence[int], now: float, wake_at: float) -> List[int]:
        """Return which files can be used, at `wake_at` none.

        While frames come one after the other, look again and again for a moment before sleeping: to wake a sleeping
        processor up takes longer than most answers. But not while data flows and another program, perhaps the relay
        that is to bring the next frames, waits for the processor.
        """
        if now - self._received_at < c.SPIN_RECENT and now >= self._crowded_until and _yield_processor is not None:
            spin_until = min(now + c.SPIN_SECONDS, wake_at)
            while now < spin_until:
                ready = wait_for_files(reading, 0, writing)
                if ready:
                    return ready
                _yield_processor()
                began, now = now, self.now()
                if now - began > c.SPIN_CROWDED and self._batch >= c.CROWDED_BATCH:
                    self._crowded_until = now + c.CROWDED_SECONDS
                    break
        return wait_for_files(reading, None if wake_at == INFINITY else max(0.0, wake_at - now), writing)

    def _receive(self, index: int, now: float) -> None:
        try:
            frames = self._queues[index].link.receive()
        except OSError as error:
            self._queues[index].take_down(error.strerror or str(error), now)
            return
        self._batch = len(frames)
        for origin, run in self._router.receive_all(index, frames, now=now):
            self._endpoint.receive_all(origin, run, now=now, at=PAYLOAD_OFFSET)

    def _deadline(self) -> float:
        deadlines = [self._router.next_deadline(), self._endpoint.next_deadline()]
        waits = [queue.retry_at for queue in self._queues]
        waits += self._unproven.values()
        return min([self._look_at, *(at for at in deadlines if at is not None), *waits])

    def step(self) -> None:
        """Send at once what a caller has asked for. One that never waits looks for frames too, every LOOK_SECONDS."""
        now = self.now()
        if now - self._looked_at > c.LOOK_SECONDS and not self._closing:
            self._round(now)
        else:
            with INTERRUPTS:
                self._do_what_is_due(now)

    def _do_what_is_due(self, now: float) -> None:
        """Hand out what has happened and send what is due."""
        self._take_events(now)
        self._transmit(now)
        if self._take_events(now):
            self._transmit(now)

    def _transmit(self, now: float) -> None:
        for peer, burst in self._endpoint.bursts_to_send(now=now):
            index, frames = self._router.send_streams(peer, burst, now=now)
            self._queues[index].send_all(frames, now)
        for index, frame in self._router.frames_to_send(now=now):
            self._queues[index].send(frame, now)

    def _paths_changed(self, now: float) -> None:
        """Tell every stream to ask at once for what is outstanding, in frames of the right size."""
        for peer in {session.peer for session in self._streams}:
            self._endpoint.path_changed(peer, now=now, mtu=self._router.mtu_to(peer))

    # What has happened

    def _take_events(self, now: float) -> bool:
        """Hand out the events of both machines; return whether there were any."""
        router, endpoint = self._router, self._endpoint
        if not router.events and not endpoint.events:
            return False
        mesh_event, stream_event = router.next_event(), endpoint.next_event()
        while mesh_event is not None:
            self._on_mesh_event(mesh_event, now)
            mesh_event = router.next_event()
        while stream_event is not None:
            self._on_stream_event(stream_event, now)
            stream_event = endpoint.next_event()
        self._has_news = True
        return True

    def _on_mesh_event(self, event: MeshEvent, now: float) -> None:
        if isinstance(event, PathChanged):
            self._endpoint.path_changed(event.peer, now=now, mtu=event.mtu)
        elif isinstance(event, (Delivered, Undelivered)):
            self._receipts[event.msg_id] = event
        elif isinstance(event, Echoed):
            self._echoes[event.token] = event
        else:
            if isinstance(event, StrangeNode):
                self._strange[event.address] = event.speaks
            if isinstance(event, NodeFound) and any(session.peer == event.address for session in self._streams):
                self._endpoint.path_changed(event.address, now=now, mtu=event.mtu)
            self._keep(event)

    def _on_stream_event(self, event: Event, now: float) -> None:
        session = event.session
        if isinstance(event, Accepted):
            listener = self._listeners.get(session.port)
            if listener is None or not listener.has_room_for(session.peer):
                session.abort()
                return
            self._tell_mtu(session.peer, now)
            self._streams[session] = self.make_stream(self, session)
            self._unproven[session] = now + c.PROOF_SECONDS
            same = [one for one in self._unproven if one.peer == session.peer]
            if len(same) > c.UNPROVEN_PER_NODE or len(self._unproven) > c.UNPROVEN_MAX:
                oldest = same[0] if len(same) > c.UNPROVEN_PER_NODE else next(iter(self._unproven))
                del self._unproven[oldest]  # not only with its event: several may come in one round
                oldest.abort()
        elif isinstance(event, Stalled):
            self._router.hint(session.peer, now=now)
        stream = self._streams.get(session)
        if stream is not None:
            stream.on_event(event)
            if stream.connected and self._unproven.pop(session, None) is not None:
                self._admit(stream)
        if isinstance(event, Closed):
            self._forget(session)

    def _admit(self, stream: "Stream") -> None:
        """Let a listener have a stream: at once if it is a plain one, else when its caller has proved itself."""
        listener = self._listeners.get(stream.port | self.port_bit)
        if listener is None:
            stream.abort()
        else:
            listener.arrived.append(stream)

    def refuse(self, address: bytes, reason: str) -> None:
        """Tell the application, once in a while for each address, that a caller is refused."""
        now = self.now()
        if now - self._refused.get(address, -INFINITY) >= c.REFUSED_SECONDS:
            self._refused.pop(address, None)
            self._refused[address] = now
            if len(self._refused) > c.UNPROVEN_MAX:
                del self._refused[next(iter(self._refused))]
            self._add_event(StrangerRefused(address, reason))

    def _forget(self, session: Session) -> None:
        stream = self._streams.pop(session, None)
        self._unproven.pop(session, None)
        listener = self._listeners.get(session.port)
        unread = session.readable > 0  # acknowledged: the peer knows that we hold it
        if stream is not None and listener is not None and stream in listener.arrived and not unread:
            listener.arrived.remove(stream)

    def _tell_mtu(self, peer: bytes, now: float) -> None:
        mtu = self._router.mtu_to(peer)
        if mtu < max(link.mtu for link in self.links):
            self._endpoint.path_changed(peer, now=now, mtu=mtu)

    def _add_event(self, event: NodeEvent) -> None:
        self._keep(event)
        self._has_news = True

    def _keep(self, event: NodeEvent) -> None:
        """Keep an event for the application, of too many the newest; but texts that it is to read are acknowledged."""
        if isinstance(event, (NodeFound, NodeLost, RouteChanged)) and not self._changes.take(now=self.now()):
            self._omitted += 1
            return
        if self.on_event is not None:
            self.on_event(event)
            return
        self._events.append(event)
        if len(self._events) > c.EVENTS_MAX:
            kept = (MessageReceived,) if self.shows_texts else ()
            spare = next((index for index, old in enumerate(self._events) if not isinstance(old, kept)), None)
            if spare is not None:
                del self._events[spare]
        self._count_texts()

    def _count_texts(self) -> None:
        texts = sum(isinstance(event, MessageReceived) for event in self._events) if self.shows_texts else 0
        self._router.messages.takes_texts = texts < c.EVENTS_MAX

    def _call(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of a machine now, and send at once what comes of it."""
        self._check()
        with INTERRUPTS:
            result = action(*arguments, now=self.now(), **options)
        self.step()
        return result

    def _check(self) -> None:
        if self.failure:
            raise OSError(errno.ESHUTDOWN, self.failure)

    # What applications call

    @property
    def mtu(self) -> int:
        """The largest AlexMesh frame in bytes, header included, that fits every link."""
        return min(link.mtu for link in self.links)

    def now(self) -> float:
        """Return the node's clock: monotonic seconds."""
        return time.monotonic()

    def listen(self, port: int, *, only: bytes = b"") -> "Listener":
        """Take streams that others, or `only` one, open to `port`; raise OSError EADDRINUSE if that is done already."""
        self._check()
        port |= self.port_bit
        if port in self._listeners:
            raise OSError(errno.EADDRINUSE, f"this node listens on port {port} already")
        with INTERRUPTS:
            self._endpoint.listen(port)
            self._listeners[port] = Listener(self, port, only)
            self._announce_ports()
        return self._listeners[port]

    def unlisten(self, port: int) -> None:
        """Take no more streams to `port`. Better use `Listener.close`."""
        with INTERRUPTS:
            self._endpoint.unlisten(port)
            del self._listeners[port]
            self._announce_ports()

    def _announce_ports(self) -> None:
        self._router.set_ports(tuple(sorted(self._listeners)))
        self.step()

    def connect(self, peer: bytes, port: int, *, timeout: Optional[float] = None) -> "Stream":
        """Open a stream to `port` of the node `peer`, known or not, and wait until it is open.

        Raises ValueError for an address that cannot be a peer's, ConnectionRefusedError, and TimeoutError when nobody
        answers within `timeout` seconds (SYN_TIMEOUT; NO_SUCH_NODE_SECONDS if the node is unknown).
        """
        timeout = c.SYN_TIMEOUT if timeout is None else timeout
        stream = self.open(peer, port)
        try:
            first = min(timeout, c.NO_SUCH_NODE_SECONDS)
            answered = self.wait_until(lambda: stream.connected or stream.ended, first)
            if not answered and self.knows(peer) and peer not in self._strange:
                answered = self.wait_until(lambda: stream.connected or stream.ended, timeout - first)
            if not answered:
                raise self._silence(peer, f"no answer from {format_address(peer)} within {timeout:g} s")
            self._strange.pop(peer, None)  # it speaks ours now, or a forger said otherwise
            # The SYN may have been flooded: a window of data sent so would be lost but for a few frames.
            self.wait_until(lambda: self._router.path_to(peer) or stream.ended, c.SETTLE_SECONDS)
            if stream.error is not None:
                raise stream.error
        except BaseException:
            stream.abort()
            raise
        return stream

    def open(self, peer: bytes, port: int) -> "Stream":
        """Begin to open a stream, as `connect` without waiting: `connected` or `error` tells what became of it."""
        self._check()
        try:
            with INTERRUPTS:
                session = self._endpoint.connect(peer, port | self.port_bit, now=self.now())
                self._tell_mtu(peer, self.now())
                stream = self._streams[session] = self.make_stream(self, session)
        except RuntimeError as error:
            raise OSError(errno.EMFILE, str(error)) from None
        self.step()
        return stream

    def send_message(self, dest: bytes, text: str, *, timeout: float) -> float:
        """Send a datagram; return the round trip in seconds once the other node has acknowledged it.

        Raises TimeoutError if that does not happen, ValueError for a text that does not fit one frame.
        """
        if dest == self.address or not is_unicast(dest):
            raise ValueError(f"{format_address(dest)} is not the address of another node")
        data = text_payload(text, self._router.mtu_to(dest) - c.MESH_HEADER_BYTES)
        size = c.MESH_HEADER_BYTES + len(data)
        number = self._call(self._router.send_message, dest, data, timeout=timeout)
        self.wait_until(lambda: number in self._receipts or self._router.mtu_to(dest) < size, None)
        if number not in self._receipts:  # the path is known by now, and narrower than our own cards
            self._router.messages.end(number)
            text_payload(text, self._router.mtu_to(dest) - c.MESH_HEADER_BYTES)
        receipt = self._receipts.pop(number)
        if isinstance(receipt, Undelivered):
            raise self._silence(dest, f"no acknowledgement from {format_address(dest)} within {timeout:g} s")
        return receipt.rtt

    def broadcast(self, text: str) -> None:
        """Send a text to every node, unacknowledged; raise ValueError if it does not fit one frame."""
        self._call(self._router.broadcast, text_payload(text, self.mtu - c.MESH_HEADER_BYTES))

    def echo(self, dest: bytes, *, timeout: float) -> Echoed:
        """Ask a node whether it is there, and what runs on it; raise TimeoutError."""
        for _, answer in self.ping(dest, count=1, interval=timeout, wait=timeout):
            if answer is not None:
                return answer
        raise self._silence(dest, f"no answer from {format_address(dest)} within {timeout:g} s")

    def ping(self, dest: bytes, *, count: int, interval: float, wait: float) -> Iterator[Tuple[int, Optional[Echoed]]]:
        """Send an echo every `interval` seconds, `count` of them or, if that is 0, for ever.

        Yield (number from 1 on, None) when one has been sent, and (number, answer) when its answer comes. The last one
        has `wait` seconds for that.
        """
        self.wait_until(lambda: self._router.path_to(dest), min(c.SETTLE_SECONDS, wait))
        asked: Dict[int, int] = {}  # token -> number
        send_at = self.now()
        for number in range(1, count + 1) if count else itertools.count(1):
            asked[self._call(self._router.echo, dest)] = number
            if len(asked) > c.MESSAGES_MAX:
                del asked[next(iter(asked))]
            yield number, None
            is_last = number == count
            send_at += wait if is_last else interval
            yield from self._answers(asked, send_at, is_last)

    def trace(self, dest: bytes, *, wait: float) -> Iterator[Tuple[int, Optional[Echoed]]]:
        """Ask each relay on the path to a node, then the node itself; each has TRACE_TRIES times `wait` seconds.

        Yield (number from 1 on, answer), with None for one that does not answer. Raises TimeoutError without a route.
        """
        if not self.wait_until(lambda: self._router.path_to(dest), max(c.SETTLE_SECONDS, wait)):
            raise self._silence(dest, f"there is no route to {format_address(dest)}")
        for number in range(1, c.TTL_ROUTED + 1):
            asked: Dict[int, int] = {}
            answer = None
            for _ in range(c.TRACE_TRIES):
                asked[self._call(self._router.echo, dest, ttl=number - 1)] = number
                answer = next((come for _, come in self._answers(asked, self.now() + wait, True)), None)
                if answer is not None:
                    break
            yield number, answer
            if answer is not None and answer.address == dest:
                return

    def _answers(self, asked: Dict[int, int], until: float, is_last: bool) -> Iterator[Tuple[int, Optional[Echoed]]]:
        """Yield the answers that come until then, or all if no more will be asked."""
        while asked or not is_last:
            if not self.wait_until(lambda: asked.keys() & self._echoes.keys(), until - self.now()):
                return
            come = [(asked.pop(token), self._echoes.pop(token)) for token in asked.keys() & self._echoes.keys()]
            yield from come

    def discover(self, wait: float, *, enough: Callable[[List[NodeInfo]], object] = lambda _: False) -> List[NodeInfo]:
        """Announce this node, ask every node that shows up for `wait` seconds, and return those that answered.

        Return earlier, but not before SETTLE_SECONDS, once they are `enough`.
        """
        started = self.now()
        self._echoes.clear()
        self._call(self._router.announce)
        found: List[NodeInfo] = []
        while self.now() < started + wait and not (self.now() >= started + c.SETTLE_SECONDS and enough(found)):
            answered = {node.address for node in found}
            for node in self._router.nodes():
                if node.address not in answered:
                    self._call(self._router.echo, node.address)
            self.wait_until(lambda: False, min(c.ECHO_RETRY, started + wait - self.now()))
            found = self._answered()
        return found

    def _answered(self) -> List[NodeInfo]:
        echoes = {echo.address: echo for echo in self._echoes.values()}
        return [
            node._replace(hops=echo.hops, rtt=echo.rtt, name=echo.name, ports=echo.ports)
            for node in self._router.nodes()
            for echo in [echoes.get(node.address)]
            if echo is not None
        ]

    def ask(self, dests: Iterable[bytes]) -> None:
        """Send an echo to each of these nodes, without waiting; forgets the answers that came before."""
        self._check()
        self._echoes.clear()
        for dest in dests:
            self._call(self._router.echo, dest)

    def answers(self) -> List[Echoed]:
        """Return the answers that have come since `ask`."""
        return list(self._echoes.values())

    def next_event(self, *, timeout: Optional[float] = None) -> Optional[NodeEvent]:
        """Return the next thing that happened in the mesh; None when `timeout` seconds (0: do not wait) have passed."""
        event = self._events.popleft() if self.wait_until(lambda: self._events, timeout) else None
        self._count_texts()
        return event

    def nodes(self) -> List[NodeInfo]:
        """Return the nodes that are known."""
        return list(self._router.nodes())

    def knows(self, address: bytes) -> bool:
        """Return whether a node was heard of in the last minutes."""
        return self._router.knows(address)

    def _silence(self, peer: bytes, what: str) -> TimeoutError:
        """Return what to raise when a peer did not answer."""
        if peer in self._strange:
            return TimeoutError(describe_event(StrangeNode(peer, self._strange[peer])))
        return TimeoutError(what if self.knows(peer) else no_such_node(peer))

    def tell_routes(self) -> None:
        """Let `next_event` tell of every change of a route too, and first of the routes there are."""
        self._router.routes.tells_changes = True
        for known in self._router.nodes():
            self._add_event(RouteChanged(known.address, known.interface, known.next_hop, known.hops, known.mtu))

    def neighbours(self) -> List[Neighbour]:
        """Return the nodes that are heard directly."""
        return self._router.neighbours.all()

    @property
    def drops(self) -> Dict[str, int]:
        """How many frames and segments were dropped, by reason."""
        of_links = [queue.drops for queue in self._queues]
        return dict(sum([*of_links, self._router.drops, self._endpoint.drops], Counter()))


_yield_processor = getattr(os, "sched_yield", None)  # not on every platform


def wait_for_files(reading: Sequence[int], timeout: Optional[float], writing: Sequence[int] = ()) -> List[int]:
    """Wait until some files can be read, or written; return which, none after `timeout` seconds. Raise OSError.

    `select` knows no file from number 1024 on; but `poll` knows every device only on Linux.
    """
    if not _LINUX:
        can_read, can_write, _ = select.select(reading, writing, (), timeout)
        return can_read + can_write
    poll = select.poll()
    for file in reading:
        poll.register(file, select.POLLIN)
    for file in writing:
        poll.register(file, select.POLLOUT)
    ready = poll.poll(None if timeout is None else 1000 * timeout)
    usable = [file for file, event in ready if not event & select.POLLNVAL]
    if len(usable) < len(ready):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return usable


# --- Streams --------------------------------------------------------------------------------------------------------


class BusyError(ConnectionRefusedError):
    """The peer listens, but takes no more streams now."""


_ERRORS: Dict[str, Type[OSError]] = {
    "refused": ConnectionRefusedError,
    "busy": BusyError,
    "no answer": TimeoutError,
    "timed out": TimeoutError,
    "peer silent": TimeoutError,
    "reset by peer": ConnectionResetError,
    "peer restarted": ConnectionResetError,
    "aborted": ConnectionAbortedError,
}
_UNFINISHED = (State.SYN_SENT, State.ESTABLISHED, State.CLOSE_WAIT)
_FIN_UNDERWAY = (State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)


class Stream(io.RawIOBase):
    """A stream as a file: `read` returns b"" once the peer has finished, `write` takes everything or blocks.

    After `setblocking(False)` both return None instead of waiting; from then on `has_news` is false until they may do
    something. What the network did is raised as ConnectionResetError, TimeoutError and the like, after everything that
    arrived before has been read. A `with` block that is left by an exception resets the stream: the peer must not
    take half a file for a whole one.
    """

    def __init__(self, node: Node, session: Session) -> None:
        super().__init__()
        self.node = node
        self.peer = session.peer
        self.port = session.port & ~c.PORT_SECRET  # of the service
        self.connected = not session.opener  # whether the peer has answered
        self.has_news = True
        self._session = session
        self._blocking = True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def setblocking(self, blocking: bool) -> None:
        """Let `read`, `write` and `close` wait, or not."""
        self._blocking = blocking

    def read(self, size: int = -1) -> Optional[bytes]:
        """Return at least one byte, at most `size` (negative: all until the end); b"" at the end."""
        if size < 0:
            return self.readall()
        self._check_open()
        session = self._session
        if self._blocking and size:
            self._wait(lambda: session.readable or session.receiver.finished)
        if not session.readable:
            return self._read_nothing(size)
        with INTERRUPTS:
            data = session.read(size)
        if session.presses:
            self._step()
        return data

    def _read_nothing(self, size: int) -> Optional[bytes]:
        if not size or self._session.at_eof:
            return b""
        if self.error is not None:
            raise self.error
        if self.ended:
            return b""
        self.has_news = False
        return None

    def readinto(self, buffer: Any) -> Optional[int]:
        """Read into `buffer` and return how many bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        if data is None:
            return None
        view[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> Optional[int]:
        """Take all of `data`; after `setblocking(False)` as much as there is room for, None if there is none."""
        view = memoryview(data).cast("B")
        taken = 0
        self._check_open()
        while True:
            if self.error is not None:
                raise self.error
            with INTERRUPTS:
                taken += self._put(view[taken:])
            self._step()
            if taken == len(view):
                return taken
            if not self._blocking:
                self.has_news = False
                return taken or None
            self._wait(functools.partial(self._has_room, min(len(view) - taken, c.WRITE_STEP)))

    def _put(self, data: memoryview) -> int:
        """Take as much of `data` as there is room for; return how much."""
        return self._session.send(data)

    def _has_room(self, count: int) -> bool:
        return self._session.writable >= count

    def finish(self) -> None:
        """Say that nothing more will be written; reading goes on. Does nothing the second time."""
        with INTERRUPTS:
            self._session.finish()
        self._step()

    def drain(self, timeout: Optional[float] = None) -> None:
        """Wait until the peer holds every byte written, and knows of the end if there is one.

        Raises TimeoutError after `timeout` seconds, or what has ended the stream.
        """
        if not self._wait(lambda: self.drained, timeout):
            raise TimeoutError(f"{self.written - self.delivered} bytes not delivered within {timeout:g} s")
        if self.error is not None:
            raise self.error

    def abort(self) -> None:
        """End the stream in both directions at once; the peer sees a reset."""
        with INTERRUPTS:
            self._session.abort()
        self._step()

    def close(self) -> None:
        """Finish and let go, once the peer has finished too.

        After CLOSE_SECONDS, or if the peer sends what will not be read any more, the stream is reset. It does not wait
        after `setblocking(False)`: the rest happens in the background.
        """
        if self.closed:
            return
        try:
            self.finish()
            if self._blocking and not self._wait(lambda: self._deserted, c.CLOSE_SECONDS):
                self.abort()
        finally:
            super().close()
            self.on_event(None)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self.abort()
        self.close()

    @property
    def written(self) -> int:
        """How many bytes `write` has taken."""
        return self._session.written

    @property
    def delivered(self) -> int:
        """How many of them the peer's node holds."""
        return self._session.acked

    @property
    def drained(self) -> bool:
        """Whether the peer holds everything that was written, and knows of the end if there is one."""
        if self._session.closed is not None:
            return self._session.closed.reason == "finished"
        return self.delivered == self.written and self._session.state not in _FIN_UNDERWAY

    @property
    def stalled(self) -> bool:
        """Whether the peer does not answer at the moment."""
        return self._session.stalled

    @property
    def heard_at(self) -> float:
        """When the peer was last heard, by the node's clock; an idle one is asked after `keep_alive` seconds."""
        return self._session.heard

    def keep_alive(self, seconds: float) -> None:
        """Ask an idle peer whether it is there after so long, in place of KEEPALIVE."""
        self._session.keepalive = seconds

    @property
    def ended(self) -> bool:
        """Whether nothing more will arrive or be delivered."""
        return self._session.closed is not None or bool(self.node.failure)

    @property
    def restarted(self) -> bool:
        """Whether the stream has ended because another program has the peer's address now."""
        return self._session.closed is not None and self._session.closed.reason == "peer restarted"

    @property
    def error(self) -> Optional[OSError]:
        """Why the stream has ended; None while it is open, and after both sides have finished."""
        if self._session.closed is not None:
            reason = self._session.closed.reason
            kind = _ERRORS.get(reason)
            if reason == "peer restarted":  # or its reset got lost: then too it knows nothing of the stream
                reason = "it knows nothing of this stream any more (given up, or restarted)"
            return kind(f"{format_address(self.peer)} port {self.port}: {reason}") if kind else None
        return OSError(errno.ESHUTDOWN, self.node.failure) if self.node.failure else None

    @property
    def _deserted(self) -> bool:
        """Whether the peer holds everything and has sent something that will not be read."""
        return self.drained and self._session.readable > 0 and not self.ended

    def on_event(self, event: Optional[Event]) -> None:
        """Look at the session again; for the node."""
        if isinstance(event, Connected):
            self.connected = True
        self.has_news = True
        if self.closed and self._deserted:
            self._session.abort()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the stream is closed")

    def _wait(self, ready: Callable[[], object], timeout: Optional[float] = None) -> bool:
        return self.node.wait_until(lambda: ready() or self.ended, timeout)

    def _step(self) -> None:
        if not self.node.failure:
            self.node.step()


class Listener:
    """The streams that others open to one port of a node."""

    def __init__(self, node: Node, port: int, only: bytes = b"") -> None:
        self.node = node
        self.port = port
        self.only = only  # one node, or all (b"")
        self.closed = False
        self.arrived: Deque[Stream] = deque()

    def accept(self, *, timeout: Optional[float] = None) -> Optional[Stream]:
        """Return the next stream; None when `timeout` seconds (0: do not wait) have passed, or after `close`."""
        self.node.wait_until(lambda: self.arrived or self.closed, timeout)
        return self.arrived.popleft() if self.arrived else None

    def has_room_for(self, peer: bytes) -> bool:
        """Return whether another stream of that node may wait; those that it reset with bytes unread count."""
        if self.only and peer != self.only:
            return False
        waiting = sum(stream.peer == peer for stream in self.arrived)
        return waiting < c.STREAMS_PER_PEER and len(self.arrived) < c.STREAMS_MAX

    def close(self) -> None:
        """Take no more streams, and reset those that were not taken."""
        if not self.closed:
            self.closed = True
            self.node.unlisten(self.port)
            while self.arrived:
                self.arrived.popleft().abort()

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close()


# --- Privileges -----------------------------------------------------------------------------------------------------


def drop_privileges() -> str:
    """Become the user who called sudo, for good; return its name, empty without sudo: then root stays root.

    To be called while the process has one thread. Raises SetupError if it fails, or if root could be had back.
    """
    if os.geteuid() != 0 or os.environ.get("SUDO_UID", "0") == "0":
        return ""
    user = os.environ.get("SUDO_USER", "")
    try:
        uid, gid = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
        os.initgroups(user, gid)
        os.setgid(gid)
        os.setuid(uid)  # for root: the real, the effective and the saved one
        if _LINUX:
            _forbid_new_privileges()
    except (KeyError, ValueError, OverflowError, OSError) as error:
        raise SetupError(f"cannot become the user who called sudo ({error}): --keep-root stays root") from None
    for regain in (os.seteuid, os.setuid):
        with contextlib.suppress(OSError):
            regain(0)
            raise SetupError("root's rights cannot be given up for good here: --keep-root goes on with them")
    with contextlib.suppress(KeyError):  # a user id without an account
        os.environ["HOME"] = pwd.getpwuid(uid).pw_dir
    return f"{user} (uid {uid}, gid {gid})"


def _forbid_new_privileges() -> None:
    """Let nothing that this process may execute gain rights: prctl(2), PR_SET_NO_NEW_PRIVS; raise OSError."""
    import ctypes

    set_no_new_privileges, yes, none = map(ctypes.c_ulong, (38, 1, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(set_no_new_privileges, yes, none, none, none):
        raise OSError(ctypes.get_errno(), "prctl")


# --- Command line ---------------------------------------------------------------------------------------------------

_SUDO_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where sudo looks on Linux
_NAMES_FILES = ("/etc/bat-hosts", "~/bat-hosts")  # where batctl looks too; of two names for one address the last holds


class Parser(argparse.ArgumentParser):
    """One that takes options before, between and after the other words.

    argparse itself gives `[NODE]` of `IFACE [NODE]` up once an option stands between them (bpo-14191).
    """

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return what the words mean, the options among them first; exit with 2 where they mean nothing."""
        options: List[str] = []
        words: List[str] = []
        rest = iter(sys.argv[1:] if args is None else args)
        for word in rest:
            if word == "--":
                words += [word, *rest]
            elif self._is_option(word):
                options.append(word)
                meant = [action for name, action in self._option_string_actions.items() if name.startswith(word)]
                if meant and meant[0].nargs != 0:
                    options += itertools.islice(rest, 1)
            else:
                words.append(word)
        return super().parse_args([*options, *words], namespace)

    def _is_option(self, word: str) -> bool:
        """Return whether argparse takes a word for an option: a negative number, or a text with a blank, is none."""
        if not word.startswith("-") or word == "-":
            return False
        is_known = any(name.startswith(word.partition("=")[0]) for name in self._option_string_actions)
        return is_known or not (" " in word or self._negative_number_matcher.match(word))


class _Refuse(argparse.Action):
    """An option that makes no sense here, and is not shown by --help; `const` says why."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(f"argument {self.option_strings[0]}: {self.const}")


def argument_parser(
    prog: str, description: str, epilog: str = "", *, has_streams: bool = False
) -> argparse.ArgumentParser:
    """Return a parser of what all scripts share: the interface, names, and how the script speaks.

    `has_streams`: what it says can be made secret.
    """
    statuses = "exit status: 0 done, 1 failed, 2 wrong use or set-up, 130 after Ctrl-C, 143 (128 + 15) after SIGTERM"
    parser = Parser(
        prog=prog,
        description=description,
        epilog=f"{epilog}\n{statuses}".lstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("interface", metavar="IFACE", help="Ethernet interface, or several: eth0,eth1; or lo")
    shared = parser.add_argument_group("options of all programs")
    shared.add_argument(
        "--name", default=login_name(), help="what other nodes show beside this one's address (the login name)"
    )
    shared.add_argument(
        "--names",
        metavar="FILE",
        help=f"what you call other nodes: lines `ADDRESS NAME` ({' and '.join(_NAMES_FILES)})",
    )
    shared.add_argument("--json", action="store_true", help="one JSON object a line in place of text")
    shared.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set",
    )
    shared.add_argument("--pcap", metavar="FILE", help="write every frame sent and received to FILE, for Wireshark")
    shared.add_argument(
        "--keep-root", action="store_true", help="stay root; else, under sudo, become the user who called it"
    )
    if has_streams:
        what = "talk only to holders of the same FILE, encrypted (see README, Secrecy)"
        shared.add_argument("--secret", metavar="FILE", help=what)
    else:
        why = "messages, broadcasts and pings are open; only the chat and the streams can be secret"
        shared.add_argument("--secret", action=_Refuse, nargs="?", const=why, help=argparse.SUPPRESS)
    volume = shared.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but errors")
    volume.add_argument("-v", "--verbose", action="store_true", help="on stderr also what happens in the mesh")
    return parser


def login_name() -> str:
    """Return the name of the user, also behind sudo."""
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user id without an account
        return ""


def count_argument(text: str) -> int:
    """Return a number that is not negative; raise ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if int(text) >= 0:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")


def seconds_argument(text: str) -> float:
    """Return a positive number; raise ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1e6:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def check_folder(option: str, folder: str) -> None:
    """Raise SetupError if what an option names is no directory."""
    if not os.path.isdir(folder):
        is_file = os.path.lexists(folder)
        hint = "it is not a directory" if is_file else f"no such directory; to make it: mkdir -p {quoted(folder)}"
        raise SetupError(f"{option} {quoted(folder)}: {hint}")


def has_color(arguments: argparse.Namespace, file: TextIO) -> bool:
    """Return whether what goes to this file may be coloured (https://no-color.org)."""
    if arguments.color != "auto":
        return bool(arguments.color == "always")
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def emphasis(arguments: argparse.Namespace, file: TextIO) -> Callable[[str], str]:
    """Return what makes a text stand out in this file: bold, or as it is."""
    return "\x1b[1m{}\x1b[m".format if has_color(arguments, file) else str


def open_node(
    arguments: argparse.Namespace, *, client: str = "", tell: Optional[Callable[[str], object]] = None
) -> Node:
    """Return a running node on the interfaces asked for, and say on stderr which it is; raise SetupError.

    `client` is the script that reaches it, if it is a server. `tell` is for scripts that do not take the node's events
    themselves: with --verbose it gets a line about each thing that happens in the mesh.
    """
    links = _open_links(arguments.interface.split(","))
    node = Node(links, name=arguments.name[: c.NAME_CHARACTERS])
    try:
        # Nothing has been read from the network until then, and no file opened.
        user = "" if arguments.keep_root else drop_privileges()
        _open_files(node, links, arguments)
    except SetupError:
        node.close()
        raise
    if not arguments.quiet:
        print(_identity(node, client, getattr(arguments, "secret", None)), file=sys.stderr, flush=True)
    if arguments.verbose:
        _tell_setup(node, user)
    node.shows_texts = tell is None
    if tell is not None and arguments.verbose:
        node.tell_routes()
        node.on_event = functools.partial(_tell_event, node.names, tell)
    return node


def _open_files(node: Node, links: Sequence[EthernetLink], arguments: argparse.Namespace) -> None:
    """Read the user's names, and begin to record; raise SetupError."""
    node.names = read_names(arguments.names)
    if arguments.pcap:
        capture = Capture(arguments.pcap)
        for link in links:
            link.record(capture)


def _open_links(names: Iterable[str]) -> List[EthernetLink]:
    """Return a link for each interface; raise SetupError if one cannot be used."""
    links: List[EthernetLink] = []
    try:
        for name in names:
            links.append(EthernetLink(name))
            if links[-1].name in [link.name for link in links[:-1]]:  # named twice, or by an altname
                links.pop().close()
    except SetupError:
        for link in links:
            link.close()
        raise
    return links


def _identity(node: Node, client: str, secret: Optional[str]) -> str:
    line = f"alexmesh: node {format_address(node.address)} on {', '.join(printable(link.name) for link in node.links)}"
    if not client:
        return line
    option = f" --secret {quoted(secret)}" if secret else ""
    return line + f"; reach it with: {command_line(client, node.links[:1])} {format_address(node.address)}{option}"


def command_line(script: str, links: Sequence[Link]) -> str:
    """Return how to start one of the scripts on these interfaces."""
    path = shlex.quote(os.path.join(os.path.dirname(sys.argv[0]), script))
    names = quoted(",".join(link.name for link in links))
    return start_command(f"{path} {names}", is_sudo="SUDO_UID" in os.environ)


def start_command(words: str, *, is_sudo: bool) -> str:
    """Return how to start a script with this interpreter: by its path where `python3` would be another."""
    import shutil

    path = _SUDO_PATH if _LINUX and is_sudo and "SUDO_UID" not in os.environ else None
    found = shutil.which("python3", path=path)
    is_same = found == sys.executable or (
        found is not None and sys.prefix == sys.base_prefix and os.path.samefile(found, sys.executable)
    )
    return f"{'sudo ' * is_sudo}{'python3' if is_same else shlex.quote(sys.executable)} {words}"


def _tell_setup(node: Node, user: str) -> None:
    lines = [f"{printable(link.name)} is {format_address(link.mac)}, MTU {link.mtu}" for link in node.links]
    lines.append(f"root is given up for {user}" if user else f"runs as {login_name()} (uid {os.geteuid()})")
    lines.append(f"names of other nodes known: {len(node.names)}")
    print("\n".join("alexmesh: " + line for line in lines), file=sys.stderr, flush=True)


def _tell_event(names: Mapping[bytes, str], tell: Callable[[str], object], event: NodeEvent) -> None:
    if not isinstance(event, MessageReceived):
        tell(describe_event(event, names))


def tell_on_stderr(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def read_names(path: Optional[str]) -> Dict[bytes, str]:
    """Return the names in a file, or in those that are always looked for; say on stderr which lines are wrong.

    Raises SetupError if `path` cannot be read.
    """
    names: Dict[bytes, str] = {}
    for each in (path,) if path else map(os.path.expanduser, _NAMES_FILES):
        try:
            with open(each, encoding="utf-8", errors="backslashreplace") as file:
                found, faults = parse_names(file.read())
        except OSError as error:
            if path:
                raise SetupError(f"cannot read the names in {printable(path)}: {error.strerror}") from None
            continue
        for number, fault in faults:
            print(f"{printable(each)}:{number}: {fault}", file=sys.stderr)
        again = set(found.values())
        names = {address: name for address, name in names.items() if name not in again}
        names.update(found)
    return names


def check_peer(text: str) -> None:
    """Raise SetupError for what can be neither the address of a node nor its name."""
    try:
        address = parse_address(text)
    except ValueError as error:
        if not is_name(text.partition("~")[0].replace("?", "_")):  # or what `label_names` has made of it
            raise SetupError(f"{error}, or a name") from None
    else:
        if not is_unicast(address):
            raise SetupError(f"{text} is not the address of one node")


def peer_address(text: str, node: Node) -> bytes:
    """Return the address that the user gave, or that has the name given: in the user's files, else in the mesh.

    Raises SetupError if it is not that of one other node, TimeoutError if there are none that could have the name.
    """
    check_peer(text)
    try:
        address = parse_address(text)
    except ValueError:
        known = [address for address, name in node.names.items() if name == text]
        address = known[0] if known else _find_name(text, node)
    if address == node.address:
        raise SetupError(f"{text} is this node's own address: give that of the other one")
    return address


def _find_name(text: str, node: Node) -> bytes:
    """Return the address of the one node of the mesh that calls itself so, or is shown so."""

    def called(found: List[NodeInfo]) -> List[bytes]:
        said = {one.address: one.name for one in found}
        labels = label_names(said, node.names)
        return [address for address, label in labels.items() if text in (label, printable_name(said[address]))]

    found = node.discover(c.FIND_SECONDS, enough=called)
    addresses = called(found)
    if len(addresses) == 1:
        return addresses[0]
    if not found:
        raise TimeoutError(f"no node named {text} answered: start node.py there, or give an address")
    labels = label_names({one.address: one.name for one in found}, node.names)
    shown = sorted(
        f"{label} ({format_address(address)})"
        for address, label in labels.items()
        if address in addresses or (label and not addresses)
    )
    shown[c.CANDIDATES_MAX :] = ["..."] * (len(shown) > c.CANDIDATES_MAX)
    problem = f"several nodes are called {text}, choose one:" if addresses else f"no node is named {text}, but:"
    raise SetupError(
        f"{problem} {', '.join(shown) or command_line('send_handshake.py', node.links) + ' lists addresses'}"
    )


def open_stream(node: Node, peer: bytes, port: int, server: str) -> Stream:
    """Connect as `Node.connect` does; what is raised names the next command. `server` is the script that listens."""
    try:
        return node.connect(peer, port)
    except ConnectionRefusedError as error:
        hint = "try again later" if isinstance(error, BusyError) else f"start {server} there"
        with contextlib.suppress(TimeoutError):
            if port | (c.PORT_SECRET & ~node.port_bit) in node.echo(peer, timeout=c.ANSWER_SECONDS).ports:
                hint = "it is open: without --secret" if node.port_bit else "it is for holders of a secret (--secret)"
        raise type(error)(f"{error}; {hint}") from None
    except TimeoutError as error:
        raise TimeoutError(f"{error}; {who_is_there(node)}") from None


def no_such_node(peer: bytes) -> str:
    """Return what is to be said of a node that was not heard of."""
    return f"no such node {format_address(peer)}: nobody in the mesh knows it"


def who_is_there(node: Node) -> str:
    """Return the next command for a user whose node was not found."""
    return f"who is there: {command_line('send_handshake.py', node.links)}"


def describe_event(event: NodeEvent, names: Optional[Mapping[bytes, str]] = None) -> str:
    """Return one line about what has happened in the mesh; empty for a message. `names` are the user's."""
    if isinstance(event, (NodeFound, NodeLost, RouteChanged)):
        said = event.name if isinstance(event, NodeFound) else ""
        who = _with_name(event.address, (names or {}).get(event.address) or said)
        if isinstance(event, NodeLost):
            return f"lost {who}: {event.reason}"
        hops = f"{event.hops} hop{'s' * (event.hops != 1)}"
        if isinstance(event, NodeFound):
            return f"found {who}, {hops} away"
        return f"{who} is {hops} away by {format_hop(event.next_hop)}, MTU {event.mtu}"
    if isinstance(event, ChangesOmitted):
        return f"and {event.number} more changes"
    if isinstance(event, StrangeNode):
        address = format_address(event.address)
        if event.speaks == "streams":
            return f"{address} speaks v1.0 streams, which this program does not"
        return f"{address} is the address of a group, so that node is ignored (v1.0 on a machine without an IP address)"
    if isinstance(event, LinkChanged):
        return f"{printable(event.name)}: {event.reason}"
    if isinstance(event, StrangerRefused):
        return f"REFUSED: {format_address(event.address)} {event.reason}"
    if isinstance(event, DuplicateAddress):
        return f"another node has this node's address; its Ethernet address is {format_address(event.mac)}"
    return ""


def format_ports(ports: Iterable[int]) -> str:
    """Return the services on these ports, or "-" for none."""
    words = (str(port & ~c.PORT_SECRET) + " (secret)" * (port >= c.PORT_SECRET) for port in ports)
    return " ".join(words) or "-"


def format_hop(address: bytes) -> str:
    """Return the address of a next hop, or "-" where it is not known."""
    return format_address(address) if any(address) else "-"


def _with_name(address: bytes, name: str) -> str:
    return f"{format_address(address)} ({printable_name(name)})" if name else format_address(address)


def describe_node(node: Node, address: bytes) -> str:
    """Return the address, with the name that the user or else the node itself gave it."""
    said = {known.address: known.name for known in node.nodes()}
    return _with_name(address, node.names.get(address) or said.get(address, ""))


def run(main: Callable[[], Optional[int]]) -> int:
    """Run a script's `main` and return its exit status; whatever happens, the user sees a line and no traceback."""
    _prepare_standard_files()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup or a shell's & set it
            signal.signal(number, INTERRUPTS.on_signal)
    message, status = "", 1
    try:
        wanted = main() or 0
        sys.stdout.flush()
        status = wanted
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        pass  # the reader of our output has left
    except SetupError as error:
        message, status = str(error), 2
    except OSError as error:
        message = str(error) if error.filename or not error.strerror else error.strerror
    except Exception as error:  # noqa: BLE001  a bug: told in one line, with its place
        import traceback

        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        message = f"internal error, please report: {error!r} at {os.path.basename(frame.f_code.co_filename)}:{line}"
    if message:
        print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    _flush_output()
    return status


def _prepare_standard_files() -> None:
    """Open those that the caller has closed: no socket may get their numbers. Let stdout take every character."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(null, "w" if number else "r", closefd=False))  # noqa: SIM115  for good
    stdout: Any = sys.stdout
    encoding, is_terminal = stdout.encoding, stdout.isatty()
    sys.stdout = io.TextIOWrapper(stdout.detach(), encoding, "backslashreplace", line_buffering=is_terminal)


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # Python would try once more at exit, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def json_line(node: Node, kind: str, fields: Dict[str, Any]) -> str:
    """Return fields as a JSON object on one line, in ASCII: safe on every terminal.

    Addresses become text, `interface` (an index) its name, `last_heard` an `age` in seconds.
    """
    shown: Dict[str, Any] = {"type": kind}
    for key, value in fields.items():
        if key == "data":
            shown["text"] = value.decode("utf-8", "backslashreplace")
        elif key == "interface":
            shown[key] = node.links[value].name
        elif key == "last_heard":
            shown["age"] = round(node.now() - value, 1)
        elif isinstance(value, bytes):
            shown[key] = format_address(value) if any(value) or key == "dest" else None
        else:
            shown[key] = round(value, 6) if isinstance(value, float) else value
    return json.dumps(shown)


_KINDS = {
    NodeFound: "found",
    NodeLost: "lost",
    RouteChanged: "route changed",
    LinkChanged: "link",
    MessageReceived: "message",
    DuplicateAddress: "duplicate",
    StrangeNode: "strange",
    ChangesOmitted: "more changes",
    StrangerRefused: "refused",
}


class _Report:
    """What node.py prints: changes as they come, tables when a signal asks for them."""

    def __init__(self, node: Node, arguments: argparse.Namespace) -> None:
        self.outputs = StandardOutputs()
        self._node = node
        self._as_json = arguments.json
        self._is_quiet = arguments.quiet
        self._emphasis = emphasis(arguments, sys.stdout)

    def tell(self, event: NodeEvent) -> None:
        """Print one change."""
        if self._as_json:
            self.outputs.write_line(1, json_line(self._node, _KINDS[type(event)], event._asdict()))
        elif isinstance(event, MessageReceived):
            self.outputs.write_line(1, f"{self._emphasis(format_address(event.origin))}: {printable(event.data)}")
        elif not self._is_quiet:
            self.outputs.write_line(2, describe_event(event, self._node.names))

    def tell_tables(self) -> None:
        """Print what is known of neighbours and routes, and what was dropped."""
        lines = self._json_tables() if self._as_json else self._tables()
        self.outputs.write_line(1 if self._as_json else 2, "\n".join(lines))

    def _tables(self) -> List[str]:
        names = [printable(link.name) for link in self._node.links]
        lines = [
            f"neighbour {format_address(n.address)} on {names[n.interface.index]}: {n.state.value}"
            + f", {1000 * n.srtt:.2f} ms" * (n.srtt > 0)
            for n in self._node.neighbours()
        ]
        lines += [
            f"route to {_with_name(n.address, self._node.names.get(n.address) or n.name)}:"
            f" {n.hops} hop{'s' * (n.hops != 1)} by {format_hop(n.next_hop)} on {names[n.interface]}, MTU {n.mtu},"
            f" age {self._node.now() - n.last_heard:.1f} s, ports {format_ports(n.ports)}"
            for n in self._node.nodes()
        ]
        return lines + [f"dropped {count}: {reason}" for reason, count in sorted(self._node.drops.items())]

    def _json_tables(self) -> List[str]:
        """The drop counters come last, also when there are none: the end of the tables."""
        lines = [
            json_line(
                self._node,
                "neighbour",
                {
                    "address": n.address,
                    "interface": n.interface.index,
                    "state": n.state.value,
                    "rtt": n.srtt or None,
                    "mtu": n.mtu,
                    "last_heard": n.last_heard,
                },
            )
            for n in self._node.neighbours()
        ]
        lines += [json_line(self._node, "route", n._asdict()) for n in self._node.nodes()]
        return [*lines, json_line(self._node, "drops", {"drops": self._node.drops})]


_EXAMPLES = """\
SIGUSR1 (on macOS and BSD also Ctrl-T) makes it write neighbours, routes and drop counters to stderr.
--json: objects of type found, lost, route changed, link, message, duplicate, strange (a v1.0 program with which
  nothing is possible) and more changes (so many were not told one by one); of
  those tables neighbour, route, drops. --color: the sender of a message in bold.
examples:
  sudo python3 node.py eth0
  sudo python3 node.py eth0,eth1 --name attic -v
  sudo python3 node.py eth0 --json > log
"""


def main() -> int:
    """Keep this machine visible in the mesh, relay, and print what is sent to it."""
    parser = argument_parser(
        "node.py",
        "Keep this machine visible in the mesh and relay between its interfaces; report nodes that come and go\n"
        "(stderr; with -v also how routes change), print raw messages (stdout).",
        _EXAMPLES,
    )
    arguments = parser.parse_args()
    wanted, wake = os.pipe()  # a byte when a signal asks for the tables
    os.set_blocking(wake, False)

    def ask_for_tables(*_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(wake, b"\0")

    for name in {"SIGUSR1", "SIGINFO"} & set(signal.Signals.__members__):
        signal.signal(signal.Signals[name], ask_for_tables)
    with open_node(arguments) as node:
        report = _Report(node, arguments)
        if arguments.json or arguments.verbose:
            node.tell_routes()
        while True:
            # A reader that takes nothing does not stop the relay: of too many events the node keeps the newest.
            files = [] if report.outputs.is_full else [wanted]
            ready = node.wait(*files, writing=report.outputs.waiting)
            report.outputs.flush()
            if wanted in ready:
                os.read(wanted, 4096)
                report.tell_tables()
            while not report.outputs.is_full:
                event = node.next_event(timeout=0)
                if event is None:
                    break
                report.tell(event)


if __name__ == "__main__":
    sys.exit(run(main))
