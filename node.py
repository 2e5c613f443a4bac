"""The impure half of the stack: raw Ethernet, the one thread, the clock, the lock, the random source.

    EthernetLink      one Ethernet port, over scapy's raw socket
    Router            neighbours and routes (AlexMesh, L3); pure
    Node              runs a Router and an Endpoint (AlexStream, L4) on its links
    Stream, Listener  what applications hold: files whose other end is on another node
    open_node, run    the command line that all scripts share

As a program it keeps this machine visible in the mesh, reports nodes that come and go, and prints raw messages.
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
from enum import Enum
from heapq import heappop, heappush
from types import FrameType
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    TextIO,
    Tuple,
    Type,
    Union,
)
from typing import Counter as CounterType

from alexstream import Accepted, Closed, Connected, Endpoint, Event, Session, Stalled, State
from constants import (
    ADVERT_SECONDS,
    AFRESH_SECONDS,
    ANSWERS_PER_SECOND,
    ASK_FIRST,
    ASK_QUIET,
    BACKLOG_FRAMES,
    BLOCKED_PATIENCE,
    BLOCKED_RETRY,
    BLOCKED_RETRY_MAX,
    BLOCKED_TRIES,
    BROADCAST_ADDRESS,
    BYE_GRACE,
    BYE_QUIET,
    CANDIDATES_MAX,
    CHANGES_AT_ONCE,
    CHANGES_PER_SECOND,
    CLOCK_MIN,
    CLOSE_SECONDS,
    CONFIRM_SECONDS,
    CREDIT_BYTES,
    CREDIT_MAX,
    CREDIT_MIN,
    CREDIT_PER_SECOND,
    CROWDED_BATCH,
    CROWDED_SECONDS,
    DELAY_SECONDS,
    DESTINATIONS_MAX,
    DUPLICATE_QUIET,
    ECHO_RETRY,
    ECHO_SECONDS,
    ETHERNET_HEADER_BYTES,
    ETHERNET_MTU,
    ETHERTYPE,
    EVENTS_MAX,
    EVERYONE,
    EVICT_TRIES,
    FD_SECONDS,
    FIND_SECONDS,
    FLAG_BYE,
    FLAG_FULL,
    FLAG_PROBE,
    FLAG_REPLY,
    FLOODS_PER_SECOND,
    FLOWS_MAX,
    GREET_GAP,
    HANDOVER_SECONDS,
    HANDSHAKE_FIXED_BYTES,
    HANDSHAKE_INTERVAL,
    HEARD_BYTES,
    HEARD_EVERY,
    HEARD_GATHER,
    HOLD_INTERVALS,
    HOP_COST,
    IN_USE_SECONDS,
    INTRODUCTION_BYTES,
    JITTER,
    KEPT_BYTES,
    LATE_SECONDS,
    LEAVE_SECONDS,
    LINK_RETRY,
    LOOK_SECONDS,
    LOSSY_COST,
    LOSSY_MISSES,
    LOST_FLOODS_PER_SECOND,
    LOST_GRACE,
    MEET_SECONDS,
    MESH_HEADER_BYTES,
    MESH_MTU_MIN,
    MESSAGE_RETRY_FIRST,
    MESSAGE_RETRY_MAX,
    MESSAGES_MAX,
    METRIC_UNREACHABLE,
    NAKS_PER_SECOND,
    NAME_CHARACTERS,
    NEIGHBOURS_MAX,
    NEWCOMER_BYTES,
    NEWCOMERS_AT_ONCE,
    NEWCOMERS_PER_SECOND,
    NEWS_GREETINGS,
    NO_SLOT,
    NO_SUCH_NODE_SECONDS,
    OVERDUE_INTERVALS,
    PROBE_TIMEOUT,
    PROBE_TRIES,
    RECEIVE_BATCH,
    RELAY_DELAY,
    REPLIES_PER_SECOND,
    REQUEST_AGAIN,
    REQUEST_FRESH,
    REQUEST_HOPS,
    REQUEST_RETRY,
    REQUEST_TRIES,
    REQUESTS_PER_SECOND,
    ROUTE_BYTES,
    ROUTES_PER_FRAME,
    SEEN_KEYS_MAX,
    SEEN_SECONDS,
    SEND_BUFFER_BYTES,
    SEQ_JUMP_MAX,
    SEQ_MAX,
    SETTLE_SECONDS,
    SHADOW_SECONDS,
    SIGNAL_RETRY,
    SLOT_HELD,
    SLOT_WAIT,
    SOCKET_BUFFER_BYTES,
    SOURCES_MAX,
    SPIN_CROWDED,
    SPIN_RECENT,
    SPIN_SECONDS,
    START_DELAY,
    STRANGE_MAX,
    STREAMS_MAX,
    STREAMS_PER_PEER,
    SWEEP_SECONDS,
    SYN_TIMEOUT,
    TLV_BYTES,
    TRACE_TRIES,
    TTL_ROUTED,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STATUS,
    TYPE_STREAM,
    UPDATE_DELAY,
    UPDATE_GAP,
    V1_SEQ_SECONDS,
    WRITE_STEP,
)
from protocol import (
    Frame,
    FrameError,
    Handshake,
    Heard,
    Request,
    Route,
    decode_ethernet,
    decode_frame,
    decode_handshake,
    encode_ethernet,
    encode_frame,
    encode_handshake,
    is_text,
    parse_status,
    parse_text,
    status_payload,
    text_payload,
)
from utils import (
    Credit,
    SeenSet,
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

INFINITY = float("inf")
FLOW_BYTES = ETHERNET_HEADER_BYTES + 15  # the beginning of an Ethernet frame, all before its msg_id, names its flow
PAYLOAD_OFFSET = ETHERNET_HEADER_BYTES + MESH_HEADER_BYTES
PROBE_BYTES = PAYLOAD_OFFSET + HANDSHAKE_FIXED_BYTES + TLV_BYTES + HEARD_BYTES
_new = tuple.__new__  # of a NamedTuple, on the fast path: 0.2 us instead of 0.35


class SetupError(Exception):
    """What keeps a program from starting; the message names the cause and the next command."""


# --- Links ----------------------------------------------------------------------------------------------------------


class Link:
    """One Ethernet port, never blocking. `mac` is its Ethernet address, `mtu` the largest payload of a frame."""

    name: str
    mac: bytes
    mtu: int
    loopback: bool  # everybody hears every frame, the sender too, and all share one Ethernet address
    send: Callable[[bytes], object]  # one Ethernet frame; OSError as the system says it
    receive: Callable[[], List[bytes]]  # what has arrived, about RECEIVE_BATCH at most; OSError when the port is down

    notices = -1  # a file that can be read once something about the interface has changed, if the system says so

    def fileno(self) -> int:
        """Return what is to be watched for frames."""
        raise NotImplementedError

    def claim(self) -> Optional[int]:
        """Return this program's slot among those of this machine that send with `mac`, until `close`.

        0 is also the right to use `mac` as the address of a node; NO_SLOT: all others are taken; None: nobody knows.
        """
        return 0

    def refresh(self) -> bool:
        """Bring `name`, `mac` and `mtu` up to date; return whether there is a carrier.

        Raise OSError where the interface is gone, down, or of no use.
        """
        return True

    def reopen(self) -> None:
        """Start over after the port was down or away; raise OSError if that fails."""

    def close(self) -> None:
        """Let go of the port."""


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
    """Import scapy.data so that every file it reads is empty: vendors, services, protocols, 3 MB that nobody asks here.

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
    """An Ethernet port through scapy's raw socket; every difference between the platforms is in here.

    Raises SetupError. The programs of one machine hear each other, on a card as on Linux's `lo`. `name` may also be an
    altname. Once open, the interface is known by its index: its name, like its MAC and MTU, may change.
    """

    def __init__(self, name: str) -> None:
        clock = time.time()
        if clock > SEQ_MAX:  # more than scapy's netlink can say
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
            raise SetupError(_SCAPY_MISSING) from None
        except OSError as error:
            if os.geteuid() == 0:
                hint = _NO_RAW if error.errno == errno.EPERM else ""
                raise SetupError(f"cannot open {quoted(name)}: {error}{hint}") from None
            raise SetupError(f"raw Ethernet needs root: sudo python3 {' '.join(map(shlex.quote, sys.argv))}") from None

    def _open(self) -> None:
        with _quick_import():
            from scapy.arch import get_if_hwaddr
            from scapy.config import conf
            from scapy.error import Scapy_Exception

        try:
            if _LINUX:
                _spare_scapy_its_select()
            else:
                self.mac = parse_address(get_if_hwaddr(self.name))
            self._socket: Any = conf.L2socket(iface=self.name, type=ETHERTYPE, promisc=False)
        except Scapy_Exception as error:
            raise OSError(str(error)) from None
        if _LINUX and self._notices is None:
            self._subscribe()
        if isinstance(getattr(self._socket, "ins", None), socket.socket):
            self._use_packet_socket(self._socket.ins)
        elif hasattr(self._socket, "bpf_fd"):
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
        scapy's socket has taken before it had the filter is nobody's loss: a node that starts is not known yet.
        """
        port.setblocking(False)
        self._attach_filter(port)
        while _receive_batch(port.recv):
            pass
        port.bind((self.name, _ETH_P_ALL))
        _set_buffer(port, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        _set_buffer(port, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
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

    def _use_bpf(self, port: Any) -> None:
        """BSD and macOS: many frames a read, of every EtherType unless a filter is set, our own among them."""
        from scapy.arch.bpf import consts, supersocket
        from scapy.libs import structures

        port.set_nonblock()
        program = (structures.bpf_insn * len(_BPF_PROGRAM))(*(structures.bpf_insn(*line) for line in _BPF_PROGRAM))
        fcntl.ioctl(port.bpf_fd, consts.BIOCSETF, structures.bpf_program(len(program), program))
        length_at, alignment = supersocket.bpf_hdr.bh_caplen.offset, supersocket.BPF_ALIGNMENT
        size = port.get_blen()  # a read must be of exactly this

        def receive() -> List[bytes]:
            try:
                return self._from_others(bpf_frames(os.read(port.bpf_fd, size), length_at, alignment))
            except BlockingIOError:
                return []

        self.send = functools.partial(os.write, port.bpf_fd)
        self.receive = receive

    def _use_pcap(self, port: Any) -> None:
        """Use libpcap (`conf.use_pcap`): works everywhere, but slowly, and frames may wait 100 ms in its buffer."""
        port.pcap_fd.setnonblock(True)

        def send(frame: bytes) -> None:
            if port.pcap_fd.send(frame) < 0:  # it keeps the cause to itself
                self.refresh()
                too_long = len(frame) > self.mtu + ETHERNET_HEADER_BYTES
                raise OSError(errno.EMSGSIZE if too_long else errno.ENOBUFS, "libpcap could not send")

        def receive() -> List[bytes]:
            frames = iter(lambda: port.recv_raw()[1], None)
            return self._from_others(itertools.islice(frames, RECEIVE_BATCH))

        self.send = send
        self.receive = receive

    def _from_others(self, frames: Iterable[bytes]) -> List[bytes]:
        """Keep what is of our EtherType and was not sent from this port."""
        ethertype, own = ETHERTYPE.to_bytes(2, "big"), b"" if self.loopback else self.mac
        return [frame for frame in frames if frame[12:14] == ethertype and frame[6:12] != own]

    def fileno(self) -> int:
        """Return the descriptor of the socket or device."""
        return int(self._socket.fileno())

    def claim(self) -> Optional[int]:
        """Lock a slot. A program that cannot (one without root) takes another address, which is always right.

        That of the first MAC is kept if another one comes: it may be the address of a node.
        """
        if self.loopback:
            return NO_SLOT
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
        if self.mtu < MESH_MTU_MIN:
            raise OSError(errno.EMSGSIZE, _too_narrow(card))
        return bool(card.flags & _IFF_RUNNING)

    def reopen(self) -> None:
        """Hear the interface again, also one that was removed and came back under its name.

        On Linux the old socket is bound anew, which takes no privilege; where that cannot be done, root opens a new
        one, and who is no longer root keeps what he has: a BPF device stays with an interface that was down.
        """
        port = getattr(self._socket, "ins", None)
        if isinstance(port, socket.socket):
            port.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # "down" may wait there, a second time
            try:
                port.bind((self.name, _ETH_P_ALL))
            except UnicodeEncodeError:
                raise OSError(errno.ENODEV, _NOT_UTF_8) from None
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
    load_word, load_half, load_byte, equal, any_bit, result = 0x20, 0x28, 0x30, 0x15, 0x45, 0x06
    is_tagged, tag, packet_type = (0xFFFFF000 + offset for offset in (48, 44, 4))  # linux/filter.h, SKF_AD_OFF
    outgoing = 4  # linux/if_packet.h
    lines = [
        (load_half, 0, 0, 12),
        (equal, 0, 12, ETHERTYPE),
        (load_half, 0, 0, is_tagged),
        (equal, 2, 0, 0),
        (load_half, 0, 0, tag),
        (any_bit, 8, 0, 0xFFF),
        (load_half, 0, 0, packet_type),
        (equal, 0, 7, outgoing),
        (load_byte, 0, 0, 0),
        (any_bit, 5, 0, 1),
        (load_word, 0, 0, 0),
        (equal, 0, 2, int.from_bytes(mac[:4], "big")),
        (load_half, 0, 0, 4),
        (equal, 1, 0, int.from_bytes(mac[4:], "big")),
        (result, 0, 0, 0),
        (result, 0, 0, 0x40000),
    ]
    if loopback:
        lines[7] = (equal, 6, 7, outgoing)
    return lines


_SCAPY_MISSING = (
    "scapy is not installed: sudo apt install -y --no-install-recommends python3-scapy  (or: pip install scapy)"
)
_NO_RAW = "; this root lacks CAP_NET_RAW: outside the container, or docker run --cap-add NET_RAW"
_LINUX = sys.platform.startswith("linux")
_IFF_UP, _IFF_BROADCAST, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x2, 0x8, 0x40
_SIOCGIFFLAGS, _SIOCGIFMTU = (0x8913, 0x8921) if _LINUX else (0xC0206911, 0xC0206933)
_SIOCGIFHWADDR = 0x8927  # Linux
_ETH_P_ALL, _SO_ATTACH_FILTER = 3, 26  # Linux
_RTM_GETLINK, _NLM_F_REQUEST, _NLMSG_ERROR = 18, 1, 2
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_ALT_IFNAME = 3, 10, 18, 53
_IFLA_INFO_SLAVE_KIND = 4
_IFNAME_BYTES = 16  # with the NUL; an altname may be longer
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772  # the two of Linux's kinds of hardware that carry Ethernet frames
_RUN_DIRECTORY = "/var/run/alexchat"
# Classic BPF (code, jt, jf, k): load the EtherType; if it is ours take the whole frame, else nothing.
_BPF_PROGRAM = ((0x28, 0, 0, 12), (0x15, 0, 1, ETHERTYPE), (0x06, 0, 0, 0x40000), (0x06, 0, 0, 0))


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
        frames.extend(map(receive, itertools.repeat(0x1000E, RECEIVE_BATCH)))
    except BlockingIOError:
        pass
    except OSError:
        if not frames:
            raise
    return frames


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
            return fcntl.ioctl(anything.fileno(), request, os.fsencode(name).ljust(40, b"\0"))[16:]

        flags = int.from_bytes(ask(_SIOCGIFFLAGS)[:2], sys.byteorder)
        mtu = min(0xFFFF, int.from_bytes(ask(_SIOCGIFMTU)[:4], sys.byteorder))
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
    here = " ".join(map(printable, names))
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
    if card.mtu < MESH_MTU_MIN:
        raise SetupError(f"{shown}: {_too_narrow(card)}")
    try:
        card.name.encode()
    except UnicodeEncodeError:
        command = _set_command(card, f"name lan{card.number}")
        raise SetupError(f"{shown} cannot be opened, {_NOT_UTF_8}: sudo {command}") from None
    return card


def _too_narrow(card: _Card) -> str:
    """Return what is to be said of an interface whose frames carry no stream."""
    return f"MTU {card.mtu} is too small: sudo {_set_command(card, f'mtu {MESH_MTU_MIN}')} or more"


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
        """Give the slot free. Who gave up root cannot remove the file; the next program that claims one does."""
        if self.file >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            os.close(self.file)


def _claim_slot(mac: bytes) -> Optional[_Claim]:
    """Claim the lowest free slot of an Ethernet address in this network namespace; None if nobody can say which is.

    One file a slot, locked while its program lives, however that ends. Under a lock of all those who claim, what
    nobody holds is removed first; so a file that is there then is a slot that is taken.
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
            for slot in range(NO_SLOT):
                path = os.path.join(_RUN_DIRECTORY, f"{namespace}-{mac.hex()}-{slot}.lock")
                with contextlib.suppress(FileExistsError):
                    return _Claim(slot, path, _open_locked(path, os.O_CREAT | os.O_EXCL, fcntl.LOCK_EX))
            return _Claim(NO_SLOT, "", -1)
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
        self._write(_numbers(4, _PCAP_MAGIC) + _numbers(2, 2, 4) + _numbers(4, 0, 0, _PCAP_SNAPLEN, _PCAP_ETHERNET))

    def add(self, frames: Iterable[bytes]) -> None:
        """Write frames that came or went just now."""
        seconds, nanoseconds = divmod(int(time.time() * 1e9), 10**9)
        for frame in frames:
            self._write(_numbers(4, seconds, nanoseconds // 1000, len(frame), len(frame)) + frame)

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


def _numbers(size: int, *numbers: int) -> bytes:
    return b"".join(number.to_bytes(size, "little") for number in numbers)


# --- What goes in and out -------------------------------------------------------------------------------------------


class Interface(NamedTuple):
    """One Ethernet interface. `mtu`: largest Ethernet payload; `loopback`: every node on it hears every frame.

    `slot`: which of the programs with this MAC the node is, 0 to 6, NO_SLOT if all are taken, None if it is not known.
    """

    name: str
    mac: bytes
    mtu: int
    loopback: bool
    slot: Optional[int] = 0


class Transmit(NamedTuple):
    """A whole Ethernet frame to be sent on the interface of that index."""

    interface: int
    frame: bytes


class Incoming(NamedTuple):
    """A STREAM payload for this node, perhaps with Ethernet padding at its end."""

    origin: bytes
    payload: bytes


class NodeFound(NamedTuple):
    """There is a route to a node. `hops`: 1 for a neighbour; `mtu`: of the path; `name`: empty if not known yet."""

    address: bytes
    hops: int
    mtu: int
    name: str


class NodeLost(NamedTuple):
    """There has been no route for LOST_GRACE (`reason` "unreachable"), or the node said goodbye ("left")."""

    address: bytes
    reason: str


class MessageReceived(NamedTuple):
    """A text for this node (acknowledged already) or, where `dest` is EVERYONE, for all; once per msg_id."""

    origin: bytes
    dest: bytes
    msg_id: int
    data: bytes


class Delivered(NamedTuple):
    """The peer acknowledged a MESSAGE; `rtt` seconds after it was first sent."""

    msg_id: int
    peer: bytes
    rtt: float


class Undelivered(NamedTuple):
    """No STATUS came before the message's timeout."""

    msg_id: int
    peer: bytes


class Echoed(NamedTuple):
    """The answer to `echo`; `name` and `ports` are empty from a v1.0 node."""

    token: int
    address: bytes
    hops: int
    rtt: float
    name: str
    ports: Tuple[int, ...]


class StrangeNode(NamedTuple):
    """A v1.0 program with which nothing is possible: told once. `speaks`: "streams", or "group" for its address."""

    address: bytes
    speaks: str


class DuplicateAddress(NamedTuple):
    """Another node, at that Ethernet address, uses this node's id."""

    mac: bytes


class PathChanged(NamedTuple):
    """A peer that was sent data has another next hop or path MTU now, or is reachable again."""

    peer: bytes
    mtu: int


class RouteChanged(NamedTuple):
    """There is another way to a node; only if `tells_routes` is set. `next_hop`: id of the neighbour."""

    address: bytes
    interface: int
    next_hop: bytes
    hops: int
    mtu: int


MeshEvent = Union[
    NodeFound,
    NodeLost,
    MessageReceived,
    Delivered,
    Undelivered,
    Echoed,
    DuplicateAddress,
    StrangeNode,
    PathChanged,
    RouteChanged,
]


class NodeInfo(NamedTuple):
    """A reachable node. `next_hop`: id of the neighbour; `rtt`: seconds or None; `last_heard`: of or about it."""

    address: bytes
    interface: int
    next_hop: bytes
    hops: int
    mtu: int
    name: str
    ports: Tuple[int, ...]
    rtt: Optional[float]
    last_heard: float


# --- State ----------------------------------------------------------------------------------------------------------


class LinkState(Enum):
    """What is known of the way to a neighbour and back (section "neighbour state machine")."""

    HEARD = "heard"  # it may not hear us
    UP = "up"
    PROBING = "probing"
    SUSPECT = "suspect"  # missed a probe: used only where nothing else is
    DEAD = "dead"  # until it answers


HEARD, UP, PROBING, SUSPECT, DEAD = LinkState
LINK_MOVES: Dict[LinkState, FrozenSet[LinkState]] = {
    HEARD: frozenset((UP,)),
    UP: frozenset((PROBING, SUSPECT, HEARD)),  # SUSPECT at once: it said BYE
    PROBING: frozenset((UP, SUSPECT, HEARD)),
    SUSPECT: frozenset((UP, DEAD, HEARD)),
    DEAD: frozenset((UP, HEARD)),
}
USABLE = frozenset((UP, PROBING, SUSPECT))


class Advert(NamedTuple):
    """What a neighbour said last about a destination, and when."""

    seq: int
    metric: int
    mtu: int
    time: float


class Path(NamedTuple):
    """The chosen way to a destination; `metric` and `mtu` include the first hop."""

    neighbour: "Neighbour"
    seq: int
    metric: int
    mtu: int


class Wire:
    """One interface and who was heard there."""

    def __init__(self, index: int, interface: Interface) -> None:
        self.index = index
        self.mac = interface.mac
        self.mtu = min(interface.mtu, 0xFFFF)
        self.loopback = interface.loopback
        self.slot = NO_SLOT if interface.loopback or interface.slot is None else interface.slot
        self.relays = self.slot != NO_SLOT  # whether what arrives here for others is forwarded
        self.neighbours: Dict[bytes, Neighbour] = {}
        self.senders: Dict[bytes, Tuple[Neighbour, ...]] = {}  # by Ethernet source
        self.flows: Dict[bytes, Flow] = {}
        self.told: Dict[bytes, Route] = {}  # what all there were told last, finite routes only
        # Sets of neighbours of this interface are integers, a bit each: 512 of them are compared in 50 ns
        self.used_bits = 0
        self.listening = 0  # those that use our routes
        self.recent = 0  # those heard for the first time less than MEET_SECONDS ago
        self.listed: Dict[Heard, Neighbour] = {}  # who is listed so in HEARD
        self.requests: Dict[bytes, Request] = {}  # to be sent
        self.review = False  # compare every destination with `told`, for somebody came, went or hears differently
        self.repeat = False  # tell everything again: a new listener
        self.bump = False  # tell the new sequence number of this node
        self.greet = False  # a HANDSHAKE is due
        self.greet_at = INFINITY
        self.greeted = -INFINITY
        self.greetings = 0
        self.greeting_bytes = 0  # of the last HANDSHAKE to everyone
        self.news = NEWS_GREETINGS  # so many of the next HANDSHAKEs carry HEARD, NAME and PORTS
        self.cursor = 0  # where the next HANDSHAKE continues in a table too long for one
        self.twin = self  # the lower interface on the same segment, until `twin_until`
        self.twin_until = -INFINITY

    def list_as(self, n: "Neighbour", tags: Tuple[Heard, ...]) -> None:
        """Keep how a neighbour is listed in HEARD now, and which others list it."""
        for tag in n.tags:
            self.listed.pop(tag, None)
        n.tags = tags
        self.listed.update(dict.fromkeys(tags, n))
        for other in self.neighbours.values():
            other.note_hearing(n)

    def take_list(self, n: "Neighbour", heard: FrozenSet[Heard]) -> None:
        """Keep whom a neighbour hears now."""
        changed = heard ^ n.heard
        n.heard = heard
        n.macs = frozenset(tag.mac for tag in heard)
        for other in {self.listed[tag] for tag in changed if tag in self.listed}:
            n.note_hearing(other)

    def drop_bit(self, n: "Neighbour") -> None:
        """Take a neighbour out of all sets."""
        rest = ~n.bit
        for other in self.neighbours.values():
            other.hears_bits &= rest
            other.heard_bits &= rest
        self.used_bits &= rest
        self.listening &= rest
        self.recent &= rest

    def segment(self, now: float) -> "Wire":
        """Return the lowest interface on the same segment: floods are sent only there."""
        return self.twin if now < self.twin_until else self

    def covered(self, source: bytes, now: float, *, v1: bool) -> bool:
        """Tell whether everybody here hears the Ethernet address `source`; v1.0 nodes count only if `v1`."""
        return all(n.hears(source, now) for n in self.neighbours.values() if n.usable and (v1 or not n.v1))


class Source(NamedTuple):
    """When a neighbour was last heard with an Ethernet address, and the slot that it has there."""

    heard_at: float
    slot: int


class Neighbour:
    """A node heard directly on one interface, and the state of the link to it."""

    def __init__(self, wire: Wire, address: bytes, mac: bytes, now: float) -> None:
        self.wire = wire
        self.bit = ~wire.used_bits & (wire.used_bits + 1)  # the lowest that is free
        wire.used_bits |= self.bit
        self.hears_bits = 0  # those that it lists
        self.heard_bits = 0  # those that list it
        self.tags: Tuple[Heard, ...] = ()  # how it is listed in HEARD
        self.address = address
        self.mac = mac
        self.sources: Dict[bytes, Source] = {}  # by Ethernet address: two, if two of its interfaces are here
        self.state = HEARD
        self.usable = False
        self.listed_at = -INFINITY
        self.offered = 0  # the MTU it advertises
        self.mtu = ETHERNET_MTU  # what has been seen to reach it
        self.interval = HANDSHAKE_INTERVAL
        self.last_heard = now
        self.overdue = INFINITY
        self.expires = INFINITY
        self.sent = -INFINITY  # about when data last went out
        self.confirm_at = -INFINITY  # when flowing data wants the next PROBE
        self.misses = 0
        self.retry = now + ASK_FIRST  # end of the probe's time, or next question to one that is not up
        self.backoff = ASK_FIRST
        self.srtt = 0.0
        self.adverts = 0  # how many destinations it offers a way to
        self.grows_later = False  # larger frames are tried once it has answered a small one
        self.repeats_later = False  # it is told everything once it has answered
        self.is_introduced = False  # others may be told of it
        self.replies = TokenBucket(REPLIES_PER_SECOND, REPLIES_PER_SECOND)
        self.deadline = INFINITY  # of the timer in the heap
        self.restart(-1, now)

    def restart(self, nonce: int, now: float) -> None:
        """Begin another incarnation: what was learned from the last one does not hold. 0: of a v1.0 node."""
        self.nonce = nonce
        self.v1 = nonce == 0
        self.met = now
        self.heard: FrozenSet[Heard] = frozenset()  # whom it hears
        self.macs: FrozenSet[bytes] = frozenset()
        self.overheard: Dict[bytes, float] = {}  # a v1.0 node lists nobody, but relays the HANDSHAKEs that it hears
        self.seq = 0  # that was asked for of a v1.0 node, which has none
        self.greeted_at = -INFINITY  # last periodic HANDSHAKE
        self.history = 0  # of the last eight: 1 missed
        self.cost = HOP_COST
        self.leaving = False
        self.waiting = 0.0  # when data went out that nothing came back for, else 0
        self.probes: Dict[int, float] = {}  # token -> when sent
        self.big_token = 0  # of the padded PROBE

    @property
    def slot(self) -> int:
        """Which of the programs with its Ethernet address it is."""
        return self.sources[self.mac].slot

    def slot_for(self, dest: bytes) -> int:
        """Return the slot of a routed frame whose next hop it is: nobody forwards what is for the next hop itself."""
        if self.v1:
            return 0
        return NO_SLOT if dest == self.address else self.slot

    def note_hearing(self, other: "Neighbour") -> None:
        """Keep whether it lists another neighbour on its interface."""
        if self.heard.isdisjoint(other.tags):
            self.hears_bits &= ~other.bit
            other.heard_bits &= ~self.bit
        else:
            self.hears_bits |= other.bit
            other.heard_bits |= self.bit

    @property
    def linked_bits(self) -> int:
        """The neighbours on its interface with which it hears each other: see `links`."""
        linked = self.heard_bits if self.v1 else self.hears_bits & self.heard_bits
        return -1 if self.bit & self.wire.recent else linked | self.bit | self.wire.recent

    def links(self, other: "Neighbour", now: float) -> bool:
        """Tell whether this neighbour and another one on the same interface hear each other.

        That is as far as they said; who came a moment ago had no time to say so.
        """
        if now < max(self.met, other.met) + MEET_SECONDS:
            return True
        heard = not other.heard.isdisjoint(self.tags)
        return heard and (self.v1 or not self.heard.isdisjoint(other.tags))

    def hears(self, mac: bytes, now: float) -> bool:
        """Tell whether it hears an Ethernet address, or has it."""
        overheard = self.overheard.get(mac, -INFINITY)
        return mac in self.macs or mac in self.sources or now - overheard < HOLD_INTERVALS * HANDSHAKE_INTERVAL


class Destination:
    """A node that somebody spoke of: who offers which way, the way in use, and what must not be forgotten."""

    __slots__ = (
        "address", "adverts", "ask_at", "asks", "best", "fd", "found", "left_at", "naks", "name", "passed_at",
        "passed_seq", "passes", "ports", "rtt", "touched", "used", "wanted",
    )  # fmt: skip

    def __init__(self, address: bytes, now: float) -> None:
        self.address = address
        self.adverts: Dict[Neighbour, Advert] = {}
        self.fd: Optional[Tuple[int, int]] = None  # lowest rank (-seq, metric) ever told
        self.best: Optional[Path] = None
        self.used = -INFINITY  # when data last went there
        self.wanted = -INFINITY  # when a newer sequence number was last asked for
        self.asks = 0
        self.ask_at = 0.0
        self.passed_seq = 0  # of the last REQUEST that was passed on, and when
        self.passed_at = -INFINITY
        self.passes = TokenBucket(REQUESTS_PER_SECOND, REQUESTS_PER_SECOND)
        self.touched = now  # when a neighbour last took back what it had offered
        self.found = False
        self.left_at = -INFINITY  # when it said BYE
        self.naks = TokenBucket(NAKS_PER_SECOND, NAKS_PER_SECOND)
        self.name = ""
        self.ports: Tuple[int, ...] = ()
        self.rtt: Optional[float] = None

    @property
    def fd_seq(self) -> int:
        """The newest sequence number ever told, or 0."""
        return -self.fd[0] if self.fd is not None else 0

    def left(self, now: float) -> bool:
        """Tell whether the node said BYE lately."""
        return now - self.left_at < BYE_QUIET

    def in_use(self, now: float) -> bool:
        """Tell whether data was sent there lately."""
        return now - self.used < IN_USE_SECONDS


class Flow:
    """The fast path of STREAM frames: a lookup by what does not change from frame to frame, and what then to do.

    `neighbour` is whom such a frame proves alive; `out`, if it goes on, where to, `head` its new beginning.
    """

    __slots__ = ("destination", "head", "index", "limit", "neighbour", "origin", "out", "reason")

    def __init__(self, origin: bytes, neighbour: Neighbour, reason: str = "") -> None:
        self.origin = origin
        self.neighbour = neighbour
        self.reason = reason  # why it is dropped
        self.out: Optional[Neighbour] = None
        self.destination: Optional[Destination] = None
        self.head = b""
        self.index = 0
        self.limit = 0


class Message(NamedTuple):
    """A MESSAGE that waits for its STATUS."""

    frame: Frame
    sent: float
    deadline: float


class Relay(NamedTuple):
    """A flooded frame that waits for its turn on `wires` (by index)."""

    frame: Frame
    wires: Set[int]


class Echo(NamedTuple):
    """An `echo` that waits for its answer; from any relay if its `ttl` does not reach `dest` for sure."""

    dest: bytes
    sent: float
    ttl: int


class Timer(NamedTuple):
    """`action(*arguments, now)` at `when`. `serial` keeps equal times in order."""

    when: float
    serial: int
    action: Callable[..., None]
    arguments: Tuple[Any, ...]


# --- The router -----------------------------------------------------------------------------------------------------


class Router:
    """One node of the mesh. `seq`: Unix time in seconds at boot; all other times are monotonic seconds.

    Whatever arrives, `receive` does not raise; what is dropped is counted in `drops` by reason.
    """

    def __init__(
        self,
        address: bytes,
        interfaces: Sequence[Interface],
        *,
        rng: random.Random,
        now: float,
        seq: int,
        name: str = "",
        ports: Iterable[int] = (),
    ) -> None:
        self.address = address
        self.drops: CounterType[str] = Counter()
        self.tells_routes = False
        self.takes_texts = True  # whether there is room for one more
        self._rng = rng
        self._name = name
        self._ports = tuple(ports)
        self._seq = seq if 1 <= seq < SEQ_MAX - 2 * SEQ_JUMP_MAX else 1  # a clock in the next century is none
        self._epoch = self._seq - now  # Unix time where `now` is 0
        self._nonce = self._token()
        self._msg_id = self._first_id = rng.getrandbits(63)
        self._wires = [Wire(index, interface) for index, interface in enumerate(interfaces)]
        self._up = list(self._wires)
        self._routes: Dict[bytes, Destination] = {}
        self._rumours: Dict[bytes, NodeInfo] = {}  # nodes known only by what v1.0 nodes relayed
        self._dirty: Dict[bytes, None] = {}  # destinations to compare with what was told; ordered, unlike a set
        self._flush_at = INFINITY
        self._flushed = -INFINITY
        self._lanes: Dict[bytes, Flow] = {}  # fast path of `send_stream`, by destination
        self._nobody = Neighbour(self._wires[0], EVERYONE, EVERYONE, now)  # transmits what we cannot attribute
        self._seen = SeenSet(SEEN_KEYS_MAX, SEEN_SECONDS)  # floods
        self._flooded_from: Dict[bytes, Wire] = {}  # where the last new flood of an origin came from
        self._delivered = SeenSet(SEEN_KEYS_MAX, SEEN_SECONDS)  # texts
        self._asked: Dict[bytes, float] = {}  # when a directed HANDSHAKE last went to a node
        self._floods = TokenBucket(FLOODS_PER_SECOND, FLOODS_PER_SECOND)
        self._lost_floods = TokenBucket(LOST_FLOODS_PER_SECOND, LOST_FLOODS_PER_SECOND)
        self._answers = TokenBucket(ANSWERS_PER_SECOND, ANSWERS_PER_SECOND)
        # Newcomers that list us have heard us: they do not wait behind thousands that were only invented.
        self._newcomers = [TokenBucket(NEWCOMERS_PER_SECOND, NEWCOMERS_AT_ONCE) for _ in (False, True)]
        self._credit = Credit(CREDIT_BYTES, CREDIT_PER_SECOND, least=CREDIT_MIN, most=CREDIT_MAX)
        self._relays: Dict[Tuple[bytes, int], Relay] = {}
        self._messages: Dict[int, Message] = {}
        self._renamed: Dict[int, int] = {}  # later ids of a MESSAGE to a v1.0 node -> the first one
        self._strange: Set[StrangeNode] = set()
        self._echoes: Dict[int, Echo] = {}
        self._announced = (0, -INFINITY)  # token, time
        self._jump_at = self._alarm_at = self._afresh_at = -INFINITY
        self._gone = False
        self._timers: List[Timer] = []
        self._serials = itertools.count()
        self._out: List[Transmit] = []
        self.events: Deque[MeshEvent] = deque(maxlen=2 * DESTINATIONS_MAX)  # for `next_event`
        for wire, interface in zip(self._wires, interfaces):
            self._hurry(wire, now)
            if interface.slot is None and not wire.loopback:
                self._at(now + rng.uniform(*SLOT_WAIT), self._choose_slot, wire)
        self._at(now + SWEEP_SECONDS, self._sweep)

    # What the node calls

    def receive(self, interface: int, frame: bytes, *, now: float) -> Optional[Incoming]:
        """Take an Ethernet frame; return the payload of a STREAM frame for this node."""
        wire = self._wires[interface]
        flow = wire.flows.get(frame[:FLOW_BYTES])
        if flow is not None and len(frame) > PAYLOAD_OFFSET:
            flow.neighbour.waiting = 0.0
            out = flow.out
            if flow.reason:
                self.drops[flow.reason] += 1
                return None
            if out is None:
                return _new(Incoming, (flow.origin, frame[PAYLOAD_OFFSET:]))
            if len(frame) <= flow.limit:
                if not out.waiting:
                    self._expect(out, now)
                flow.destination.used = now  # type: ignore[union-attr]
                self._out.append(_new(Transmit, (flow.index, flow.head + frame[FLOW_BYTES:])))
                return None
        try:
            return self._receive(wire, frame, now)
        except FrameError as error:
            self.drops[error.reason] += 1
            if error.reason in ("own", "slot") and frame[ETHERNET_HEADER_BYTES + 1] == TYPE_STREAM:
                sender = self._sender(wire, frame[6:12], frame[16:22])
                self._open_flow(wire, frame, Flow(EVERYONE, sender, error.reason))  # `lo` has many of these
            return None

    def receive_all(self, interface: int, frames: Sequence[bytes], *, now: float) -> List[Tuple[bytes, List[bytes]]]:
        """Take Ethernet frames; return those with STREAM payloads for this node, in order, by the origin.

        Their payloads, from PAYLOAD_OFFSET on, are not copied here: that was a twentieth of all it costs to receive.
        """
        runs: List[Tuple[bytes, List[bytes]]] = []
        flows = self._wires[interface].flows
        beginning = None  # of frames that go to `run`
        run: List[bytes] = []
        for frame in frames:
            if frame[:FLOW_BYTES] == beginning and len(frame) > PAYLOAD_OFFSET:
                run.append(frame)
                continue
            incoming = self.receive(interface, frame, now=now)
            beginning = None
            if incoming is not None:
                run = [frame]
                runs.append((incoming.origin, run))
                if frame[:FLOW_BYTES] in flows:  # not a flooded one
                    beginning = frame[:FLOW_BYTES]
        return runs

    def send_stream(self, dest: bytes, payload: bytes, *, now: float) -> Optional[Transmit]:
        """Return the frame that takes a STREAM payload one hop towards `dest`, or None where it was flooded."""
        interface, frames = self.send_streams(dest, [(payload, b"")], now=now)
        return Transmit(interface, frames[0]) if frames else None

    def send_streams(
        self, dest: bytes, payloads: Sequence[Tuple[bytes, Union[bytes, memoryview]]], *, now: float
    ) -> Tuple[int, List[bytes]]:
        """Return the interface, and the frames that take STREAM payloads one hop towards `dest`; none if flooded.

        Each payload is in two parts, so that what it carries is copied once.
        """
        lane = self._lanes.get(dest) or self._open_lane(dest)
        if lane is None:
            for parts in payloads:
                self._send_lost(dest, b"".join(parts), now)
            return 0, []
        if not lane.neighbour.waiting:
            self._expect(lane.neighbour, now)
        lane.destination.used = now  # type: ignore[union-attr]
        head, first = lane.head, self._msg_id + 1
        self._msg_id += len(payloads)
        return lane.index, [
            b"".join((head, msg_id.to_bytes(8, "big"), start, rest))
            for msg_id, (start, rest) in enumerate(payloads, first)
        ]

    def send_message(self, dest: bytes, data: bytes, *, now: float, timeout: float) -> int:
        """Send a text until it is acknowledged, then say `Delivered`, or `Undelivered` after `timeout`; return its id.

        Raise ValueError if `dest` is this node's or no node's address.
        """
        self._check_peer(dest)
        frame = self._frame(TYPE_MESSAGE, dest, data)
        if len(self._messages) >= MESSAGES_MAX:
            self._give_up(next(iter(self._messages)))
        self._messages[frame.msg_id] = Message(frame, now, now + timeout)
        self._route(frame, now)
        self._at(
            min(now + MESSAGE_RETRY_FIRST, now + timeout), self._repeat_message, frame.msg_id, 2 * MESSAGE_RETRY_FIRST
        )
        return frame.msg_id

    def broadcast(self, data: bytes, *, now: float) -> None:
        """Send a text to every node, unacknowledged."""
        self._flood(self._frame(TYPE_BROADCAST, EVERYONE, data), now)

    def echo(self, dest: bytes, *, now: float, ttl: int = TTL_ROUTED) -> int:
        """Ask `dest`, wherever it is, to answer, or the relay that is `ttl` + 1 hops away on the path to it.

        Return the token of the `Echoed` to come. Raise ValueError.
        """
        self._check_peer(dest)
        token = self._token()
        if len(self._echoes) >= MESSAGES_MAX:
            del self._echoes[next(iter(self._echoes))]
        self._echoes[token] = Echo(dest, now, ttl)
        self._note_asked(dest, now)
        frame = self._frame(TYPE_HANDSHAKE, dest, self._echo_payload(FLAG_PROBE, token))
        self._route(frame._replace(ttl=ttl), now)
        return token

    def announce(self, *, now: float) -> None:
        """Ask every neighbour to answer at once."""
        token = self._token()
        self._announced = (token, now)
        self._flush_at = now
        self._flush(now)
        for wire in self._up:
            self._send_greeting(wire, now, FLAG_PROBE, token)
            for n in wire.neighbours.values():
                if n.v1:
                    self._send_probe(n, now)

    def hint(self, dest: bytes, *, now: float) -> None:
        """Probe the next hop towards `dest`: a retransmission timer fired."""
        path = self.path_to(dest)
        if path is not None and path.neighbour.state is UP:
            self._probe(path.neighbour, now)

    def leave(self, *, now: float) -> None:  # noqa: ARG002  the one set of verbs
        """Say goodbye. What still arrives for others is forwarded, but nothing is said any more."""
        for wire in self._up:
            handshake = self._handshake(wire, FLAG_BYE, 0)
            self._send_handshake(wire, BROADCAST_ADDRESS, EVERYONE, handshake)
        for msg_id in list(self._messages):
            self._give_up(msg_id)
        self._gone = True
        self._timers.clear()

    def set_ports(self, ports: Iterable[int]) -> None:
        """Tell others from now on that this node listens on `ports`."""
        self._ports = tuple(ports)
        for wire in self._wires:
            wire.news = NEWS_GREETINGS

    def interface_changed(
        self,
        index: int,
        *,
        mac: Optional[bytes] = None,
        slot: Optional[int] = None,
        mtu: Optional[int] = None,
        up: Optional[bool] = None,
        now: float,
    ) -> None:
        """Learn that an interface has another MAC, with its slot there if a lock gave one, another MTU or carrier."""
        wire = self._wires[index]
        if mac is not None:
            wire.mac = mac
            if slot is None:
                self._choose_slot(wire, now)
            else:
                wire.slot, wire.relays = slot, slot != NO_SLOT
                self._await_listing(wire, now)
        if mtu is not None:
            wire.mtu = min(mtu, 0xFFFF)
            self._forget_flows()
            for n in list(wire.neighbours.values()):
                if not wire.loopback:
                    n.mtu = min(n.mtu, ETHERNET_MTU)  # whether more gets through is to be found out anew
                self._reselect(n, now)
                self._grow(n, now)
        if up is False and wire in self._up:
            self._up.remove(wire)
            for n in list(wire.neighbours.values()):
                self._forget(n, now)
            wire.greet_at = INFINITY
        elif up and wire not in self._up:
            self._up.append(wire)
        if wire in self._up:
            self._hurry(wire, now)

    def path_to(self, dest: bytes) -> Optional[Path]:
        """Return the way in use to a node, if there is one."""
        d = self._routes.get(dest)
        return d.best if d is not None else None

    def knows(self, address: bytes) -> bool:
        """Tell whether anybody spoke of a node lately, though there may be no way to it at the moment."""
        return address in self._routes or address in self._rumours

    def mtu_to(self, dest: bytes) -> int:
        """Return the largest frame (AlexMesh header included) that fits the path, or the interfaces if unknown."""
        path = self.path_to(dest)
        return path.mtu if path is not None else min(wire.mtu for wire in self._wires)

    def nodes(self) -> List[NodeInfo]:
        """Return every node that there is a route to, with the way in use, and those that only floods may reach."""
        infos = [info for info in self._rumours.values() if self.path_to(info.address) is None]
        for d in self._routes.values():
            if d.best is None:
                continue
            n = d.best.neighbour
            direct = n.address == d.address
            rtt = (n.srtt or None) if direct else d.rtt
            heard = n.last_heard if direct else d.adverts[n].time
            hop = (n.wire.index, n.address)
            infos.append(NodeInfo(d.address, *hop, hops_of(d.best), d.best.mtu, d.name, d.ports, rtt, heard))
        return infos

    def neighbours(self) -> List[Neighbour]:
        """Return the state of the link to each neighbour, to be looked at only."""
        return [n for wire in self._wires for n in wire.neighbours.values()]

    def next_event(self) -> Optional[MeshEvent]:
        """Return what happened next, or None."""
        return self.events.popleft() if self.events else None

    # Time

    def next_deadline(self) -> Optional[float]:
        """Return when `tick` has something to do, or None for never."""
        timers = self._timers
        while timers and timers[0].action == self._watch:
            n, due = timers[0].arguments
            if due == n.deadline and self._due(n) <= due:
                break
            heappop(timers)  # it was heard meanwhile: among fifty nodes this halves the wake-ups
            if due == n.deadline:
                n.deadline = INFINITY
                self._arm(n)
        return timers[0].when if timers else None

    def tick(self, *, now: float) -> None:
        """Do what is due."""
        timers = self._timers
        while timers and timers[0].when <= now:
            timer = heappop(timers)
            timer.action(*timer.arguments, now)

    def frames_to_send(self, *, now: float) -> List[Transmit]:
        """Do what is due, and return the frames that are to be sent now."""
        if self._timers and self._timers[0].when <= now:
            self.tick(now=now)
        if not self._out:
            return []
        out, self._out = self._out, []
        return out

    def _at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        heappush(self._timers, Timer(when, next(self._serials), action, arguments))

    def _sweep(self, now: float) -> None:
        """Forget what is old: adverts, destinations, echoes."""
        self._at(now + SWEEP_SECONDS, self._sweep)
        for d in list(self._routes.values()):
            for n, advert in list(d.adverts.items()):
                frames = n.adverts // ROUTES_PER_FRAME + 1
                if now - advert.time > max(ADVERT_SECONDS, 3 * n.interval * frames):
                    self._unlearn(n, d.address, now)
            if not d.adverts and now - d.touched > FD_SECONDS:
                del self._routes[d.address]
        hold = HOLD_INTERVALS * HANDSHAKE_INTERVAL
        self._rumours = {address: info for address, info in self._rumours.items() if now - info.last_heard < hold}
        for token in [token for token, echo in self._echoes.items() if now - echo.sent > ECHO_SECONDS]:
            del self._echoes[token]

    # Frames in

    def _receive(self, wire: Wire, data: bytes, now: float) -> Optional[Incoming]:
        """Take a frame the long way: who sent it, is it for us, which kind is it."""
        destination, source, payload = decode_ethernet(data)
        flooded = destination == BROADCAST_ADDRESS
        if not flooded and destination not in (wire.mac, self.address):
            raise FrameError("foreign")
        frame = decode_frame(payload)
        if frame.origin == self.address:
            self._meet_myself(wire, source, frame, now)
            raise FrameError("own")
        if frame.type == TYPE_STATUS and frame.dest == self.address:
            self._acknowledge(frame, now)
            return None
        is_from_group = source[0] & 1 and frame.type != TYPE_STATUS  # v1.0 answers a flood from the broadcast address
        if not is_unicast(frame.origin) or is_from_group:
            if frame.type == TYPE_HANDSHAKE and frame.dest == EVERYONE and frame.origin[0] & 1 and is_unicast(source):
                self._tell_strange(frame.origin, "group")
            raise FrameError("origin")
        n = wire.neighbours.get(frame.origin)
        if not n.srtt if n is not None else frame.origin not in self._routes:
            self._credit.earn(len(data))  # a stranger, or a neighbour that has never answered
        self._sender(wire, source, frame.origin).waiting = 0.0
        if frame.type == TYPE_HANDSHAKE and frame.dest in (EVERYONE, self.address):
            self._receive_handshake(wire, source, frame, flooded, now)
            return None
        if frame.dest == EVERYONE or flooded:
            return self._receive_flood(wire, source, frame, now)
        if frame.dest == self.address:
            return self._deliver(wire, source, frame, now, data)
        self._transit(wire, source, frame, now, data)
        return None

    def _meet_myself(self, wire: Wire, source: bytes, frame: Frame, now: float) -> None:
        """A HANDSHAKE of this node: our own, perhaps through another interface, or that of another node like us."""
        if frame.type != TYPE_HANDSHAKE:
            return
        h = decode_handshake(frame.payload)
        if h is not None and h.nonce == self._nonce:
            for other in self._wires:
                if other.mac == source != wire.mac:
                    low, high = sorted((wire, other), key=lambda w: w.index)
                    high.twin, high.twin_until = low, now + SHADOW_SECONDS
        elif h is None and self._first_id < frame.msg_id <= self._msg_id:
            return  # one of ours that lost its end
        elif frame.ttl == (TTL_V1 if h is None else h.ttl0) and now >= self._alarm_at:
            self._alarm_at = now + DUPLICATE_QUIET
            self.events.append(DuplicateAddress(source))

    def _receive_handshake(self, wire: Wire, source: bytes, frame: Frame, flooded: bool, now: float) -> None:
        """Tell a neighbour's HANDSHAKE from an echo, from one that a v1.0 node relayed, and from a v1.0 node's own."""
        h = decode_handshake(frame.payload)
        directed = frame.dest == self.address
        if self._gone:
            raise FrameError("gone")
        if h is None:
            self._receive_v1_handshake(wire, source, frame, directed, now)
        elif directed and (h.ttl0 == TTL_ROUTED or frame.ttl != h.ttl0):
            if flooded and not self._seen.add((frame.origin, frame.msg_id), now=now):
                raise FrameError("seen")
            self._receive_echo(wire, source, frame, h, now)
        elif frame.ttl != h.ttl0:
            self._hear_of(wire, source, frame.origin, h.ttl0 - frame.ttl + 1, now)
        else:
            self._hear(wire, source, frame.origin, h, directed, now)

    def _hear_of(self, wire: Wire, source: bytes, origin: bytes, hops: int, now: float) -> None:
        """A v1.0 node relayed a HANDSHAKE: the node exists, and floods may reach it."""
        neighbour = wire.neighbours.get(origin)
        if neighbour is not None and hops == 2:
            for n in wire.senders.get(source, ()):
                n.overheard.update(dict.fromkeys(neighbour.sources, now))
        elif origin in self._rumours or len(self._rumours) < DESTINATIONS_MAX:
            hop = self._sender(wire, source, origin).address
            rumour = NodeInfo(origin, wire.index, hop, max(hops, 1), ETHERNET_MTU, "", (), None, now)
            self._rumours[origin] = rumour

    def _receive_flood(self, wire: Wire, source: bytes, frame: Frame, now: float) -> Optional[Incoming]:
        """A flooded frame: take it, pass it on, or send it the straight way if we know one."""
        key = (frame.origin, frame.msg_id)
        new = self._seen.add(key, now=now)
        if frame.dest == self.address:
            if not new and frame.type == TYPE_STREAM:
                raise FrameError("seen")
            return self._deliver(wire, source, frame, now)
        if not new:
            self._cancel_relay(key, wire, source, now)
            raise FrameError("seen")
        if len(self._flooded_from) >= FLOWS_MAX:
            self._flooded_from.clear()
        self._flooded_from[frame.origin] = wire
        if frame.dest == EVERYONE:
            if frame.type == TYPE_STREAM:
                raise FrameError("dest")
            self._deliver(wire, source, frame, now)
        elif not is_unicast(frame.dest):
            raise FrameError("dest")
        elif self._unicast_flood(wire, source, frame, now):
            return None
        self._relay(wire, source, frame, now)
        return None

    def _unicast_flood(self, wire: Wire, source: bytes, frame: Frame, now: float) -> bool:
        """Send a flooded frame along our route to its destination; return False if it must be flooded on."""
        path = self.path_to(frame.dest)
        if path is None or frame.ttl == 0:
            return False
        hop = path.neighbour
        if hop.wire.segment(now) is wire.segment(now):
            if wire.loopback or hop.hears(source, now):
                raise FrameError("heard")
            if hop.v1:
                return False  # it may have heard the frame itself; a copy that others can hear cancels theirs
        self._send_via(hop, frame._replace(ttl=frame.ttl - 1), now)
        return True

    def _deliver(
        self, wire: Wire, source: bytes, frame: Frame, now: float, data: Optional[bytes] = None
    ) -> Optional[Incoming]:
        """Take a frame for this node or for all. `data`: the whole frame, if its like may take the fast path."""
        if frame.type == TYPE_STREAM:
            if data is not None:
                self._open_flow(wire, data, Flow(frame.origin, self._sender(wire, source, frame.origin)))
            return Incoming(frame.origin, frame.payload)
        if frame.type == TYPE_HANDSHAKE:  # an empty one to everyone: relayed only
            return None
        text = parse_text(frame.payload)
        if not is_text(text):
            self._tell_strange(frame.origin, "streams")
            raise FrameError("text")
        key = (frame.origin, frame.msg_id)
        if not self.takes_texts and key not in self._delivered:
            self.drops["inbox full"] += 1  # unacknowledged: who sent it tries again
            return None
        if self._delivered.add(key, now=now):
            self.events.append(MessageReceived(frame.origin, frame.dest, frame.msg_id, text))
        if frame.type == TYPE_MESSAGE and frame.dest == self.address:
            self._answer(wire, source, self._frame(TYPE_STATUS, frame.origin, status_payload(frame.msg_id)), now)
        return None

    def _tell_strange(self, address: bytes, speaks: str) -> None:
        strange = StrangeNode(address, speaks)
        if strange not in self._strange and len(self._strange) < STRANGE_MAX:
            self._strange.add(strange)
            self.events.append(strange)

    def _transit(self, wire: Wire, source: bytes, frame: Frame, now: float, data: bytes) -> None:
        """A routed frame for another node."""
        if not is_unicast(frame.dest):
            raise FrameError("dest")
        if not self._forwards(wire, frame):
            raise FrameError("slot")
        if frame.ttl == 0:
            self._answer_expired(wire, source, frame, now)
            raise FrameError("ttl")
        frame = frame._replace(ttl=frame.ttl - 1, slot=0)
        d = self._routes.get(frame.dest)
        if not self._may_transit(wire, source):
            if self._credit.afford(wire.greeting_bytes, now=now):
                self._hurry(wire, now)
            self._flood_lost(frame, now)
        elif d is None or d.best is None:
            self._nak(wire, source, frame.dest, now)
            self._flood_lost(frame, now)
        elif d.best.neighbour.wire is wire and self._has_heard(d.best.neighbour, source, frame):
            raise FrameError("back")
        else:
            d.used = now
            hop = d.best.neighbour
            if len(data) > hop.wire.mtu + ETHERNET_HEADER_BYTES:
                raise FrameError("mtu")
            self._send_via(hop, frame, now)
            if frame.type == TYPE_STREAM:
                flow = Flow(frame.origin, self._sender(wire, source, frame.origin))
                self._aim(flow, d, hop, frame)
                self._open_flow(wire, data, flow)

    def _forwards(self, wire: Wire, frame: Frame) -> bool:
        """Return whether this program, and not another one with its MAC or nobody, is the frame's next hop."""
        return wire.relays and frame.slot == wire.slot

    def _answer_expired(self, wire: Wire, source: bytes, frame: Frame, now: float) -> None:
        """Answer an `echo` that gets no further, in place of the node it is for: so a path is traced."""
        h = decode_handshake(frame.payload) if frame.type == TYPE_HANDSHAKE else None
        if h is not None and h.flags & FLAG_PROBE:
            self._answer_echo(wire, source, frame.origin, h.token, now)

    def _has_heard(self, hop: Neighbour, source: bytes, frame: Frame) -> bool:
        """Return whether the next hop sent this frame, or got it where we did: it has our MAC and the frame is its."""
        return source in hop.sources or (hop.mac == hop.wire.mac and hop.address == frame.dest)

    def _may_transit(self, wire: Wire, source: bytes) -> bool:
        """Tell whether all who send with this MAC have echoed our nonce: then nobody relies on what we said before it.

        Without this rule a restarted node can close a loop (section "why it cannot loop", step 4). A dead one did echo
        it: a program that was killed does not hold up the others on its card.
        """
        senders = wire.senders.get(source, ())
        return any(n.usable for n in senders) and all(n.usable or n.state is DEAD for n in senders)

    def _nak(self, wire: Wire, source: bytes, dest: bytes, now: float) -> None:
        """Tell who sent us a frame that we have no route to its destination: it must have missed that."""
        d = self._routes.get(dest)
        if not (self._answers if d is None else d.naks).take(now=now):
            return
        retraction = Route(dest, d.fd_seq if d is not None else 0, METRIC_UNREACHABLE, 0)
        for n in wire.senders.get(source, ()):
            if not n.v1:
                self._direct(n, routes=(retraction,))
        if dest in wire.told:
            self._distrust(wire, dest)

    # Frames out

    def _frame(self, kind: int, dest: bytes, payload: bytes) -> Frame:
        self._msg_id += 1
        return Frame(kind, self.address, dest, TTL_ROUTED, self._msg_id, payload)

    def _route(self, frame: Frame, now: float) -> None:
        """Send a frame of our own along the route, or flood it."""
        d = self._routes.get(frame.dest)
        if d is None or d.best is None:
            self._flood(frame, now)
        else:
            d.used = now
            self._send_via(d.best.neighbour, frame, now)

    def _answer(self, wire: Wire, source: bytes, frame: Frame, now: float) -> None:
        """Send a frame along the route; without one, to the Ethernet address that the question came from, as v1.0 does.

        A neighbour of ours would have no route either: then it is flooded, as far as the question pays for that.
        """
        size = PAYLOAD_OFFSET + len(frame.payload)
        path = self.path_to(frame.dest)
        if path is not None:  # no data: nobody is probed because an answer stays unanswered
            self._send_to(path.neighbour, frame)
        elif all(n.v1 for n in wire.senders.get(source, ())):
            self._credit.owe(size)
            self._send(wire, source, frame)
        elif self._credit.afford(size * len(self._up), now=now):
            self._flood(frame, now)
        else:
            self.drops["limit"] += 1

    def _send_via(self, n: Neighbour, frame: Frame, now: float) -> None:
        """Send data to a neighbour, and see whether it answers."""
        if not n.waiting:
            self._expect(n, now)
        self._send_to(n, frame)

    def _send_to(self, n: Neighbour, frame: Frame) -> None:
        """Send a routed frame to the neighbour that is its next hop."""
        self._send(n.wire, n.mac, frame._replace(slot=n.slot_for(frame.dest)))

    def _send(self, wire: Wire, mac: bytes, frame: Frame) -> None:
        self._out.append(Transmit(wire.index, encode_ethernet(mac, wire.mac, encode_frame(frame))))

    def _send_lost(self, dest: bytes, payload: bytes, now: float) -> None:
        """Flood a STREAM frame, rarely if there was a route and it will come back."""
        bucket = self._lost_floods if dest in self._routes else self._floods
        if not is_unicast(dest) or dest == self.address:
            self.drops["dest"] += 1
        elif bucket.take(now=now):
            self._flood(self._frame(TYPE_STREAM, dest, payload), now)
        else:
            self.drops["limit"] += 1

    def _flood(self, frame: Frame, now: float) -> None:
        """Flood a frame of our own. v1.0 nodes know no greater ttl than their own."""
        self._seen.add((frame.origin, frame.msg_id), now=now)
        v1 = any(n.v1 for wire in self._wires for n in wire.neighbours.values())
        for wire in self._up:
            if wire is wire.segment(now):
                self._send(wire, BROADCAST_ADDRESS, frame._replace(ttl=TTL_V1 if v1 else TTL_ROUTED))

    def _flood_lost(self, frame: Frame, now: float) -> None:
        """Flood the frame of another node that came the straight way and finds it closed."""
        if not self._lost_floods.take(now=now) or not self._may_spread(frame, len(self._up), now):
            raise FrameError("limit")
        self._seen.add((frame.origin, frame.msg_id), now=now)
        for wire in self._up:
            if wire is wire.segment(now) and self._is_listened(wire, frame):
                self._send(wire, BROADCAST_ADDRESS, frame)

    def _is_listened(self, wire: Wire, frame: Frame) -> bool:
        """Return whether a flood may find somebody on an interface: also the node it is for, whom nobody knows yet."""
        return self._flooded_from.get(frame.dest) is wire or any(n.usable for n in wire.neighbours.values())

    def _relay(self, wire: Wire, source: bytes, frame: Frame, now: float) -> None:
        """Flood the frame of another node on, after a moment in which somebody else may do it for us."""
        if frame.ttl == 0:
            raise FrameError("ttl")
        targets = set()
        for other in self._up:
            if other is wire.segment(now):
                needed = not other.loopback and not other.covered(source, now, v1=True)
            else:
                needed = other is other.segment(now) and self._is_listened(other, frame)
            if needed:
                targets.add(other.index)
        if not targets:
            return
        if not self._floods.take(now=now) or not self._may_spread(frame, len(targets), now):
            raise FrameError("limit")
        key = (frame.origin, frame.msg_id)
        relay = self._relays[key] = Relay(frame._replace(ttl=frame.ttl - 1, slot=0), targets)
        self._at(now + self._rng.uniform(*RELAY_DELAY), self._relay_now, key, relay)

    def _may_spread(self, frame: Frame, copies: int, now: float) -> bool:
        """Return whether a frame may be sent on so many interfaces: a stranger's must be paid for."""
        known = frame.origin in self._routes
        return known or self._credit.afford(copies * (PAYLOAD_OFFSET + len(frame.payload)), now=now)

    def _relay_now(self, key: Tuple[bytes, int], relay: Relay, _now: float) -> None:
        self._relays.pop(key, None)
        for wire in self._up:
            if wire.index in relay.wires:
                self._send(wire, BROADCAST_ADDRESS, relay.frame)

    def _cancel_relay(self, key: Tuple[bytes, int], wire: Wire, source: bytes, now: float) -> None:
        """Somebody else passed the frame on here: enough, if all others hear that one."""
        relay = self._relays.get(key)
        if relay is not None and wire.covered(source, now, v1=False):
            relay.wires.discard(wire.index)

    # The fast path

    def _open_lane(self, dest: bytes) -> Optional[Flow]:
        """Prepare the beginning of all STREAM frames to `dest`; None if there is no route."""
        d = self._routes.get(dest)
        if d is None or d.best is None:
            return None
        hop = d.best.neighbour
        lane = self._lanes[dest] = Flow(self.address, hop)
        self._aim(lane, d, hop, Frame(TYPE_STREAM, self.address, dest, TTL_ROUTED, 0, b""))
        return lane

    def _open_flow(self, wire: Wire, data: bytes, flow: Flow) -> None:
        if len(wire.flows) >= FLOWS_MAX:
            wire.flows.clear()
        wire.flows[data[:FLOW_BYTES]] = flow

    def _aim(self, flow: Flow, d: Destination, hop: Neighbour, frame: Frame) -> None:
        header = encode_frame(frame._replace(slot=hop.slot_for(frame.dest)))
        flow.out = hop
        flow.destination = d
        flow.head = encode_ethernet(hop.mac, hop.wire.mac, header)[:FLOW_BYTES]
        flow.index = hop.wire.index
        flow.limit = hop.wire.mtu + ETHERNET_HEADER_BYTES

    def _forget_flows(self) -> None:
        """A route or a neighbour is not what it was."""
        self._lanes.clear()
        for wire in self._wires:
            wire.flows.clear()

    def _sender(self, wire: Wire, source: bytes, origin: bytes) -> Neighbour:
        """Return the neighbour who sent a frame, as far as its MAC tells."""
        senders = wire.senders.get(source, ())
        if len(senders) == 1 and not wire.loopback:
            return senders[0]
        return next((n for n in senders if n.address == origin), self._nobody)

    # Neighbours

    def _hear(self, wire: Wire, source: bytes, origin: bytes, h: Handshake, directed: bool, now: float) -> None:
        """A HANDSHAKE straight from a node on this segment."""
        knows_us = h.heard is not None and Heard(wire.mac, self._nonce) in h.heard
        n = wire.neighbours.get(origin) or self._meet(wire, source, origin, now, knows_us=knows_us)
        if n.nonce != h.nonce:
            self._flush_node(origin, h.nonce, now)
        if n.leaving:
            return
        self._note_source(n, source, h.slot, now)
        if h.flags & FLAG_BYE:
            self._say_bye(n, now)
            return
        if source == wire.mac and h.slot == wire.slot != NO_SLOT and (h.seq, origin) < (self._seq, self.address):
            self._choose_slot(wire, now)  # the other program has run for longer
        self._note(n, h, now)
        self._listen(n, h.heard, directed, now)
        self._learn_table(n, h, now)
        self._take_requests(n, h.requests, now)
        if h.flags & FLAG_REPLY:
            self._confirm(n, h.token, now)
        elif h.flags & FLAG_PROBE and n.replies.take(now=now):
            self._direct(n, FLAG_REPLY, h.token)
            self._credit.owe(0 if n.srtt else PROBE_BYTES)
        if n.state is DEAD and n.retry > now and n.replies.take(now=now):
            self._send_probe(n, now)  # it is there, so ask again now
        self._arm(n)

    def _receive_v1_handshake(self, wire: Wire, source: bytes, frame: Frame, directed: bool, now: float) -> None:
        """An empty HANDSHAKE. With a full ttl it comes straight from a v1.0 node on this segment."""
        origin = frame.origin
        if frame.ttl == TTL_V1:
            n = wire.neighbours.get(origin) or self._meet(wire, source, origin, now)
            if not n.v1:
                self._flush_node(origin, 0, now)
            self._note_source(n, source, NO_SLOT, now)
            self._note(n, None, now)
            if n.state is HEARD:
                self._move(n, UP, now)
            elif directed:
                self._confirm(n, next(iter(n.probes), 0), now)
            self._learn(n, Route(origin, max(n.seq, int(self._epoch + now) // V1_SEQ_SECONDS, 1), 0, n.mtu), now)
            self._arm(n)
        else:
            self._hear_of(wire, source, origin, TTL_V1 - frame.ttl + 1, now)
        if not directed:
            self._receive_flood(wire, source, frame, now)
            return
        for token, echo in list(self._echoes.items()):
            if echo.dest == origin:
                del self._echoes[token]
                hops = max(TTL_V1 - frame.ttl, 0) + 1
                self.events.append(Echoed(token, origin, hops, now - echo.sent, "", ()))
        payload = self._echo_payload(FLAG_REPLY, 0, is_short=True)
        is_asked = now - self._asked.get(origin, -INFINITY) < ASK_QUIET  # else two answerers might never end
        if not is_asked and self._credit.afford(PAYLOAD_OFFSET + len(payload), now=now) and self._answers.take(now=now):
            self._note_asked(origin, now)
            self._answer(wire, source, self._frame(TYPE_HANDSHAKE, origin, payload), now)

    def _meet(self, wire: Wire, source: bytes, origin: bytes, now: float, *, knows_us: bool = False) -> Neighbour:
        """Enter a neighbour in the table, if need be in place of one that is not up or a v1.0 node."""
        if not (self._newcomers[knows_us].take(now=now) and self._credit.afford(NEWCOMER_BYTES, now=now)):
            raise FrameError("newcomers")
        if len(wire.neighbours) >= NEIGHBOURS_MAX:
            oldest = min(wire.neighbours.values(), key=lambda n: (n.usable and not n.v1, n.usable, n.last_heard))
            if oldest.usable and not oldest.v1:
                raise FrameError("neighbours")
            self._forget(oldest, now)
        n = wire.neighbours[origin] = Neighbour(wire, origin, source, now)
        self._forget_flows()
        return n

    def _note_asked(self, address: bytes, now: float) -> None:
        """A directed HANDSHAKE goes to a node."""
        if len(self._asked) >= DESTINATIONS_MAX:
            self._asked.clear()
        self._asked[address] = now

    def _note_source(self, n: Neighbour, source: bytes, slot: int, now: float) -> None:
        """Note the Ethernet address that the neighbour sent with, and its slot there."""
        known = n.sources.get(source)
        n.sources[source] = Source(now, slot)
        if known is None:
            n.wire.senders[source] = (*n.wire.senders.get(source, ()), n)
            n.wire.list_as(n, tuple(Heard(mac, n.nonce) for mac in n.sources))
            self._hurry_for(n, now)
        self._move_to(n, source, now)
        if known is None or known.slot != slot:
            self._take_slot(n, source, slot, now)
            self._forget_flows()
            self._reselect(n, now)

    def _move_to(self, n: Neighbour, source: bytes, now: float) -> None:
        """Send to another Ethernet address of the neighbour from now on if the one used so far is silent."""
        if source != n.mac and (not n.usable or now - n.sources[n.mac].heard_at > n.interval * OVERDUE_INTERVALS[1]):
            self._drop_source(n, n.mac)
            n.mac = source
        elif len(n.sources) > SOURCES_MAX:
            self._drop_source(n, next(mac for mac in n.sources if mac not in (n.mac, source)))

    def _take_slot(self, n: Neighbour, source: bytes, slot: int, now: float) -> None:
        """A neighbour says its slot at an Ethernet address: the program that had it before has ended."""
        for other in n.wire.senders[source]:
            if other is not n and other.sources[source].slot == slot != NO_SLOT:
                self._forget(other, now)

    def _choose_slot(self, wire: Wire, now: float) -> None:
        """Take the lowest slot that no other program with this MAC has; for where a lock file cannot tell.

        Others may still send to a dead program that had it. So this is another incarnation: nothing is forwarded for a
        neighbour before it lists the new nonce, and has therefore heard of the slot.
        """
        taken = {n.sources[wire.mac].slot for n in wire.senders.get(wire.mac, ())}
        before, wire.slot = wire.slot, min(set(range(NO_SLOT + 1)) - (taken - {NO_SLOT}))
        if wire.slot == before:
            return
        wire.relays = False
        self._at(now + SLOT_HELD, self._hold_slot, wire, wire.slot)
        self._nonce = self._token()
        for each in self._wires:
            self._await_listing(each, now)

    def _hold_slot(self, wire: Wire, slot: int, now: float) -> None:
        """A chosen slot was announced: unless another program chose it too, and for longer, it is ours."""
        if wire.slot == slot != NO_SLOT:
            wire.relays = True
            self._review(wire, now)

    def _await_listing(self, wire: Wire, now: float) -> None:
        """What identifies us on an interface is new: no link there is up until the neighbour lists it."""
        for n in wire.neighbours.values():
            if n.state is not HEARD and not n.v1:
                self._move(n, HEARD, now)
        wire.review = True
        self._forget_flows()
        self._hurry(wire, now)

    def _drop_source(self, n: Neighbour, mac: bytes) -> None:
        del n.sources[mac]
        n.wire.list_as(n, tuple(Heard(mac, n.nonce) for mac in n.sources))
        others = tuple(m for m in n.wire.senders[mac] if m is not n)
        if others:
            n.wire.senders[mac] = others
        else:
            del n.wire.senders[mac]
        self._forget_flows()

    def _flush_node(self, address: bytes, nonce: int, now: float) -> None:
        """A node restarted: forget all that its former self said, on every interface."""
        for wire in self._wires:
            n = wire.neighbours.get(address)
            if n is not None and n.nonce != nonce:
                self._reset(n, nonce, now)

    def _reset(self, n: Neighbour, nonce: int, now: float) -> None:
        wire = n.wire
        wire.take_list(n, frozenset())
        n.restart(nonce, now)
        wire.list_as(n, tuple(Heard(mac, nonce) for mac in n.sources))
        wire.recent |= n.bit
        if n.state is not HEARD:
            self._move(n, HEARD, now)
        self._unlearn_all(n, now)
        if n.sources:  # else its source is noted next
            self._hurry_for(n, now)
        self._at(now + MEET_SECONDS, self._settle, n)

    def _settle(self, n: Neighbour, now: float) -> None:
        """A newcomer has had time to say whom it hears."""
        if now >= n.met + MEET_SECONDS and n.wire.neighbours.get(n.address) is n:
            n.wire.recent &= ~n.bit
            self._review(n.wire, now)

    def _hurry_for(self, n: Neighbour, now: float, delay: Optional[float] = None) -> None:
        """Say soon whom we hear, because of a neighbour; a stranger must have paid for that."""
        wire = n.wire
        wire.news = NEWS_GREETINGS
        is_soon = wire.greet_at <= now + START_DELAY[1]  # one HANDSHAKE answers all newcomers
        if n.srtt or is_soon or self._credit.afford(wire.greeting_bytes, now=now):
            self._hurry(wire, now, delay)

    def _unlearn_all(self, n: Neighbour, now: float) -> None:
        for dest in self._routes if n.adverts else ():
            self._unlearn(n, dest, now)

    def _forget(self, n: Neighbour, now: float) -> None:
        """Take a neighbour out of the table."""
        wire = n.wire
        del wire.neighbours[n.address]
        for mac in list(n.sources):
            self._drop_source(n, mac)
        wire.drop_bit(n)
        n.usable = False
        n.deadline = INFINITY
        self._unlearn_all(n, now)
        wire.review = True
        wire.news = NEWS_GREETINGS
        self._flush_in(self._rng.uniform(*UPDATE_DELAY), now)

    def _say_bye(self, n: Neighbour, now: float) -> None:
        """A node leaves. It still forwards for a moment, so its routes are the last choice until then."""
        d = self._routes.get(n.address)
        if d is not None:
            d.left_at = now
        for wire in self._wires:
            m = wire.neighbours.get(n.address)
            if m is None or m.leaving:
                continue
            if m.state is HEARD and len(wire.senders[m.mac]) > 1:  # it must not hold up the others on its card
                self._forget(m, now)
                continue
            m.leaving = True
            m.retry = INFINITY
            m.expires = now + BYE_GRACE
            if m.state in (UP, PROBING):
                self._move(m, SUSPECT, now)
            self._unlearn(m, n.address, now)
            self._arm(m)

    def _note(self, n: Neighbour, h: Optional[Handshake], now: float) -> None:
        """Keep what a HANDSHAKE says about the neighbour itself. None: a v1.0 node's."""
        n.last_heard = now
        n.interval = h.interval if h is not None and h.interval else HANDSHAKE_INTERVAL
        n.overdue = now + n.interval * self._rng.uniform(*OVERDUE_INTERVALS)
        n.expires = now + n.interval * HOLD_INTERVALS
        if h is None or h.ttl0 == TTL_V1:
            self._count_missed(n, now)
        offered = ETHERNET_MTU if h is None else max(h.mtu, MESH_MTU_MIN)
        if offered != n.offered:
            n.offered = offered
            n.mtu = min(offered, n.wire.mtu if n.wire.loopback else ETHERNET_MTU)
            self._reselect(n, now)
            self._grow(n, now)
        d = self._routes.get(n.address)
        if h is not None and d is not None:
            d.name = d.name if h.name is None else h.name
            d.ports = d.ports if h.ports is None else h.ports

    def _count_missed(self, n: Neighbour, now: float) -> None:
        """Count the periodic HANDSHAKEs that should have come since the last one; a lossy link costs more."""
        missed = min(8, max(0, int((now - n.greeted_at) / n.interval - 0.1))) if n.greeted_at > -INFINITY else 0
        n.greeted_at = now
        n.history = (n.history << missed | (1 << missed) - 1) << 1 & 0xFF
        cost = LOSSY_COST if bin(n.history).count("1") >= LOSSY_MISSES else HOP_COST
        if cost != n.cost:
            n.cost = cost
            self._reselect(n, now)

    def _listen(self, n: Neighbour, heard: Optional[Tuple[Heard, ...]], directed: bool, now: float) -> None:
        """Whom does the neighbour hear? Only if this incarnation of ours is among them may the link be used."""
        if heard is None:
            return
        wire = n.wire
        us = Heard(wire.mac, self._nonce)
        listed = frozenset(heard)
        if directed:
            listed = n.heard | listed & {us}  # no list of all
        elif now - n.listed_at < HEARD_GATHER and len(n.heard) < NEIGHBOURS_MAX:
            listed |= n.heard  # the second frame of a long list
        else:
            n.listed_at = now
        if listed != n.heard:
            wire.take_list(n, listed)
            wire.review = True
            self._flush_in(self._rng.uniform(*UPDATE_DELAY), now)
        if us in listed and n.state is HEARD:
            self._move(n, UP, now)
        elif us not in listed and n.usable:
            self._move(n, HEARD, now)

    def _move(self, n: Neighbour, state: LinkState, now: float) -> None:
        """Change the state of a link, and draw the consequences for routes and for what is told."""
        if state not in LINK_MOVES[n.state]:
            raise RuntimeError(f"a neighbour goes from {n.state} to {state}")
        before, n.state = n.state, state
        was_usable, n.usable = n.usable, state in USABLE
        if state is UP:
            n.misses = 0
            n.waiting = 0.0
            n.confirm_at = now + CONFIRM_SECONDS
            n.backoff = ASK_FIRST
        elif not n.usable:
            n.backoff = ASK_FIRST
            n.retry = now + n.backoff
        if n.usable != was_usable or before is DEAD:
            self._forget_flows()
        if n.usable != was_usable:
            wire = n.wire
            wire.listening = wire.listening | n.bit if n.usable and not n.v1 else wire.listening & ~n.bit
            wire.review = True
            if n.usable:
                self._repeat_for(n, now)
            self._flush_in(self._rng.uniform(*UPDATE_DELAY), now)
            if DEAD in (before, state):
                self._hurry_for(n, now, delay=0.0)  # HEARD changes
            if n.usable:
                self._grow(n, now)
        if n.usable != was_usable or SUSPECT in (before, state):
            self._reselect(n, now)

    def _repeat_for(self, n: Neighbour, now: float) -> None:
        """Tell everything again, as a neighbour listens from now on; a large table only once it has answered."""
        if n.srtt or self._credit.afford(ROUTE_BYTES * len(n.wire.told), now=now):
            n.wire.repeat = True
        else:
            n.repeats_later = True
            self._send_probe(n, now)

    # Probes

    def _expect(self, n: Neighbour, now: float) -> None:
        """Data goes out to a neighbour: if nothing comes back for DELAY_SECONDS, it is probed."""
        n.waiting = n.sent = now
        if n.confirm_at < now:
            n.confirm_at = now + CONFIRM_SECONDS
        if n.deadline > now + DELAY_SECONDS:
            self._arm(n)

    def _due(self, n: Neighbour) -> float:
        """Return when something must be done about the neighbour if nothing happens before."""
        if n.state is not UP:
            return min(n.expires, n.retry)
        due = min(n.expires, n.overdue)
        if n.waiting:
            due = min(due, n.waiting + DELAY_SECONDS)
        if n.sent > n.confirm_at - CONFIRM_SECONDS:
            due = min(due, n.confirm_at)
        return due

    def _arm(self, n: Neighbour) -> None:
        due = self._due(n)
        if due < n.deadline and not self._gone:
            n.deadline = due
            self._at(due, self._watch, n, due)

    def _watch(self, n: Neighbour, due: float, now: float) -> None:
        """The neighbour's timer: probe it, count what it missed, ask again, forget it."""
        if due != n.deadline:
            return  # another timer was set for earlier
        n.deadline = INFINITY
        if now >= n.expires:
            self._forget(n, now)
            return
        if now >= self._due(n):
            if n.state is UP:
                self._probe(n, now)
            elif n.state in (HEARD, DEAD):
                n.backoff = min(2 * n.backoff, HANDSHAKE_INTERVAL)
                self._send_probe(n, now)
            elif now > n.retry + LATE_SECONDS:
                n.retry = now + LATE_SECONDS  # we were held up ourselves; its answer may wait to be read
            else:
                self._miss(n, now)
        self._arm(n)

    def _probe(self, n: Neighbour, now: float) -> None:
        self._move(n, PROBING, now)
        self._send_probe(n, now)

    def _miss(self, n: Neighbour, now: float) -> None:
        """A PROBE went unanswered."""
        n.misses += 1
        latest = max(n.sources, key=lambda mac: n.sources[mac].heard_at)
        if latest != n.mac:  # its interface may have got another Ethernet address
            self._drop_source(n, n.mac)
            n.mac = latest
        if n.misses == 1:
            self._move(n, SUSPECT, now)
        if n.misses < PROBE_TRIES:
            self._send_probe(n, now)
        else:
            self._move(n, DEAD, now)

    def _send_probe(self, n: Neighbour, now: float) -> None:
        """Ask the neighbour to answer. One that never has, and to which nothing is sent, must have paid for that."""
        token = self._token()
        n.retry = now + (n.backoff if n.state in (HEARD, DEAD) else max(PROBE_TIMEOUT, 4 * n.srtt))
        if n.srtt or n.sent > -INFINITY or self._credit.afford(PROBE_BYTES, now=now):
            n.probes[token] = now
            if len(n.probes) > PROBE_TRIES:
                del n.probes[next(iter(n.probes))]
            self._note_asked(n.address, now)
            self._direct(n, FLAG_PROBE, token)
        self._arm(n)

    def _confirm(self, n: Neighbour, token: int, now: float) -> None:
        """A REPLY: if it answers a question of ours, the link works both ways."""
        if token and token == n.big_token:
            n.big_token = 0
            n.mtu = min(n.offered, n.wire.mtu)
            self._reselect(n, now)
            return
        sent = n.probes.get(token)
        if sent is None:
            announced, sent = self._announced
            if token != announced or now - sent > HANDSHAKE_INTERVAL:
                return
        n.srtt = (7 * n.srtt + now - sent) / 8 if n.srtt else now - sent
        n.probes.clear()
        if n.state not in (HEARD, UP):
            self._move(n, UP, now)
        if n.grows_later:
            n.grows_later = False
            self._grow(n, now)
        if n.repeats_later:
            n.repeats_later = False
            n.wire.repeat = True
            self._flush_in(0.0, now)
        if not n.is_introduced:
            n.is_introduced = True
            self._dirty[n.address] = None
            self._flush_in(0.0, now)

    def _grow(self, n: Neighbour, now: float) -> None:
        """Find out by padded PROBEs whether frames of more than 1500 bytes reach the neighbour.

        It answers a small one first: else a few bytes of anybody would send thousands to a third.
        """
        size = min(n.offered, n.wire.mtu)
        if n.mtu < size and not n.big_token and not n.srtt:
            n.grows_later = True
            self._send_probe(n, now)
        elif n.mtu < size and not n.big_token:
            n.big_token = self._token()
            self._send_big(n, n.big_token, size, PROBE_TRIES, now)

    def _send_big(self, n: Neighbour, token: int, size: int, tries: int, now: float) -> None:
        if token != n.big_token:
            return  # it was answered
        if not tries or not n.usable:
            n.big_token = 0
            return
        pad = size - MESH_HEADER_BYTES - HANDSHAKE_FIXED_BYTES - 2 * TLV_BYTES - HEARD_BYTES * len(n.tags)
        self._direct(n, FLAG_PROBE, token, pad=pad)
        self._at(now + max(PROBE_TIMEOUT, 4 * n.srtt), self._send_big, n, token, size, tries - 1)

    # HANDSHAKEs out

    def _handshake(self, wire: Wire, flags: int, ttl0: int, token: int = 0) -> Handshake:
        return Handshake(flags, ttl0, HANDSHAKE_INTERVAL, wire.mtu, self._nonce, self._seq, token, slot=wire.slot)

    def _send_handshake(self, wire: Wire, mac: bytes, dest: bytes, handshake: Handshake) -> None:
        frame = self._frame(TYPE_HANDSHAKE, dest, encode_handshake(handshake))
        self._send(wire, mac, frame._replace(ttl=handshake.ttl0))

    def _direct(self, n: Neighbour, flags: int = 0, token: int = 0, **tlvs: Any) -> None:
        """Send a HANDSHAKE to one neighbour."""
        handshake = self._handshake(n.wire, flags, 0, token)._replace(**tlvs)
        if n.state is not DEAD and not n.v1:
            handshake = handshake._replace(heard=n.tags)
        if flags & FLAG_REPLY and n.usable:
            handshake = handshake._replace(name=self._name, ports=self._ports)
        self._send_handshake(n.wire, n.mac, n.address, handshake)

    def _hurry(self, wire: Wire, now: float, delay: Optional[float] = None) -> None:
        """There is somebody to be greeted: send the next HANDSHAKE soon."""
        wire.news = NEWS_GREETINGS
        when = now + (self._rng.uniform(*START_DELAY) if delay is None else delay)
        self._greet_at(wire, max(when, wire.greeted + GREET_GAP))

    def _greet_at(self, wire: Wire, when: float) -> None:
        if when < wire.greet_at and not self._gone:
            wire.greet_at = when
            self._at(when, self._greet, wire, when)

    def _greet(self, wire: Wire, when: float, now: float) -> None:
        """The timer of the periodic HANDSHAKE."""
        if when == wire.greet_at:
            wire.greet_at = INFINITY
            wire.greet = wire.review = True
            self._flush_at = now
            self._flush(now)

    def _send_greeting(self, wire: Wire, now: float, flags: int = 0, token: int = 0) -> bool:
        """Send the HANDSHAKE to everyone; return True if it held all routes that this interface is told."""
        wire.greetings += 1
        wire.greeted = now
        wire.greet = wire.repeat = wire.bump = False
        wire.greet_at = INFINITY
        self._greet_at(wire, now + HANDSHAKE_INTERVAL * self._rng.uniform(*JITTER))
        handshake = self._handshake(wire, flags, TTL_V1, token)
        room = routes_room(wire)
        lists = wire.news or wire.greetings % HEARD_EVERY == 0
        if wire.news:
            wire.news -= 1
            handshake = handshake._replace(name=self._name, ports=self._ports)
            room -= 2 * TLV_BYTES + len(self._name.encode("utf-8", "replace")) + 2 * len(self._ports)
        if lists:
            heard = self._list_heard(wire, (room - TLV_BYTES) // HEARD_BYTES)
            handshake = handshake._replace(heard=heard)
            room -= TLV_BYTES + HEARD_BYTES * len(heard)
        fit = max(room // ROUTE_BYTES, 0)
        routes = list(wire.told.values()) if wire.listening else []
        full = len(routes) <= fit
        if full:
            handshake = handshake._replace(flags=flags | FLAG_FULL)
        else:
            start = wire.cursor % len(routes)
            wire.cursor = start + fit
            routes = (routes[start:] + routes[:start])[:fit]
        self._send_handshake(wire, BROADCAST_ADDRESS, EVERYONE, handshake._replace(routes=tuple(routes)))
        wire.greeting_bytes = len(self._out[-1].frame)
        return full

    def _list_heard(self, wire: Wire, most: int) -> Tuple[Heard, ...]:
        """Return whom we hear; what is more than `most` is sent before, in frames of its own."""
        heard = [tag for n in wire.neighbours.values() if n.state is not DEAD and not n.leaving for tag in n.tags]
        part = max(routes_room(wire) // HEARD_BYTES, 1)
        while len(heard) > max(most, 0):
            handshake = self._handshake(wire, 0, TTL_V1)._replace(heard=tuple(heard[:part]))
            self._send_handshake(wire, BROADCAST_ADDRESS, EVERYONE, handshake)
            del heard[:part]
        return tuple(heard)

    def _send_update(self, wire: Wire, routes: List[Route]) -> None:
        """Tell an interface what changed, ask what is to be asked, in as few frames as hold it."""
        requests = list(wire.requests.values())
        wire.requests.clear()
        if not (routes or requests or wire.bump):
            return
        wire.bump = False
        fit = max(routes_room(wire) // ROUTE_BYTES, 1)  # a REQUEST is smaller than a ROUTE
        for start in range(0, max(len(routes) + len(requests), 1), fit):
            first = start - len(routes)
            handshake = self._handshake(wire, 0, 0)._replace(
                routes=tuple(routes[start : start + fit]),
                requests=tuple(requests[max(first, 0) : max(first + fit, 0)]),
            )
            self._send_handshake(wire, BROADCAST_ADDRESS, EVERYONE, handshake)

    def _echo_payload(self, flags: int, token: int, *, is_short: bool = False) -> bytes:
        """Return the payload of a HANDSHAKE that is routed like data; a short answer has neither name nor ports."""
        handshake = self._handshake(self._wires[0], flags, TTL_ROUTED, token)._replace(slot=0)
        if flags & FLAG_REPLY and not is_short:
            handshake = handshake._replace(name=self._name, ports=self._ports)
        return encode_handshake(handshake)

    # Routes in

    def _learn_table(self, n: Neighbour, h: Handshake, now: float) -> None:
        """Take the routes of a HANDSHAKE."""
        self._learn(n, Route(n.address, h.seq, 0, n.offered), now)
        for route in h.routes:
            if route.dest == self.address:
                self._meet_own_past(route, now)
            elif route.dest == n.address or not is_unicast(route.dest):
                self.drops["route"] += 1
            elif route.metric >= METRIC_UNREACHABLE:
                self._unlearn(n, route.dest, now)
            else:
                self._learn(n, route, now)
        if h.flags & FLAG_FULL:
            listed = {route.dest for route in h.routes}
            for d in self._routes.values():
                if n in d.adverts and d.address not in listed and d.address != n.address:
                    self._unlearn(n, d.address, now)

    def _learn(self, n: Neighbour, route: Route, now: float) -> None:
        """The neighbour has a route, or is the destination itself (metric 0)."""
        d = self._routes.get(route.dest) or self._add_destination(route.dest, n, now)
        if d is None:
            self.drops["destinations"] += 1
            return
        old = d.adverts.get(n)
        n.adverts += old is None
        d.adverts[n] = Advert(route.seq, route.metric, route.mtu, now)
        if route.metric == 0:
            d.left_at = -INFINITY
        if old is not None and old[:3] == (route.seq, route.metric, route.mtu):
            if d.best is None or d.asks:
                self._seek(d, now)
        elif d.best is None or d.best.neighbour is n or self._is_better(d, n, d.best.neighbour):
            self._select(d, now)

    def _is_better(self, d: Destination, n: Neighbour, than: Neighbour) -> bool:
        """Return whether a next hop is better than the one in use, or that one must not be used any more."""
        rank, other = self._rank(d, n), self._rank(d, than)
        return other is None or (rank is not None and rank < other)

    def _unlearn(self, n: Neighbour, dest: bytes, now: float) -> None:
        d = self._routes.get(dest)
        if d is not None and d.adverts.pop(n, None) is not None:
            n.adverts -= 1
            d.touched = now
            if d.best is None or d.best.neighbour is n:
                self._select(d, now)

    def _add_destination(self, dest: bytes, n: Neighbour, now: float) -> Optional[Destination]:
        """Enter a destination in the table; if it is full, in place of one that was not used for long.

        A neighbour that filled half of the table itself gets no more.
        """
        if len(self._routes) >= DESTINATIONS_MAX:
            if n.adverts >= DESTINATIONS_MAX // 2:
                return None
            for _ in range(EVICT_TRIES):  # the front of the table; what is in use goes back to its end
                oldest = self._routes.pop(next(iter(self._routes)))
                direct = oldest.best is not None and oldest.best.neighbour.address == oldest.address
                if not direct and not oldest.in_use(now):
                    break
                self._routes[oldest.address] = oldest
            else:
                return None
            self._evict(oldest, now)
        d = self._routes[dest] = Destination(dest, now)
        return d

    def _evict(self, d: Destination, now: float) -> None:
        """Forget a destination, told ones with a retraction."""
        for n in d.adverts:
            n.adverts -= 1
        d.adverts.clear()
        d.best = None
        self._forget_flows()
        self._dirty[d.address] = None
        self._flush_in(self._rng.uniform(*UPDATE_DELAY), now)
        self._lose(d, now)

    def _meet_own_past(self, route: Route, now: float) -> None:
        """Somebody has a route to this node that is newer than it: it restarted without a clock."""
        is_newer = self._seq < route.seq < self._highest_seq(now)
        if is_newer and route.metric < METRIC_UNREACHABLE and now >= self._jump_at:
            self._jump_at = now + HANDSHAKE_INTERVAL  # two nodes with one address must not chase each other
            self._bump(route.seq + 1, now)

    def _highest_seq(self, now: float) -> int:
        """Return the highest sequence number that others may move this node to: never near the end of all numbers."""
        clock = int(self._epoch + now)
        return (clock if clock > CLOCK_MIN else SEQ_MAX - 2 * SEQ_JUMP_MAX) + SEQ_JUMP_MAX

    def _start_afresh(self, now: float) -> None:
        """Be another incarnation, which has advertised nothing yet: so every route that is offered is feasible.

        For where a destination's number once was so far ahead that it does not come again: somebody has lied. It is as
        safe as a restart: nothing is forwarded for a neighbour before it lists the new nonce, and has forgotten what
        was advertised before.
        """
        if now < self._afresh_at:
            return
        self._afresh_at = now + AFRESH_SECONDS
        self._nonce = self._token()
        for d in self._routes.values():
            d.fd = None
        for wire in self._wires:
            wire.told.clear()
            self._await_listing(wire, now)
        for d in list(self._routes.values()):
            self._select(d, now)

    def _bump(self, seq: int, now: float) -> None:
        """Take a newer sequence number, or the same again, and tell everybody at once."""
        self._seq = max(self._seq, seq)
        for wire in self._up:
            wire.bump = True
        self._flush_in(0.0, now)

    def _feasible(self, d: Destination, n: Neighbour) -> bool:
        """Return whether the neighbour's route is feasible: that keeps routes free of loops ("why it cannot loop").

        Sequence numbers are plain integers here: the proof wants a total order, and seconds fit u32 until 2106.
        """
        advert = d.adverts[n]
        return d.fd is None or (-advert.seq, advert.metric) < d.fd

    def _rank(self, d: Destination, n: Neighbour) -> Optional[Tuple[Any, ...]]:
        """Return how good the way through a neighbour is, lowest best, or None if it must not be used."""
        advert = d.adverts[n]
        metric = advert.metric + n.cost
        if not n.usable or metric >= METRIC_UNREACHABLE or not self._feasible(d, n):
            return None
        if n.slot == NO_SLOT and n.address != d.address:
            return None  # it forwards for nobody
        known = -d.fd[0] if d.fd is not None else advert.seq
        far = advert.metric > 0 and advert.seq > known + SEQ_JUMP_MAX  # believed only if there is nothing else
        new = d.best is None or n is not d.best.neighbour
        mtu = min(advert.mtu, n.mtu, n.wire.mtu)
        return n.state is SUSPECT, far, metric, -mtu, new, -advert.seq, n.mac, n.address

    def _select(self, d: Destination, now: float) -> None:
        """Choose the best of the feasible ways."""
        old = d.best
        best: Optional[Neighbour] = None
        best_rank: Tuple[Any, ...] = ()
        for n in d.adverts:
            rank = self._rank(d, n)
            if rank is not None and (best is None or rank < best_rank):
                best, best_rank = n, rank
        d.best = Path(best, d.adverts[best].seq, best_rank[2], -best_rank[3]) if best is not None else None
        if d.best != old:
            self._path_changed(d, old, now)
        self._seek(d, now)

    def _reselect(self, n: Neighbour, now: float) -> None:
        """Choose again wherever the neighbour is a candidate."""
        for d in self._routes.values() if n.adverts else ():
            if n in d.adverts:
                self._select(d, now)

    def _path_changed(self, d: Destination, old: Optional[Path], now: float) -> None:
        """Tell whom it concerns that there is another way to a destination, or none."""
        best = d.best
        if best is not None and old is None:
            for message in [each for each in self._messages.values() if each.frame.dest == d.address]:
                self._send_again(message, now)  # its flood may have come before the relays knew this node
        if best is None or old is None or best.neighbour is not old.neighbour or best.mtu != old.mtu:
            self._forget_flows()
            if best is not None and d.used > -INFINITY:
                self.events.append(PathChanged(d.address, best.mtu))
        if best is None:
            self._at(now + (0.0 if d.left(now) else LOST_GRACE), self._lose, d)
        elif not d.found:
            d.found = True
            self.events.append(NodeFound(d.address, hops_of(best), best.mtu, d.name))
        if self.tells_routes and best is not None and (old is None or best._replace(seq=old.seq) != old):
            hop = best.neighbour
            self.events.append(RouteChanged(d.address, hop.wire.index, hop.address, hops_of(best), best.mtu))
        self._dirty[d.address] = None
        urgent = (best is None and d.in_use(now)) or now - d.wanted <= REQUEST_FRESH
        self._flush_in(0.0 if urgent else self._rng.uniform(*UPDATE_DELAY), now)

    def _lose(self, d: Destination, now: float) -> None:
        if d.best is None and d.found:
            d.found = False
            self.events.append(NodeLost(d.address, "left" if d.left(now) else "unreachable"))

    # Requests: no feasible route, yet somebody has one

    def _holders(self, d: Destination, now: float) -> List[Neighbour]:
        """Return the neighbours to be asked for a newer route; none if the one we have will do."""
        if d.left(now) or (d.best is not None and not (d.best.neighbour.state is SUSPECT and d.in_use(now))):
            return []
        return [n for n in d.adverts if n.usable and (d.best is None or n is not d.best.neighbour)]

    def _seek(self, d: Destination, now: float) -> None:
        """See whether a route must be asked for; a few times in a row, then once a second at most."""
        if not self._holders(d, now):
            d.asks = 0
        elif d.asks == 0 or now >= d.ask_at:
            self._ask(d, 0.0, now)

    def _ask(self, d: Destination, due: float, now: float) -> None:
        """Ask all holders for a route with a newer sequence number. `due`: of the timer, 0 if it is not that."""
        holders = self._holders(d, now)
        if (due and due != d.ask_at) or not holders:
            return
        d.asks += 1
        d.wanted = now
        again = d.asks < REQUEST_TRIES
        d.ask_at = now + (REQUEST_RETRY if again else REQUEST_AGAIN)
        if again:
            self._at(d.ask_at, self._ask, d, d.ask_at)
        seq = d.fd_seq + 1
        is_in_vain = seq > SEQ_MAX or not again
        if is_in_vain and d.fd_seq > max(d.adverts[n].seq for n in holders) + SEQ_JUMP_MAX:
            self._start_afresh(now)
        elif seq <= SEQ_MAX:
            for n in holders:
                n.wire.requests[d.address] = Request(d.address, seq, REQUEST_HOPS)
            self._flush_in(0.0 if d.in_use(now) else self._rng.uniform(*UPDATE_DELAY), now)

    def _take_requests(self, n: Neighbour, requests: Tuple[Request, ...], now: float) -> None:
        """Answer or pass on what the neighbour asks for."""
        onward: Dict[Neighbour, List[Request]] = {}
        for request in requests:
            d = self._routes.get(request.dest)
            if request.dest == self.address:
                if request.seq <= self._highest_seq(now) and self._answers.take(now=now):
                    self._bump(request.seq, now)
            elif d is not None:
                to = self._request_target(d, n, request, now)
                again = d.passed_seq == request.seq and now - d.passed_at < REQUEST_AGAIN
                if to is not None and request.hops and not again and d.passes.take(now=now):
                    d.wanted = d.passed_at = now
                    d.passed_seq = request.seq
                    onward.setdefault(to, []).append(request._replace(hops=request.hops - 1))
        for to, passed in onward.items():
            for start in range(0, len(passed), ROUTES_PER_FRAME):
                self._direct(to, requests=tuple(passed[start : start + ROUTES_PER_FRAME]))

    def _request_target(self, d: Destination, n: Neighbour, request: Request, now: float) -> Optional[Neighbour]:
        """Return to whom a request goes on; None if it is answered here or nobody knows better."""
        best = d.best
        if best is None or best.neighbour is n:
            return next((m for m in d.adverts if m.usable and m is not n), None)
        if best.seq < request.seq:
            if not best.neighbour.v1:
                return best.neighbour
            if request.seq > best.seq + SEQ_JUMP_MAX:
                return None
            best.neighbour.seq = request.seq  # we speak for it
            self._learn(best.neighbour, Route(d.address, request.seq, 0, best.neighbour.mtu), now)
        self._distrust(n.wire, d.address)
        self._flush_in(0.0, now)
        return None

    # Routes out

    def _flush_in(self, delay: float, now: float) -> None:
        when = max(now + delay, self._flushed + UPDATE_GAP)
        if when < self._flush_at and not self._gone:
            self._flush_at = when
            self._at(when, self._flush)

    def _flush(self, now: float) -> None:
        """Tell each interface what has changed for it."""
        if now < self._flush_at:
            return
        self._flush_at = INFINITY
        self._flushed = now
        dirty, self._dirty = self._dirty, {}
        for wire in self._up:
            routes = self._changes(wire, dirty, now)
            if wire.repeat and wire.told:
                retractions = [route for route in routes if route.metric == METRIC_UNREACHABLE]
                routes = retractions + list(wire.told.values())
                wire.greet = True
            if wire.greet and self._send_greeting(wire, now):
                routes = []  # its table was complete
            wire.repeat = False
            self._send_update(wire, routes)

    def _review(self, wire: Wire, now: float) -> None:
        wire.review = True
        self._flush_in(0.0, now)

    def _changes(self, wire: Wire, dirty: Dict[bytes, None], now: float) -> List[Route]:
        """Compare what an interface should know with what it was told; what differs is told, and kept as told."""
        if not wire.listening:
            return []
        changes = []
        for address in {**dict.fromkeys(wire.told), **dict.fromkeys(self._routes)} if wire.review else dirty:
            d = self._routes.get(address)
            route = self._view(wire, d, now) if d is not None else None
            told = wire.told.get(address)
            if route == told:
                continue
            if d is None or route is None:
                del wire.told[address]
                changes.append(Route(address, d.fd_seq if d is not None else 0, METRIC_UNREACHABLE, 0))
                continue
            if told is None and not self._may_introduce(d, now):
                continue
            urgent = told is None or told != route._replace(seq=told.seq) or now - d.wanted < REQUEST_FRESH
            if urgent or wire.greet:  # a mere newer sequence number waits for the periodic HANDSHAKE
                wire.told[address] = route
                rank = (-route.seq, route.metric)
                d.fd = rank if d.fd is None else min(d.fd, rank)
            if urgent:
                changes.append(route)
        wire.review = False
        return changes

    def _may_introduce(self, d: Destination, now: float) -> bool:
        """Return whether others may be told of a node; of a neighbour that never answered only if it paid for that."""
        n = d.best.neighbour if d.best is not None else None
        if n is None or n.address != d.address or n.is_introduced:
            return True
        n.is_introduced = self._credit.afford(INTRODUCTION_BYTES * len(self._up), now=now)
        if not n.is_introduced and not n.probes:
            self._send_probe(n, now)
        return n.is_introduced

    def _view(self, wire: Wire, d: Destination, now: float) -> Optional[Route]:
        """Return the route that an interface is to be told; None if nobody there needs it, or we do not forward there.

        If the next hop is on that LAN, only those that do not hear it need the route (split horizon).
        """
        if d.best is None or not wire.relays:
            return None
        hop, direct = d.best.neighbour, wire.neighbours.get(d.address)
        needy = wire.listening & ~direct.bit if direct is not None else wire.listening
        if hop.wire is wire:
            needy &= ~hop.linked_bits
        elif needy and hop.wire.segment(now) is wire.segment(now):
            listeners = [n for n in wire.neighbours.values() if n.bit & needy]
            needy = not all(hop.links(n, now) for n in listeners)
        return Route(d.address, d.best.seq, d.best.metric, d.best.mtu) if needy else None

    def _distrust(self, wire: Wire, dest: bytes) -> None:
        """Tell an interface again about `dest`, whatever it was told: a finite route, or its retraction."""
        wire.told[dest] = Route(dest, 0, 0, 0)
        self._dirty[dest] = None

    # Text and echoes

    def _repeat_message(self, msg_id: int, wait: float, now: float) -> None:
        message = self._messages.get(msg_id)
        if message is None:
            return
        if now >= message.deadline:
            self._give_up(msg_id)
            return
        self._send_again(message, now)
        when = min(now + wait, message.deadline)
        self._at(when, self._repeat_message, msg_id, min(2 * wait, MESSAGE_RETRY_MAX))

    def _send_again(self, message: Message, now: float) -> None:
        """Repeat a MESSAGE; to a v1.0 node, which answers none twice, under another id."""
        frame = message.frame
        if self._is_v1(frame.dest):
            frame = frame._replace(msg_id=self._frame(TYPE_MESSAGE, frame.dest, b"").msg_id)
            self._renamed[frame.msg_id] = message.frame.msg_id
        self._route(frame, now)

    def _is_v1(self, dest: bytes) -> bool:
        """Return whether a destination is a v1.0 node, near or far, as far as its route tells."""
        path = self.path_to(dest)
        if path is None:
            return False
        # Who hears it says Unix time // 64 for it, which is no number of ours: those begin at Unix time, or at 1.
        is_far = CLOCK_MIN // V1_SEQ_SECONDS <= path.seq <= SEQ_MAX // V1_SEQ_SECONDS
        return is_far or (path.neighbour.v1 and path.neighbour.address == dest)

    def _give_up(self, msg_id: int) -> None:
        message = self.end_message(msg_id)
        self.events.append(Undelivered(msg_id, message.frame.dest))

    def _acknowledge(self, frame: Frame, now: float) -> None:
        """A STATUS for this node, from whatever Ethernet address."""
        msg_id = parse_status(frame.payload)
        first = -1 if msg_id is None else self._renamed.get(msg_id, msg_id)
        message = self._messages.get(first)
        if message is None or message.frame.dest != frame.origin:
            self.drops["status"] += 1
            return
        self.end_message(first)
        self.events.append(Delivered(message.frame.msg_id, frame.origin, now - message.sent))

    def end_message(self, msg_id: int) -> Message:
        """Forget a MESSAGE and all its ids."""
        self._renamed = {later: first for later, first in self._renamed.items() if first != msg_id}
        return self._messages.pop(msg_id)

    def _receive_echo(self, wire: Wire, source: bytes, frame: Frame, h: Handshake, now: float) -> None:
        """A HANDSHAKE that was routed here: somebody's `echo`, or the answer to ours."""
        if h.flags & FLAG_REPLY:
            echo = self._echoes.get(h.token)
            if echo is None or (echo.dest != frame.origin and echo.ttl == TTL_ROUTED):
                raise FrameError("echo")
            del self._echoes[h.token]
            hops = max(h.ttl0 - frame.ttl, 0) + 1
            name, ports, rtt = h.name or "", h.ports or (), now - echo.sent
            d = self._routes.get(frame.origin)
            if d is not None:
                d.name, d.ports, d.rtt = name, ports, rtt
            self.events.append(Echoed(h.token, frame.origin, hops, rtt, name, ports))
        elif h.flags & FLAG_PROBE:
            self._answer_echo(wire, source, frame.origin, h.token, now)

    def _answer_echo(self, wire: Wire, source: bytes, origin: bytes, token: int, now: float) -> None:
        if self._answers.take(now=now):
            payload = self._echo_payload(FLAG_REPLY, token)
            extra = len(payload) - HANDSHAKE_FIXED_BYTES
            if self.path_to(origin) is None and not self._credit.afford(extra, now=now):
                payload = self._echo_payload(FLAG_REPLY, token, is_short=True)
            self._answer(wire, source, self._frame(TYPE_HANDSHAKE, origin, payload), now)

    def _token(self) -> int:
        return self._rng.getrandbits(32) or 1

    def _check_peer(self, dest: bytes) -> None:
        if not is_unicast(dest) or dest == self.address:
            raise ValueError("not the address of another node")


def hops_of(path: Path) -> int:
    """Return about how many hops a path has: lossy links count twice."""
    return max(path.metric // HOP_COST, 1)


def routes_room(wire: Wire) -> int:
    """Return the bytes for TLVs in one HANDSHAKE, before the routes."""
    return min(wire.mtu, ETHERNET_MTU) - MESH_HEADER_BYTES - HANDSHAKE_FIXED_BYTES - TLV_BYTES


# --- Node -----------------------------------------------------------------------------------------------------------


class LinkChanged(NamedTuple):
    """An interface went down (`reason` says why), or works again."""

    name: str
    up: bool
    reason: str


class ChangesOmitted(NamedTuple):
    """So many more nodes were found or lost, or had their route changed, than are told one by one."""

    number: int


NodeEvent = Union[
    NodeFound, NodeLost, RouteChanged, MessageReceived, DuplicateAddress, StrangeNode, LinkChanged, ChangesOmitted
]


_REFUSED = "send: refused size"


class _Port:
    """A link as its node uses it: down, blocked, or taking frames (then `retry_at` is infinite, `backlog` empty)."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.name, self.mac, self.mtu = link.name, link.mac, link.mtu  # as others know them
        self.up = True
        self.retry_at = INFINITY
        self.backlog: Deque[bytes] = deque()  # the oldest frame first
        self.blocked_since = INFINITY
        self.delay = BLOCKED_RETRY
        self.refusals = 0  # of the frame that blocks the link
        self.refused = INFINITY  # the length of a frame that did not get through while shorter ones did


class Node:
    """A node of the mesh on one or more links: owns the thread, the clock, the lock and the random source.

    The pure machines are driven under one lock: by the thread when frames or timers come, and by a caller's own
    thread when it asks for something, so that its frames leave without waiting for another thread to wake up.
    Callers that block wait on conditions of that lock, with absolute deadlines.
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
        interfaces = [Interface(link.name, link.mac, link.mtu, link.loopback, slot) for link, slot in zip(links, slots)]
        self._router = Router(address, interfaces, rng=rng, now=self.now(), seq=int(time.time()), name=name)
        self._endpoint = Endpoint(address, rng=rng, mtu=max(link.mtu for link in links))  # paths may have less
        self._ports = [_Port(link) for link in links]
        self._notices = [link.notices for link in links if link.notices >= 0]
        self._look_at = self.now() + HANDSHAKE_INTERVAL  # at the interfaces
        self._drops: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # anything but the bytes of one stream
        self._streams: Dict[Session, Stream] = {}
        self._listeners: Dict[int, Listener] = {}
        self._events: Deque[NodeEvent] = deque()
        self._changes = TokenBucket(CHANGES_PER_SECOND, CHANGES_AT_ONCE)
        self._omitted = 0
        self._strange: Dict[bytes, str] = {}  # v1.0 programs with which nothing is possible, and why
        self.shows_texts = False  # whether the application reads events, and texts must not get lost
        self._echoes: Dict[int, Echoed] = {}  # answers, by token
        self._receipts: Dict[int, Union[Delivered, Undelivered]] = {}  # by msg_id
        self._wake_pipes = _pipe(), _pipe()  # of the thread, and of a caller that drives in its place
        self._news_pipe: Optional[Tuple[int, int]] = None  # from the first `fileno` on
        self._has_news = False
        self._sleeps_until = [0.0, 0.0]  # when they will wake up by themselves; 0 while they are awake
        self._wake_at = 0.0
        self._guest = False  # whether a caller drives
        self._sleepers = 0  # callers who wait for another thread to drive
        self._visits = 0  # rounds driven by callers
        self._received_at = -INFINITY  # when frames last came
        self._batch = 0  # how many they were
        self._crowded_until = -INFINITY  # other programs want the processor
        self._parked = False  # whether the thread waits until they have left
        self._is_away = False  # whether it leaves the driving to them
        self._looked_at = -INFINITY  # when the last round looked for frames
        self._seat = threading.Condition(self._lock)
        self._failure = ""  # why nothing works any more
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="alexmesh", daemon=True)

    # Life

    def start(self) -> None:
        """Start the thread, if it has not been started."""
        if self._thread.ident is None:
            # One large block taken and given back makes glibc keep twice as much of what is freed later (mallopt(3),
            # M_MMAP_THRESHOLD). Else each batch gives its memory back and gets it page by page: half the speed on `lo`.
            bytes(KEPT_BYTES // 2)
            self._thread.start()

    def close(self, *, abort: bool = False) -> None:
        """Finish all streams and give them CLOSE_SECONDS to arrive, then say goodbye to the mesh.

        With `abort`, those that are not finished yet are reset: the peer shall not take half a file for a whole one.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = True
        try:
            with self._lock:
                if self._thread.ident is not None and not self._failure:
                    self._end_streams(abort)
                    self._router.leave(now=self.now())
                    self._step(self.now())
                    # A reset or farewell that waits for a full card would be lost with the backlog.
                    self._wait(self._changed, lambda: not any(port.backlog for port in self._ports), BLOCKED_PATIENCE)
                    if len(self.links) > 1 and self._router.neighbours():
                        self._wait(self._changed, lambda: False, LEAVE_SECONDS)
        finally:
            self._fail("the node is closed")
            if self._thread.ident is not None:
                self._thread.join()
            with self._lock:
                while self._guest:
                    self._seat.wait()
            for link in self.links:
                link.close()
            for end in (*self._wake_pipes[0], *self._wake_pipes[1], *(self._news_pipe or ())):
                os.close(end)

    def _end_streams(self, abort: bool) -> None:
        for session, stream in list(self._streams.items()):
            stream.abort() if abort and session.state in _UNFINISHED else stream.finish()
        self._wait(self._changed, lambda: not self._streams, CLOSE_SECONDS)
        for stream in list(self._streams.values()):
            stream.abort()

    def _fail(self, why: str) -> None:
        """Make every call that waits, now or later, raise OSError."""
        with self._lock:
            self._failure = self._failure or why
            self._changed.notify_all()
            for stream in self._streams.values():
                stream.has_news = True
                stream.changed.notify_all()
            self._tell_application()
            self._seat.notify_all()
            for _, pipe in self._wake_pipes:
                os.write(pipe, b"\0")

    def __enter__(self) -> "Node":
        self.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(abort=kind is not None)

    # Who drives

    def _run(self) -> None:
        """The background thread: drives the node whenever no caller that waits in it does."""
        seen = 0
        try:
            with self._lock:
                while not self._failure:
                    if not self._guest and (self._visits == seen or self._sleepers):
                        self._round(INFINITY)
                        seen = self._visits
                        continue
                    # A caller drives, or did a moment ago and will be back: woken for each of its pauses, this thread
                    # would be in its way. Where nothing has moved since the last look, look no more until it leaves.
                    self._parked = self._guest and self._visits == seen
                    seen = self._visits
                    self._is_away = True
                    self._seat.wait(None if self._parked else HANDOVER_SECONDS)
                    self._is_away = False
        finally:
            self._fail("the node's thread has died: this is a bug")

    def _drive(self, ready: Callable[[], object], deadline: float, files: Sequence[int] = ()) -> List[int]:
        """Be the node's thread until `ready()` or `deadline`: what comes need not wake another one up first.

        Or until some of `files` can be read, which are returned.
        """
        self._wake()
        self._guest = True
        try:
            while not self._failure:
                self._visits += 1
                found = self._round(deadline, files)
                if found or ready() or self.now() >= deadline:
                    return found
            return []
        except Exception:
            self._fail("a round of the node has failed: this is a bug")
            raise
        finally:
            self._guest = False
            if self._parked or self._sleepers or self._failure:
                self._parked = False
                self._seat.notify_all()

    def _wake(self) -> None:
        """Wake up who drives, if he sleeps."""
        if self._sleeps_until[self._guest]:
            self._sleeps_until[self._guest] = 0.0
            os.write(self._wake_pipes[self._guest][1], b"\0")

    def _round(self, until: float, files: Sequence[int] = ()) -> List[int]:
        """Do what is due, wait for frames, timers or `until`, and take up to RECEIVE_BATCH frames of each link.

        Or wait until some of `files` can be read, which are returned.
        Lock held, but not while it waits. What the frames call for is sent in the next round: so a caller who drives
        can answer first, and his answer carries the acknowledgement. Input comes before timers: after a pause of the
        process (SIGSTOP) what arrived meanwhile counts first.
        """
        seat, now = self._guest, self.now()
        self._step(now)
        watched = {port.link.fileno(): index for index, port in enumerate(self._ports) if port.up}
        # A deadline that has moved away is kept: an idle round now and then costs less than waking this
        # thread whenever a stream sets its timer.
        deadline = self._deadline()
        self._wake_at = min(self._wake_at, deadline) if self._wake_at > now else deadline
        wake_at = min(self._wake_at, until)
        self._sleeps_until[seat] = wake_at
        self._lock.release()
        try:
            ready = self._select([self._wake_pipes[seat][0], *watched, *self._notices, *files], now, wake_at)
        except OSError:  # a link was reopened by who drove until now
            ready = []
            for file in files:
                os.fstat(file)  # no, the caller has closed this one
        finally:
            self._lock.acquire()
            self._sleeps_until[seat] = 0.0
        if self._failure:
            return []
        now = self._looked_at = self.now()
        for fileno in ready:
            if fileno in watched:
                self._received_at = now
                self._receive(watched[fileno], now)
            elif fileno == self._wake_pipes[seat][0]:
                os.read(fileno, 4096)
            elif fileno in self._notices:
                self._look_at = now
        self._tend_links(now)
        self._take_events(now)
        return [file for file in files if file in ready]

    def _tend_links(self, now: float) -> None:
        """Look at the interfaces if it is time; try again what is blocked or down."""
        if self._omitted and self._changes.take(now=now):
            self._add_event(ChangesOmitted(self._omitted))
            self._omitted = 0
        is_time_to_look = self._look_at <= now
        if is_time_to_look:
            self._look_at = now + HANDSHAKE_INTERVAL
        for index, port in enumerate(self._ports):
            if is_time_to_look:
                port.refused = INFINITY
                self._look(index, now)
            if port.retry_at <= now:
                self._retry(index, now)

    def _select(self, watched: List[int], now: float, wake_at: float) -> List[int]:
        """Return which files can be read, at `wake_at` none.

        While frames come one after the other a caller who drives looks again and again for a moment before it sleeps:
        to wake a sleeping processor up takes longer than most answers. But not while data flows and another program,
        perhaps the relay that shall bring the next frames, waits for the processor.
        """
        recent = self._guest and now - self._received_at < SPIN_RECENT and now >= self._crowded_until
        if recent and _yield_processor is not None:
            spin_until = min(now + SPIN_SECONDS, wake_at)
            while now < spin_until:
                ready = wait_for_files(watched, 0)
                if ready:
                    return ready
                _yield_processor()
                began, now = now, self.now()
                if now - began > SPIN_CROWDED and self._batch >= CROWDED_BATCH:
                    self._crowded_until = now + CROWDED_SECONDS
                    break
        return wait_for_files(watched, None if wake_at == INFINITY else max(0.0, wake_at - now))

    def _receive(self, index: int, now: float) -> None:
        try:
            frames = self._ports[index].link.receive()
        except OSError as error:
            self._take_down(index, error.strerror or str(error), now)
            return
        self._batch = len(frames)
        for origin, run in self._router.receive_all(index, frames, now=now):
            self._endpoint.receive_all(origin, run, now=now, at=PAYLOAD_OFFSET)

    def _deadline(self) -> float:
        deadlines = [self._router.next_deadline(), self._endpoint.next_deadline()]
        return min([self._look_at, *(at for at in deadlines if at is not None), *(p.retry_at for p in self._ports)])

    def _step(self, now: float) -> None:
        """Hand out what has happened and send what is due (lock held)."""
        self._take_events(now)
        self._transmit(now)
        if self._take_events(now):
            self._transmit(now)
        sleeps_until = self._sleeps_until[self._guest]
        if sleeps_until and sleeps_until > self._deadline():
            self._wake()

    def _serve_caller(self, now: float) -> None:
        """Send what a caller's stream has to say, and now and then look for frames too, if the thread is away.

        It would come back to look while the caller goes on writing, and they would wait for each other at every frame.
        """
        if self._is_away and self._may_drive and now - self._looked_at > LOOK_SECONDS:
            self._drive(lambda: True, now)
        else:
            self._step(now)

    def _transmit(self, now: float) -> None:
        for peer, burst in self._endpoint.bursts_to_send(now=now):
            self._send_all(*self._router.send_streams(peer, burst, now=now), now)
        for interface, frame in self._router.frames_to_send(now=now):
            self._send(interface, frame, now)

    # Links that take no frames

    def _send_all(self, index: int, frames: List[bytes], now: float) -> None:
        """Send frames by one link: `_send` for many."""
        rest = iter(frames)
        if self._ports[index].retry_at == INFINITY:
            send, frame = self._ports[index].link.send, b""
            try:
                for frame in rest:
                    send(frame)
            except OSError as error:
                self._not_sent(index, frame, error, now)
        for frame in rest:
            self._send(index, frame, now)

    def _send(self, index: int, frame: bytes, now: float) -> None:
        port = self._ports[index]
        if port.retry_at < INFINITY:
            if port.up and len(port.backlog) < BACKLOG_FRAMES:
                port.backlog.append(frame)
            else:
                self._drops["backlog" if port.up else "link down"] += 1
            return
        try:
            port.link.send(frame)
        except OSError as error:
            self._not_sent(index, frame, error, now)

    def _not_sent(self, index: int, frame: bytes, error: OSError, now: float) -> None:
        port = self._ports[index]
        if error.errno in (errno.EAGAIN, errno.ENOBUFS):
            if len(frame) < port.refused:
                self._block(index, frame, now)
            else:
                self._drops[_REFUSED] += 1
            return
        if error.errno in (errno.ENETDOWN, errno.ENXIO, errno.ENODEV):
            self._take_down(index, os.strerror(error.errno), now)
            return
        self._drops[f"send: {error.strerror}"] += 1
        self._look(index, now)
        if error.errno == errno.EMSGSIZE and len(frame) <= port.mtu + ETHERNET_HEADER_BYTES:
            self._refuse_size(index, frame, now)

    def _refuse_size(self, index: int, frame: bytes, now: float) -> None:
        """A frame that the card refuses for its size, or for what the other end takes, did not get through: it is lost.

        What gets through to each neighbour beyond the size that every Ethernet carries is found out anew.
        """
        port = self._ports[index]
        self._drops[_REFUSED] += 1
        if len(frame) < port.refused:
            port.refused = len(frame)
            self._router.interface_changed(index, mtu=port.link.mtu, now=now)
            self._paths_changed(now)

    def _block(self, index: int, frame: bytes, now: float) -> None:
        """Try the frame again a little later. A link blocked for long has no carrier, or its frames are stale.

        A veth refuses with the same error what is too large for its other end: then a shorter one gets through.
        """
        port = self._ports[index]
        port.refusals += 1
        shortest = min(port.backlog, key=len, default=frame)
        if port.refusals >= BLOCKED_TRIES and len(shortest) < len(frame):
            with contextlib.suppress(OSError):
                port.link.send(shortest)
                port.backlog.remove(shortest)
                port.refusals = 0
                self._refuse_size(index, frame, now)
                return
        port.backlog.appendleft(frame)
        port.blocked_since = min(port.blocked_since, now)
        port.retry_at = now + port.delay
        port.delay = min(2 * port.delay, BLOCKED_RETRY_MAX)
        if now - port.blocked_since > BLOCKED_PATIENCE:
            self._drops["blocked"] += len(port.backlog) - 1
            port.backlog = deque([frame])  # to go on trying with
            self._look(index, now)

    def _take_down(self, index: int, reason: str, now: float) -> None:
        port = self._ports[index]
        if port.up:
            port.up = False
            port.backlog.clear()
            self._router.interface_changed(index, up=False, now=now)
            self._add_event(LinkChanged(port.name, False, reason))
        port.retry_at = now + LINK_RETRY

    def _retry(self, index: int, now: float) -> None:
        """Send what waits for a blocked link; look whether one that was down is back."""
        port = self._ports[index]
        if not port.up:
            self._look(index, now)
            return
        port.retry_at = INFINITY
        waiting = len(port.backlog)
        while port.backlog and port.retry_at == INFINITY:
            self._send(index, port.backlog.popleft(), now)
        if len(port.backlog) < waiting:
            port.blocked_since, port.delay, port.refusals = INFINITY, BLOCKED_RETRY, 0

    def _look(self, index: int, now: float) -> None:
        """Look at an interface: whether it can be used, and what of it has changed."""
        port = self._ports[index]
        try:
            problem = "" if port.link.refresh() else "no carrier"
            if not problem and not port.up:
                port.link.reopen()
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            self._take_down(index, problem, now)
            return
        self._tell_changes(index, now)
        if not port.up:
            port.up, port.retry_at = True, INFINITY
            self._router.interface_changed(index, up=True, now=now)
            self._add_event(LinkChanged(port.name, True, "works again"))
            self._paths_changed(now)

    def _tell_changes(self, index: int, now: float) -> None:
        """Tell the router and the application what of an interface is not as it was."""
        port = self._ports[index]
        name, mac, mtu = port.link.name, port.link.mac, port.link.mtu
        if name != port.name:
            self._add_event(LinkChanged(name, True, f"{printable(port.name)} is called so now"))
        if mac != port.mac:
            self._router.interface_changed(index, mac=mac, slot=port.link.claim(), now=now)
            self._add_event(LinkChanged(name, True, f"new Ethernet address {format_address(mac)}"))
        if mtu != port.mtu:
            port.refused = INFINITY
            self._router.interface_changed(index, mtu=mtu, now=now)
            self._paths_changed(now)
        port.name, port.mac, port.mtu = name, mac, mtu

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
        self._tell_application()
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
        self._changed.notify_all()

    def _on_stream_event(self, event: Event, now: float) -> None:
        session = event.session
        if isinstance(event, Accepted):
            listener = self._listeners.get(session.port)
            if listener is None or not listener.has_room_for(session.peer):
                session.abort()
                return
            self._tell_mtu(session.peer, now)
            self._streams[session] = Stream(self, session)
            listener.arrived.append(self._streams[session])
        elif isinstance(event, Stalled):
            self._router.hint(session.peer, now=now)
        if session in self._streams:
            self._streams[session].on_event(event)
        if isinstance(event, Closed):
            self._forget(session)
        if isinstance(event, (Accepted, Closed)):
            self._changed.notify_all()

    def _forget(self, session: Session) -> None:
        stream = self._streams.pop(session, None)
        listener = self._listeners.get(session.port)
        unread = session.readable > 0  # the peer was told that we hold it
        if stream is not None and listener is not None and stream in listener.arrived and not unread:
            listener.arrived.remove(stream)

    def _tell_mtu(self, peer: bytes, now: float) -> None:
        mtu = self._router.mtu_to(peer)
        if mtu < max(link.mtu for link in self.links):
            self._endpoint.path_changed(peer, now=now, mtu=mtu)

    def _add_event(self, event: NodeEvent) -> None:
        self._keep(event)
        self._changed.notify_all()
        self._tell_application()

    def _keep(self, event: NodeEvent) -> None:
        """Keep an event for the application, of too many the newest; but texts that it is to read are acknowledged."""
        if isinstance(event, (NodeFound, NodeLost, RouteChanged)) and not self._changes.take(now=self.now()):
            self._omitted += 1
            return
        self._events.append(event)
        if len(self._events) > EVENTS_MAX:
            kept = (MessageReceived,) if self.shows_texts else ()
            spare = next((index for index, old in enumerate(self._events) if not isinstance(old, kept)), None)
            if spare is not None:
                del self._events[spare]
        self._count_texts()

    def _count_texts(self) -> None:
        texts = sum(isinstance(event, MessageReceived) for event in self._events) if self.shows_texts else 0
        self._router.takes_texts = texts < EVENTS_MAX

    def _tell_application(self) -> None:
        if not self._has_news:
            self._has_news = True
            if self._news_pipe is not None:
                os.write(self._news_pipe[1], b"\0")

    def _wait(self, condition: threading.Condition, ready: Callable[[], object], timeout: Optional[float]) -> bool:
        """Wait (lock held) until `ready()`; False when `timeout` seconds have passed, OSError if the node failed."""
        deadline = INFINITY if timeout is None else self.now() + timeout
        while not ready():
            self._check()
            left = deadline - self.now()
            if left <= 0:
                return False
            if self._may_drive:
                self._drive(ready, deadline)
                continue
            self._sleepers += 1
            try:
                condition.wait(None if left == INFINITY else left)
            finally:
                self._sleepers -= 1
        return True

    @property
    def _may_drive(self) -> bool:
        """Whether a caller who waits need not leave that to another thread."""
        return not self._guest and not self._sleepers and self._thread.ident is not None

    def _check(self) -> None:
        if self._failure:
            raise OSError(errno.ESHUTDOWN, self._failure)

    # What applications call, from any thread

    @property
    def mtu(self) -> int:
        """The largest AlexMesh frame in bytes, header included, that fits every link."""
        return min(link.mtu for link in self.links)

    def now(self) -> float:
        """Return the node's clock: monotonic seconds."""
        return time.monotonic()

    def listen(self, port: int, *, only: bytes = b"") -> "Listener":
        """Take streams that others, or `only` one, open to `port`; raise OSError EADDRINUSE if that is done already."""
        with self._lock:
            self._check()
            if port in self._listeners:
                raise OSError(errno.EADDRINUSE, f"this node listens on port {port} already")
            self._endpoint.listen(port)
            self._listeners[port] = Listener(self, port, only)
            self._announce_ports()
            return self._listeners[port]

    def unlisten(self, port: int) -> None:
        """Take no more streams to `port`. `Listener.close` is the better way."""
        self._endpoint.unlisten(port)
        del self._listeners[port]
        self._announce_ports()
        self._changed.notify_all()

    def _announce_ports(self) -> None:
        self._router.set_ports(tuple(sorted(self._listeners)))
        self._step(self.now())

    def connect(self, peer: bytes, port: int, *, timeout: Optional[float] = None) -> "Stream":
        """Open a stream to `port` of the node `peer`, known or not, and wait until it is open.

        Raises ValueError for an address that cannot be a peer's, ConnectionRefusedError, and TimeoutError when nobody
        answers within `timeout` seconds (SYN_TIMEOUT; NO_SUCH_NODE_SECONDS if nobody knows the node).
        """
        timeout = SYN_TIMEOUT if timeout is None else timeout
        with self._lock:
            stream = self.open(peer, port)
            try:
                first = min(timeout, NO_SUCH_NODE_SECONDS)
                answered = self._wait(stream.changed, lambda: stream.connected or stream.ended, first)
                if not answered and self.knows(peer) and peer not in self._strange:
                    answered = self._wait(stream.changed, lambda: stream.connected or stream.ended, timeout - first)
                if not answered:
                    raise self._silence(peer, f"no answer from {format_address(peer)} within {timeout:g} s")
                self._strange.pop(peer, None)  # it speaks ours now, or a forger said otherwise
                # The SYN may have been flooded: a window of data sent so would be lost but for a few frames.
                self._wait(self._changed, lambda: self._router.path_to(peer) or stream.ended, SETTLE_SECONDS)
                if stream.error is not None:
                    raise stream.error
            except BaseException:
                stream.abort()
                raise
            return stream

    def open(self, peer: bytes, port: int) -> "Stream":
        """Begin to open a stream, as `connect` without waiting: `connected` or `error` tells what became of it."""
        with self._lock:
            self._check()
            try:
                session = self._endpoint.connect(peer, port, now=self.now())
            except RuntimeError as error:
                raise OSError(errno.EMFILE, str(error)) from None
            self._tell_mtu(peer, self.now())
            stream = self._streams[session] = Stream(self, session)
            self._step(self.now())
            return stream

    def send_message(self, dest: bytes, text: str, *, timeout: float) -> float:
        """Send a datagram; return the round trip in seconds once the other node has acknowledged it.

        Raises TimeoutError if that does not happen, ValueError for a text that does not fit one frame.
        """
        if dest == self.address or not is_unicast(dest):
            raise ValueError(f"{format_address(dest)} is not the address of another node")
        with self._lock:
            data = text_payload(text, self._router.mtu_to(dest) - MESH_HEADER_BYTES)
            size = MESH_HEADER_BYTES + len(data)
            number = self._router.send_message(dest, data, now=self.now(), timeout=timeout)
            self._step(self.now())
            self._wait(self._changed, lambda: number in self._receipts or self._router.mtu_to(dest) < size, None)
            if number not in self._receipts:  # the path is known by now, and narrower than our own cards
                self._router.end_message(number)
                text_payload(text, self._router.mtu_to(dest) - MESH_HEADER_BYTES)
            receipt = self._receipts.pop(number)
        if isinstance(receipt, Undelivered):
            raise self._silence(dest, f"no acknowledgement from {format_address(dest)} within {timeout:g} s")
        return receipt.rtt

    def broadcast(self, text: str) -> None:
        """Send a text to every node, unacknowledged; raise ValueError if it does not fit one frame."""
        with self._lock:
            self._check()
            self._router.broadcast(text_payload(text, self.mtu - MESH_HEADER_BYTES), now=self.now())
            self._step(self.now())

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
        with self._lock:
            self._wait(self._changed, lambda: self._router.path_to(dest), min(SETTLE_SECONDS, wait))
        asked: Dict[int, int] = {}  # token -> number
        send_at = self.now()
        for number in range(1, count + 1) if count else itertools.count(1):
            with self._lock:
                asked[self._router.echo(dest, now=self.now())] = number
                self._step(self.now())
            if len(asked) > MESSAGES_MAX:
                del asked[next(iter(asked))]
            yield number, None
            is_last = number == count
            send_at += wait if is_last else interval
            yield from self._answers(asked, send_at, is_last)

    def trace(self, dest: bytes, *, wait: float) -> Iterator[Tuple[int, Optional[Echoed]]]:
        """Ask each relay on the path to a node, then the node itself; each has TRACE_TRIES times `wait` seconds.

        Yield (number from 1 on, answer), with None for one that does not answer. Raises TimeoutError without a route.
        """
        with self._lock:
            if not self._wait(self._changed, lambda: self._router.path_to(dest), max(SETTLE_SECONDS, wait)):
                raise self._silence(dest, f"there is no route to {format_address(dest)}")
        for number in range(1, TTL_ROUTED + 1):
            asked: Dict[int, int] = {}
            answer = None
            for _ in range(TRACE_TRIES):
                with self._lock:
                    asked[self._router.echo(dest, now=self.now(), ttl=number - 1)] = number
                    self._step(self.now())
                answer = next((come for _, come in self._answers(asked, self.now() + wait, True)), None)
                if answer is not None:
                    break
            yield number, answer
            if answer is not None and answer.address == dest:
                return

    def _answers(self, asked: Dict[int, int], until: float, is_last: bool) -> Iterator[Tuple[int, Optional[Echoed]]]:
        """Yield the answers that come until then, or all if no more will be asked."""
        while asked or not is_last:
            with self._lock:
                if not self._wait(self._changed, lambda: asked.keys() & self._echoes.keys(), until - self.now()):
                    return
                come = [(asked.pop(token), self._echoes.pop(token)) for token in asked.keys() & self._echoes.keys()]
            yield from come

    def discover(self, wait: float, *, enough: Callable[[List[NodeInfo]], object] = lambda _: False) -> List[NodeInfo]:
        """Announce this node, ask every node that shows up for `wait` seconds, and return those that answered.

        Return earlier, but not before SETTLE_SECONDS, once they are `enough`.
        """
        with self._lock:
            started = self.now()
            self._echoes.clear()
            self._router.announce(now=started)
            found: List[NodeInfo] = []
            while self.now() < started + wait and not (self.now() >= started + SETTLE_SECONDS and enough(found)):
                answered = {node.address for node in found}
                for node in self._router.nodes():
                    if node.address not in answered:
                        self._router.echo(node.address, now=self.now())
                self._step(self.now())
                self._wait(self._changed, lambda: False, min(ECHO_RETRY, started + wait - self.now()))
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
        with self._lock:
            self._check()
            self._echoes.clear()
            for dest in dests:
                self._router.echo(dest, now=self.now())
            self._step(self.now())

    def answers(self) -> List[Echoed]:
        """Return the answers that have come since `ask`."""
        with self._lock:
            return list(self._echoes.values())

    def next_event(self, *, timeout: Optional[float] = None) -> Optional[NodeEvent]:
        """Return the next thing that happened in the mesh; None when `timeout` seconds (0: do not wait) have passed."""
        with self._lock:
            event = self._events.popleft() if self._wait(self._changed, lambda: self._events, timeout) else None
            self._count_texts()
            return event

    def nodes(self) -> List[NodeInfo]:
        """Return the nodes that are known."""
        with self._lock:
            return list(self._router.nodes())

    def knows(self, address: bytes) -> bool:
        """Tell whether anybody spoke of a node in the last minutes."""
        with self._lock:
            return self._router.knows(address)

    def _silence(self, peer: bytes, what: str) -> TimeoutError:
        """Return what to raise when a peer did not answer."""
        if peer in self._strange:
            return TimeoutError(describe_event(StrangeNode(peer, self._strange[peer])))
        return TimeoutError(what if self.knows(peer) else no_such_node(peer))

    def tell_routes(self) -> None:
        """Let `next_event` tell of every change of a route too, and first of the routes there are."""
        with self._lock:
            self._router.tells_routes = True
            for known in self._router.nodes():
                self._add_event(RouteChanged(known.address, known.interface, known.next_hop, known.hops, known.mtu))

    def neighbours(self) -> Sequence[Any]:
        """Return the nodes that are heard directly."""
        with self._lock:
            return list(self._router.neighbours())

    @property
    def drops(self) -> Dict[str, int]:
        """How many frames and segments were dropped, by reason."""
        with self._lock:
            return dict(self._drops + self._router.drops + self._endpoint.drops)

    def wait(self, *files: int, timeout: Optional[float] = None) -> List[int]:
        """Wait until something has happened for the application, as with `fileno`, or one of `files` can be read.

        Return those of `files` that can. Then look at everything else too, without waiting: at those streams that
        have news.
        """
        with self._lock:
            if self._may_drive:
                deadline = self.now() if self._has_news else INFINITY if timeout is None else self.now() + timeout
                found = self._drive(lambda: self._has_news, deadline, files)
                self.clear_wakeup()
                return found
        ready = wait_for_files([self.fileno(), *files], timeout)
        self.clear_wakeup()
        return [file for file in ready if file in files]

    def fileno(self) -> int:
        """Return what `select` finds readable once something has happened for the application.

        That is: a stream has bytes, room, an end or a new `delivered`; a listener has a stream; `next_event` has an
        event; the node has failed. Then call `clear_wakeup` and look at all of them without waiting.
        """
        with self._lock:
            if self._news_pipe is None:
                self._news_pipe = _pipe()
                self._has_news = False
                self._tell_application()
            return self._news_pipe[0]

    def clear_wakeup(self) -> None:
        """Make `fileno` quiet until something happens again."""
        with self._lock:
            if self._has_news:
                self._has_news = False
                if self._news_pipe is not None:
                    os.read(self._news_pipe[0], 1)


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
    if any(event & select.POLLNVAL for _, event in ready):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return [file for file, _ in ready]


def _pipe() -> Tuple[int, int]:
    """Return the reading and the writing end of a pipe, neither of which blocks."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends


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
    arrived before has been read. A `with` block that is left by an exception resets the stream: the peer shall not
    take half a file for a whole one.
    """

    def __init__(self, node: Node, session: Session) -> None:
        super().__init__()
        self.node = node
        self.peer = session.peer
        self.port = session.port
        self.changed = threading.Condition(node._lock)
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
        session = self._session
        with self._open_lock():
            if self._blocking and size:
                self._wait(lambda: session.readable or session.receiver.finished)
            if not session.readable:
                return self._read_nothing(size)
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
        with self._open_lock():
            while True:
                if self.error is not None:
                    raise self.error
                taken += self._session.send(view[taken:])
                self._step()
                if taken == len(view):
                    return taken
                if not self._blocking:
                    self.has_news = False
                    return taken or None
                self._wait(functools.partial(self._has_room, min(len(view) - taken, WRITE_STEP)))

    def _has_room(self, count: int) -> bool:
        return self._session.writable >= count

    def finish(self) -> None:
        """Say that nothing more will be written; reading goes on. Does nothing the second time."""
        with self.node._lock:
            self._session.finish()
            self._step()

    def drain(self, timeout: Optional[float] = None) -> None:
        """Wait until the peer holds every byte written, and knows of the end if there is one.

        Raises TimeoutError after `timeout` seconds, or what has ended the stream.
        """
        with self.node._lock:
            if not self._wait(lambda: self.drained, timeout):
                raise TimeoutError(f"{self.written - self.delivered} bytes not delivered within {timeout:g} s")
            if self.error is not None:
                raise self.error

    def abort(self) -> None:
        """End the stream in both directions at once; the peer sees a reset."""
        with self.node._lock:
            self._session.abort()
            self._step()

    def close(self) -> None:
        """Finish and let go, once the peer has finished too.

        After CLOSE_SECONDS, or if the peer sends what nobody will read any more, the stream is reset. It does not wait
        after `setblocking(False)`: the rest happens in the background.
        """
        with self.node._lock:
            if self.closed:
                return
            try:
                self.finish()
                if self._blocking and not self._wait(lambda: self._deserted, CLOSE_SECONDS):
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
    def ended(self) -> bool:
        """Whether nothing more will arrive or be delivered."""
        return self._session.closed is not None or bool(self.node._failure)

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
            return kind(f"{format_address(self.peer)} port {self.port}: {reason}") if kind else None
        return OSError(errno.ESHUTDOWN, self.node._failure) if self.node._failure else None

    @property
    def _deserted(self) -> bool:
        """Whether the peer holds everything and has sent something that nobody will read."""
        return self.drained and self._session.readable > 0 and not self.ended

    def on_event(self, event: Optional[Event]) -> None:
        """Look at the session again; for the node, which holds its lock."""
        if isinstance(event, Connected):
            self.connected = True
        self.has_news = True
        if self.closed and self._deserted:
            self._session.abort()
        if self.node._sleepers:
            self.changed.notify_all()

    def _open_lock(self) -> threading.RLock:
        if self.closed:
            raise ValueError("the stream is closed")
        return self.node._lock

    def _wait(self, ready: Callable[[], object], timeout: Optional[float] = None) -> bool:
        return self.node._wait(self.changed, lambda: ready() or self.ended, timeout)

    def _step(self) -> None:
        if not self.node._failure:
            self.node._serve_caller(self.node.now())


class Listener:
    """The streams that others open to one port of a node."""

    def __init__(self, node: Node, port: int, only: bytes = b"") -> None:
        self.node = node
        self.port = port
        self.only = only  # everybody, or one node
        self.closed = False
        self.arrived: Deque[Stream] = deque()

    def accept(self, *, timeout: Optional[float] = None) -> Optional[Stream]:
        """Return the next stream; None when `timeout` seconds (0: do not wait) have passed, or after `close`."""
        with self.node._lock:
            self.node._wait(self.node._changed, lambda: self.arrived or self.closed, timeout)
            return self.arrived.popleft() if self.arrived else None

    def has_room_for(self, peer: bytes) -> bool:
        """Tell whether another stream of that node may wait; those that it has reset since with bytes unread count."""
        if self.only and peer != self.only:
            return False
        waiting = sum(stream.peer == peer for stream in self.arrived)
        return waiting < STREAMS_PER_PEER and len(self.arrived) < STREAMS_MAX

    def close(self) -> None:
        """Take no more streams, and reset those that nobody has taken."""
        with self.node._lock:
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
    """Become the user who called sudo, for good; return who that is, empty if nobody called it: root stays root.

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


def argument_parser(prog: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return a parser of what all scripts share: the interface, names, and how the script speaks."""
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
    volume = shared.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but errors")
    volume.add_argument("-v", "--verbose", action="store_true", help="on stderr also what happens in the mesh")
    return parser


def login_name() -> str:
    """Return who is sitting here, also behind sudo."""
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user id without an account
        return ""


def count_argument(text: str) -> int:
    """Return a number that is not negative; raise ValueError."""
    if int(text) < 0:
        raise ValueError(text)
    return int(text)


def seconds_argument(text: str) -> float:
    """Return a positive number; raise ValueError."""
    if not 0 < float(text) < 1e6:
        raise ValueError(text)
    return float(text)


def has_color(arguments: argparse.Namespace, file: TextIO) -> bool:
    """Tell whether what goes to this file may be coloured (https://no-color.org)."""
    if arguments.color != "auto":
        return bool(arguments.color == "always")
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def emphasis(arguments: argparse.Namespace, file: TextIO) -> Callable[[str], str]:
    """Return what makes a text stand out in this file: bold, or as it is."""
    return "\x1b[1m{}\x1b[m".format if has_color(arguments, file) else str


def open_node(arguments: argparse.Namespace, *, client: str = "", tells: bool = False) -> Node:
    """Return a running node on the interfaces asked for, and say on stderr which it is; raise SetupError.

    `client` is the script that reaches it, if it is a server. With `tells`, --verbose tells what happens in the mesh,
    for scripts that do not take the node's events themselves.
    """
    links = _open_links(arguments.interface.split(","))
    node = Node(links, name=arguments.name[:NAME_CHARACTERS])
    try:
        # Nothing has been read from the network until then, and no file opened.
        user = "" if arguments.keep_root else drop_privileges()
        node.names = read_names(arguments.names)
        if arguments.pcap:
            capture = Capture(arguments.pcap)
            for link in links:
                link.record(capture)
    except SetupError:
        node.close()
        raise
    node.shows_texts = not tells
    node.start()
    if not arguments.quiet:
        print(_identity(node, client), file=sys.stderr, flush=True)
    if arguments.verbose:
        _tell_setup(node, user)
        if tells:
            threading.Thread(target=_tell_events, args=(node,), daemon=True).start()
    return node


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


def _identity(node: Node, client: str) -> str:
    line = f"alexmesh: node {format_address(node.address)} on {', '.join(printable(link.name) for link in node.links)}"
    if not client:
        return line
    return line + f"; reach it with: {_command(client, node.links[:1])} {format_address(node.address)}"


def _command(script: str, links: Sequence[Link]) -> str:
    """Return how to start one of the scripts on these interfaces."""
    sudo = "sudo " if "SUDO_UID" in os.environ else ""
    names = quoted(",".join(link.name for link in links))
    return f"{sudo}python3 {os.path.join(os.path.dirname(sys.argv[0]), script)} {names}"


def _tell_setup(node: Node, user: str) -> None:
    lines = [f"{printable(link.name)} is {format_address(link.mac)}, MTU {link.mtu}" for link in node.links]
    lines.append(f"root is given up for {user}" if user else f"runs as {login_name()} (uid {os.geteuid()})")
    lines.append(f"names of other nodes known: {len(node.names)}")
    print("\n".join("alexmesh: " + line for line in lines), file=sys.stderr, flush=True)


def _tell_events(node: Node) -> None:
    """Tell of every change until the node is closed."""
    with contextlib.suppress(OSError):
        node.tell_routes()
        while True:
            event = node.next_event()
            if event is not None and not isinstance(event, MessageReceived):
                print(describe_event(event, node.names), file=sys.stderr)


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
    """Return the address that the user gave, or that has the name he gave: in his files, else in the mesh.

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

    found = node.discover(FIND_SECONDS, enough=called)
    addresses = called(found)
    if len(addresses) == 1:
        return addresses[0]
    if not found:
        raise TimeoutError(f"nobody answers who could be called {text}: start node.py there, or give an address")
    labels = label_names({one.address: one.name for one in found}, node.names)
    shown = sorted(
        f"{label} ({format_address(address)})"
        for address, label in labels.items()
        if address in addresses or (label and not addresses)
    )
    shown[CANDIDATES_MAX:] = ["..."] * (len(shown) > CANDIDATES_MAX)
    problem = f"several nodes are called {text}, choose one:" if addresses else f"nobody is called {text}, but:"
    raise SetupError(f"{problem} {', '.join(shown) or _command('send_handshake.py', node.links) + ' lists addresses'}")


def open_stream(node: Node, peer: bytes, port: int, server: str) -> Stream:
    """Connect as `Node.connect` does; what is raised names the next command. `server` is the script that listens."""
    try:
        return node.connect(peer, port)
    except ConnectionRefusedError as error:
        hint = "try again later" if isinstance(error, BusyError) else f"start {server} there"
        raise type(error)(f"{format_address(peer)} says: {error}; {hint}") from None
    except TimeoutError as error:
        raise TimeoutError(f"{error}; {who_is_there(node)}") from None


def no_such_node(peer: bytes) -> str:
    """Return what is to be said of a node that nobody has spoken of."""
    return f"no such node {format_address(peer)}: nobody in the mesh knows it"


def who_is_there(node: Node) -> str:
    """Return the next command for one who found nobody."""
    return f"who is there: {_command('send_handshake.py', node.links)}"


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
    if isinstance(event, DuplicateAddress):
        return f"another node has this node's address; its Ethernet address is {format_address(event.mac)}"
    return ""


def format_hop(address: bytes) -> str:
    """Return the address of a next hop, or "-" where nobody knows it."""
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
            signal.signal(number, _on_signal)
    message, status = "", 1
    try:
        wanted = main() or 0
        sys.stdout.flush()
        status = wanted
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        pass  # who reads our output has left
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


def _on_signal(number: int, frame: Optional[FrameType]) -> None:
    """Interrupt the main thread, but not in the middle of a machine or of a hand-over: their state would be torn.

    Nor while this function puts it off, for that stands in the middle of one.
    """
    inner = frame
    hands_over = frame is not None and frame.f_code is Node._round.__code__  # while it sleeps that is not the innermost
    while inner is not None:
        is_put_off = hands_over or inner.f_code is _on_signal.__code__
        if is_put_off or isinstance(inner.f_locals.get("self"), (Router, Endpoint, Session)):
            signal.signal(signal.SIGALRM, lambda _, interrupted: _on_signal(number, interrupted))
            signal.setitimer(signal.ITIMER_REAL, SIGNAL_RETRY)
            return
        inner = inner.f_back
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


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
}


class _Report:
    """What node.py prints: changes as they come, tables when a signal asks for them (in another thread)."""

    def __init__(self, node: Node, arguments: argparse.Namespace) -> None:
        self._node = node
        self._as_json = arguments.json
        self._is_quiet = arguments.quiet
        self._emphasis = emphasis(arguments, sys.stdout)
        self._lock = threading.Lock()

    def tell(self, event: NodeEvent) -> None:
        """Print one change."""
        if self._as_json:
            self._print(sys.stdout, [json_line(self._node, _KINDS[type(event)], event._asdict())])
        elif isinstance(event, MessageReceived):
            self._print(sys.stdout, [f"{self._emphasis(format_address(event.origin))}: {printable(event.data)}"])
        elif not self._is_quiet:
            self._print(sys.stderr, [describe_event(event, self._node.names)])

    def wait_for(self, signals: Set[signal.Signals]) -> None:
        """Print the tables at every one of these signals, which are blocked."""
        while True:
            signal.sigwait(signals)
            self._print(*((sys.stdout, self._json_tables()) if self._as_json else (sys.stderr, self._tables())))

    def _print(self, file: TextIO, lines: List[str]) -> None:
        with self._lock:
            print("\n".join(lines), file=file, flush=True)

    def _tables(self) -> List[str]:
        names = [printable(link.name) for link in self._node.links]
        lines = [
            f"neighbour {format_address(n.address)} on {names[n.wire.index]}: {n.state.value}"
            + f", {1000 * n.srtt:.2f} ms" * (n.srtt > 0)
            for n in self._node.neighbours()
        ]
        lines += [
            f"route to {_with_name(n.address, self._node.names.get(n.address) or n.name)}:"
            f" {n.hops} hop{'s' * (n.hops != 1)} by {format_hop(n.next_hop)} on {names[n.interface]}, MTU {n.mtu},"
            f" age {self._node.now() - n.last_heard:.1f} s, ports {' '.join(map(str, n.ports)) or '-'}"
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
                    "interface": n.wire.index,
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
--json: changes, messages and those tables on stdout. --color: the sender of a message in bold.
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
    signals = {number for number in signal.Signals if number.name in ("SIGUSR1", "SIGINFO")}
    for number in signals:
        signal.signal(number, lambda *_: None)  # else the BSDs drop SIGINFO even where somebody waits for it
    # Blocked before the node's thread exists, in every thread; a thread of its own waits for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with open_node(arguments) as node:
        report = _Report(node, arguments)
        threading.Thread(target=report.wait_for, args=(signals,), daemon=True).start()
        if arguments.json or arguments.verbose:
            node.tell_routes()
        while True:
            event = node.next_event()
            if event is not None:
                report.tell(event)


if __name__ == "__main__":
    sys.exit(run(main))
