#!/usr/bin/env python3
"""A Darwin that is not there: lets a Python program on Linux believe that it runs on macOS and talk to bpf(4).

    sudo python3 fakebsd.py SCRIPT ARGS...                    one program
    sudo env PYTHONPATH=DIR python3 SCRIPT ARGS...            DIR holds this file as `sitecustomize.py` (a link will do)

Every `/dev/bpfN` is a packet socket of Linux; what XNU's kernel does with the frames (two buffers, records, what is
dropped, errno) is done here, after bsd/net/bpf.c of xnu-11417.101.15. scapy takes its own Darwin branch and its own
BPF modules; its sysctl(3) and its `ifconfig` are answered here too. Frames are real ones, on real interfaces.

Environment:
    FAKEBSD_LOG=FILE     append what is odd: unknown requests, files of Linux that were looked for, frames dropped
    FAKEBSD_DIR=DIR      where a "Mac" (a network namespace) keeps its locks and its /var/run (/tmp)
    FAKEBSD_BLEN_CAP=N   what BIOCSBLEN grants at most (512 KiB, BPF_MAXBUFSIZE of old systems)
    FAKEBSD_BPFS=N       how many /dev/bpf there can be (256)
    FAKEBSD_SCHED_YIELD=0   hide os.sched_yield
    FAKEBSD_ENOBUFS=P    one write in P loses its frame and says ENOBUFS, as a full interface queue does
    FAKEBSD_CHMODBPF=1   /dev/bpf* may be opened by everybody (Wireshark's ChmodBPF)
    FAKEBSD_ONLY=a.py,b.py  as sitecustomize: only for these scripts (so that tests of theirs can run on Linux)

What is not emulated: the speed of XNU, its timers, the real cards and Wi-Fi, the numbers of errno and of signals
(names are Darwin's), kqueue, termios. SIGINFO is Linux's SIGPWR: send that for Ctrl-T. `lo` is called `lo0`, has
DLT_NULL, and its frames are still Ethernet's. Python 3.6 or later, root. No part of the program that is tested.
"""

import builtins
import contextlib
import ctypes
import ctypes.util
import enum
import errno
import fcntl
import functools
import io
import os
import platform
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

# --- Linux, as it was before -----------------------------------------------------------------------------------------

_open, _read, _write, _close, _stat, _mkdir = os.open, os.read, os.write, os.close, os.stat, os.mkdir
_ioctl, _fcntl, _flock = fcntl.ioctl, fcntl.fcntl, fcntl.flock
_select = select.select
_builtin_open = builtins.open
_if_nameindex, _if_nametoindex = socket.if_nameindex, socket.if_nametoindex
_AF_PACKET, _SOL_PACKET, _ETH_P_ALL = 17, 263, 3
_PACKET_IGNORE_OUTGOING, _SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 23, 26, 33, 32
_PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC = 1, 1
_LINUX_GIFFLAGS, _LINUX_GIFADDR, _LINUX_GIFMTU, _LINUX_GIFHWADDR, _LINUX_GSTAMP = 0x8913, 0x8915, 0x8921, 0x8927, 0x8906

_LOG = os.environ.get("FAKEBSD_LOG", "")


def note(text: str) -> None:
    """Tell what a Mac would not have seen, or would have done to the frames."""
    if _LOG:
        line = f"{time.time():.6f} {os.getpid()} {os.path.basename(sys.argv[0] or '-')}: {text}\n"
        try:
            file = _open(_LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError:
            return
        _write(file, line.encode())
        _close(file)


def _fault(number: int, what: str = "") -> OSError:
    return OSError(number, os.strerror(number), what) if what else OSError(number, os.strerror(number))


# --- Interfaces ------------------------------------------------------------------------------------------------------

_IFF_UP, _IFF_BROADCAST, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x2, 0x8, 0x40
_DARWIN_SIMPLEX, _DARWIN_MULTICAST = 0x800, 0x8000
_DARWIN_AF_LINK = 18


def _to_linux(name: str) -> str:
    return "lo" if name == "lo0" else name


def _to_darwin(name: str) -> str:
    return "lo0" if name == "lo" else name


def _ask(name: str, request: int) -> bytes:
    """Ask Linux about an interface. No such one: ENXIO, as ifioctl() of XNU says it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        try:
            return _ioctl(anything.fileno(), request, _to_linux(name).encode().ljust(40, b"\0"))[16:]
        except OSError as error:
            raise _fault(errno.ENXIO if error.errno == errno.ENODEV else error.errno or errno.EIO) from None


def _mtu(name: str) -> int:
    return int.from_bytes(_ask(name, _LINUX_GIFMTU)[:4], sys.byteorder)


def _flags(name: str) -> int:
    """As Darwin has them: RUNNING stays without a carrier, SIMPLEX on every card."""
    linux = int.from_bytes(_ask(name, _LINUX_GIFFLAGS)[:2], sys.byteorder)
    flags = linux & (_IFF_UP | _IFF_BROADCAST | _IFF_LOOPBACK | 0x10 | 0x80 | 0x100 | 0x200)
    if linux & _IFF_UP:
        flags |= _IFF_RUNNING
    if linux & 0x1000:
        flags |= _DARWIN_MULTICAST
    if linux & _IFF_BROADCAST:
        flags |= _DARWIN_SIMPLEX
    return flags


def _mac(name: str) -> bytes:
    return _ask(name, _LINUX_GIFHWADDR)[2:8]


def _inet(name: str) -> bytes:
    try:
        return _ask(name, _LINUX_GIFADDR)[4:8]
    except OSError:
        return b""


def _list_interfaces() -> List[Tuple[int, str]]:
    return [(index, _to_darwin(name)) for index, name in _if_nameindex()]


def interface_messages() -> bytes:
    """What sysctl NET_RT_IFLIST returns: struct if_msghdr with a sockaddr_dl, then ifa_msghdr with the addresses."""
    found = b""
    for index, name in _list_interfaces():
        flags, mtu, mac = _flags(name), _mtu(name), _mac(name)
        is_loop = bool(flags & _IFF_LOOPBACK)
        kind, mac = (24, b"") if is_loop else (6, mac)  # IFT_LOOP, IFT_ETHER
        link = struct.pack("=HBBBB", index, kind, len(name), len(mac), 0) + name.encode() + mac
        size = max(20, 2 + len(link))
        link = (bytes((size, _DARWIN_AF_LINK)) + link).ljust(-(-size // 4) * 4, b"\0")
        data = struct.pack("=8B3I", kind, 0, 0, len(mac), 14, 0, 0, 0, mtu, 0, 1000000000).ljust(96, b"\0")
        head = struct.pack("=iiHxx", 0x10, flags, index)  # RTA_IFP
        found += struct.pack("=HBB", 4 + len(head) + len(data) + len(link), 5, 0x0E) + head + data + link
        inet = _inet(name)
        if inet:
            addresses = b"".join(struct.pack("=BBH", 16, 2, 0) + part + bytes(8) for part in (b"\xff\xff\xff\0", inet))
            head = struct.pack("=iiHxxi", 0x24, 0, index, 0)  # RTA_NETMASK | RTA_IFA
            found += struct.pack("=HBB", 4 + len(head) + len(addresses), 5, 0x0C) + head + addresses
    return found


class LibC:
    """libc as scapy sees it: sysctl(3) of the routing table, and the rest of the real one."""

    class _Sysctl:
        argtypes = restype = None

        def __call__(self, mib: Any, count: int, old: Any, old_size: Any, new: Any, new_size: Any) -> int:
            names = list(mib)[:count]
            if names[:2] != [4, 17] or len(names) != 6:  # CTL_NET, PF_ROUTE
                note(f"sysctl {names}")
                return -1
            answer = interface_messages() if names[4] == 3 else b""  # NET_RT_IFLIST; no routes
            size = old_size._obj
            if old is not None:
                if size.value < len(answer):
                    return -1
                ctypes.memmove(old, answer, len(answer))
                size.value = len(answer)
            else:
                size.value = len(answer) * 9 // 8  # XNU leaves room for more
            return 0

    def __init__(self, real: Any) -> None:
        self._real = real
        self.sysctl = LibC._Sysctl()
        self.ioctl = _LibcIoctl()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _LibcIoctl:
    """ioctl(2) through ctypes: scapy 2.5 and before attach their filters so."""

    argtypes = restype = None

    def __call__(self, fd: Any, request: int, argument: Any = None) -> int:
        fd = getattr(fd, "value", fd)
        try:
            address = ctypes.cast(argument, ctypes.c_void_p).value or 0
            size = request >> 16 & 0x1FFF
            ioctl(fd, request, ctypes.string_at(address, size))
        except OSError:
            return -1
        return 0


def ifconfig_text(name: str) -> str:
    """`ifconfig NAME` of macOS."""
    flags = _flags(name)
    words = [
        word
        for bit, word in (
            (1, "UP"), (2, "BROADCAST"), (0x20, "SMART"), (8, "LOOPBACK"), (0x40, "RUNNING"),
            (0x100, "PROMISC"), (0x800, "SIMPLEX"), (0x8000, "MULTICAST"),
        )
        if flags & bit
    ]  # fmt: skip
    lines = [f"{name}: flags={flags:x}<{','.join(words)}> mtu {_mtu(name)}"]
    if not flags & _IFF_LOOPBACK:
        lines += ["\toptions=400<CHANNEL_IO>", "\tether " + ":".join(f"{octet:02x}" for octet in _mac(name))]
    if _inet(name):
        lines.append(f"\tinet {socket.inet_ntoa(_inet(name))} netmask 0xffffff00")
    if not flags & _IFF_LOOPBACK:
        lines += ["\tmedia: autoselect (1000baseT <full-duplex>)", "\tstatus: active"]
    return "\n".join(lines) + "\n"


def ifconfig(arguments: Sequence[str]) -> List[str]:
    """The command that says what ifconfig(8) would."""
    names = [name for _, name in _list_interfaces()]
    if list(arguments) == ["-l"]:
        return ["printf", "%s\n", " ".join(names)]
    shown = list(arguments[:1]) or names
    if not set(shown) <= set(names):
        return ["sh", "-c", f"echo 'ifconfig: interface {shown[0]} does not exist' >&2; exit 1"]
    return ["printf", "%s", "".join(map(ifconfig_text, shown))]


# --- bpf(4) ----------------------------------------------------------------------------------------------------------

_BUFSIZE, _MINBUFSIZE, _HEADER, _ALIGN = 4096, 32, 18, 4  # BPF_BUFSIZE; timeval32 and two u32 and a u16
_BLEN_CAP = int(os.environ.get("FAKEBSD_BLEN_CAP", 0x80000))
_DEVICES = int(os.environ.get("FAKEBSD_BPFS", 256))
_WRITE_LEEWAY = 18
_FRAME_MAX = 0x10100
_DLT_NULL, _DLT_EN10MB = 0, 1
_ENOBUFS_ONE_IN = int(os.environ.get("FAKEBSD_ENOBUFS", 0))
_CHMODBPF = os.environ.get("FAKEBSD_CHMODBPF") == "1"


def _ior(number: int, size: int = 4) -> int:
    return 0x40000000 | size << 16 | ord("B") << 8 | number


def _iow(number: int, size: int = 4) -> int:
    return 0x80000000 | size << 16 | ord("B") << 8 | number


_BIOCGBLEN, _BIOCSBLEN = _ior(102), 0xC0000000 | 4 << 16 | ord("B") << 8 | 102
_BIOCSETF, _BIOCSETFNR = _iow(103, 16), _iow(126, 16)
_BIOCFLUSH, _BIOCPROMISC = 0x20000000 | ord("B") << 8 | 104, 0x20000000 | ord("B") << 8 | 105
_BIOCGDLT, _BIOCGETIF, _BIOCSETIF = _ior(106), _ior(107, 32), _iow(108, 32)
_BIOCSRTIMEOUT, _BIOCGRTIMEOUT, _BIOCGSTATS = _iow(109, 16), _ior(110, 16), _ior(111, 8)
_BIOCIMMEDIATE, _BIOCVERSION = _iow(112), _ior(113)
_BIOCGHDRCMPLT, _BIOCSHDRCMPLT, _BIOCGSEESENT, _BIOCSSEESENT = _ior(116), _iow(117), _ior(118), _iow(119)
_FIONREAD, _FIONBIO = 0x4004667F, 0x8004667E

_devices: Dict[int, "Device"] = {}  # descriptor -> Device


def _of_this_mac(name: str) -> str:
    """Where a file lies that two Macs have apart: every network namespace is one."""
    if not _THIS_MAC:
        folder = os.environ.get("FAKEBSD_DIR", "/tmp")
        _THIS_MAC.append(f"{folder}/fakebsd-{_stat('/proc/self/ns/net').st_ino}")
        for directory in (_THIS_MAC[0], _THIS_MAC[0] + "/run"):
            with contextlib.suppress(FileExistsError):
                _mkdir(directory, 0o777)
                os.chmod(directory, 0o777)
    return os.path.join(_THIS_MAC[0], name)


_THIS_MAC: List[str] = []


class Device:
    """One open /dev/bpfN. What happens to a frame when it comes is done when somebody looks: nobody can tell."""

    def __init__(self, minor: int) -> None:
        if minor >= _DEVICES:
            raise _fault(errno.ENOENT, f"/dev/bpf{minor}")
        if os.geteuid() != 0 and not _CHMODBPF:
            raise _fault(errno.EACCES, f"/dev/bpf{minor}")
        self._lock = _open(_of_this_mac(f"bpf{minor}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _close(self._lock)
            raise _fault(errno.EBUSY, f"/dev/bpf{minor}") from None
        self.minor = minor
        self._in = socket.socket(_AF_PACKET, socket.SOCK_RAW, 0)
        self._in.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 256 << 20)
        self._out = socket.socket(_AF_PACKET, socket.SOCK_RAW, 0)  # another one: what it sends is seen by the first
        self._out.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 16 << 20)
        self._out.setblocking(False)
        self.fd = self._in.fileno()
        self._name, self._index, self._is_detached = "", 0, False
        self._size, self._immediate, self._complete, self._sees_sent, self._timeout = _BUFSIZE, False, False, True, 0.0
        self._nonblocking = False
        self._has_stamp = False
        self._reset()

    def _reset(self) -> None:
        self._store = bytearray(self._size + _FRAME_MAX)
        self._view = memoryview(self._store)
        self._stored = 0  # bd_slen
        self._hold: Optional[bytes] = None  # bd_hbuf
        self._carry = b""  # came after the read had begun
        self._received = self._dropped = self._writes = 0

    def close(self) -> None:
        if self._index:
            self._take()
            note(
                f"bpf{self.minor} on {self._name} closed: {self._received} frames passed, {self._dropped} were dropped"
            )
        self._in.close()
        self._out.close()
        _close(self._lock)

    @property
    def is_ready(self) -> bool:
        """bpfselect(): also where there is no interface any more, as that returns ENXIO, which is not 0."""
        return (
            self._is_detached or self._hold is not None or bool(self._immediate and self._stored) or bool(self._carry)
        )

    def set_nonblocking(self, on: bool) -> None:
        self._nonblocking = on

    # What comes

    def _rotate(self) -> None:
        self._hold = bytes(self._view[: self._stored])
        self._stored = 0

    def _catch(self, at: int, length: int, stamp: Tuple[int, int]) -> bool:
        """catchpacket(): a frame of that length lies at `at` + 18. Whether it was kept."""
        self._received += 1
        whole = min(_HEADER + length, self._size)
        if at + whole > self._size:
            if self._hold is not None:
                return False
            frame = bytes(self._view[at + _HEADER : at + whole])
            self._rotate()
            self._store[_HEADER:whole] = frame
            at = 0
        struct.pack_into("=IIIIH", self._store, at, stamp[0], stamp[1], whole - _HEADER, length, _HEADER)
        self._stored = at + whole
        return True

    def _came_after(self, began: float) -> bool:
        """Whether the frame that was taken last came after that time; the answer is "no" until times are taken."""
        seconds, microseconds = struct.unpack("=qq", _ioctl(self.fd, _LINUX_GSTAMP, bytes(16)))
        return bool(seconds + microseconds * 1e-6 > began)

    def _take(self) -> None:
        """Do with every frame that has come what XNU did when it came."""
        if not self._index:
            return
        began = time.time()
        stamp = int(began), int(began % 1 * 1e6)
        if self._carry:
            at = -(-self._stored // _ALIGN) * _ALIGN
            self._store[at + _HEADER : at + _HEADER + len(self._carry)] = self._carry
            if not self._catch(at, len(self._carry), stamp):
                return  # nobody has read since
            self._carry = b""
        while True:
            at = -(-self._stored // _ALIGN) * _ALIGN
            try:
                length = self._in.recv_into(self._view[at + _HEADER :], 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                if self._is_gone():
                    return
                continue  # it is down: XNU tells nobody
            if not self._catch(at, length, stamp):
                if self._has_stamp and self._came_after(began):
                    self._carry = bytes(self._view[at + _HEADER : at + _HEADER + length])
                    return
                self._dropped += 1

    def only_went_down(self) -> bool:
        """Whether what select has seen is that Linux's socket says: the interface is down."""
        try:
            self._in.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return not self.is_ready
        except OSError:
            self._is_gone()
            return not self.is_ready
        return False

    def _is_gone(self) -> bool:
        try:
            socket.if_indextoname(self._index)
        except OSError:
            self._is_detached = True  # bpfdetach()
        return self._is_detached

    def read(self, size: int) -> bytes:
        if size != self._size:
            note(f"read of {size} bytes, not {self._size}")
            raise _fault(errno.EINVAL)
        self._take()
        deadline = time.monotonic() + self._timeout if self._timeout else None
        while self._hold is None:
            if self._stored and (self._immediate or self._nonblocking):
                self._rotate()
                break
            if self._is_detached or not self._index:
                raise _fault(errno.ENXIO)
            if self._nonblocking:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left == 0.0:
                if not self._stored:
                    return b""
                self._rotate()
                break
            _select([self.fd], [], [], left)
            self._take()
        data, self._hold = self._hold, None
        return data or b""

    # What goes

    def write(self, data: bytes) -> int:
        if not self._index or self._is_detached:
            raise _fault(errno.ENXIO)
        self._writes += 1
        if len(data) == 0:
            return 0
        if _ENOBUFS_ONE_IN and self._writes % _ENOBUFS_ONE_IN == 0:
            raise _fault(errno.ENOBUFS)
        if not self._complete:
            data = bytes(data[:6]) + _mac(self._name) + bytes(data[12:])
        try:
            return self._out.send(data)
        except BlockingIOError:
            raise _fault(errno.ENOBUFS) from None
        except OSError as error:
            if error.errno == errno.EMSGSIZE and len(data) <= _mtu(self._name) + _WRITE_LEEWAY:
                note(f"{len(data)} bytes are passed to the driver: MTU {_mtu(self._name)}")
                return len(data)
            if error.errno in (errno.ENODEV, errno.ENXIO, errno.ENETDOWN):
                raise _fault(errno.ENXIO if self._is_gone() else errno.ENETDOWN) from None
            raise

    # What is asked of the device

    def control(self, request: int, data: bytes) -> bytes:
        """What of `data` there is to be returned."""
        number = struct.unpack("=I", data[:4])[0] if len(data) >= 4 else 0
        if request == _BIOCGBLEN:
            return struct.pack("=I", self._size)
        if request == _BIOCSBLEN:
            if self._index:
                raise _fault(errno.EINVAL)
            self._size = max(_MINBUFSIZE, min(number, _BLEN_CAP))
            return struct.pack("=I", self._size)
        if request in (_BIOCSETF, _BIOCSETFNR):
            self._set_filter(data)
            if request == _BIOCSETF:
                self._flush()
            return b""
        if request == _BIOCFLUSH:
            self._flush()
            return b""
        if request == _BIOCSETIF:
            self._attach(data[:16].split(b"\0")[0].decode())
            return b""
        if request == _BIOCIMMEDIATE:
            self._immediate = bool(data[0])  # XNU looks at one octet
            return b""
        if request == _BIOCSHDRCMPLT:
            self._complete = bool(number)
            return b""
        if request == _BIOCSSEESENT:
            self._sees_sent = bool(number)
            self._in.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 0 if number else 1)
            return b""
        if request == _BIOCSRTIMEOUT:
            seconds, microseconds = struct.unpack("=qi", data[:12])
            self._timeout = seconds + microseconds * 1e-6
            return b""
        if request == _BIOCGSTATS:
            self._take()
            return struct.pack("=II", self._received, self._dropped)
        if request == _FIONREAD:
            self._take()
            return struct.pack("=i", self._stored)
        if request == _FIONBIO:
            self._nonblocking = bool(number)
            return b""
        simple = {
            _BIOCVERSION: struct.pack("=HH", 1, 1),
            _BIOCGHDRCMPLT: struct.pack("=I", self._complete),
            _BIOCGSEESENT: struct.pack("=I", self._sees_sent),
            _BIOCGRTIMEOUT: struct.pack("=qq", int(self._timeout), int(self._timeout % 1 * 1e6)),
        }
        if request in simple:
            return simple[request]
        if request in (_BIOCGDLT, _BIOCGETIF, _BIOCPROMISC):
            if not self._index or self._is_detached:
                raise _fault(errno.EINVAL)
            if request == _BIOCGDLT:
                return struct.pack("=I", _DLT_NULL if self._name == "lo0" else _DLT_EN10MB)
            if request == _BIOCGETIF:
                return self._name.encode().ljust(32, b"\0")
            note("promiscuous")
            self._in.setsockopt(
                _SOL_PACKET, _PACKET_ADD_MEMBERSHIP, struct.pack("=iHH8s", self._index, _PACKET_MR_PROMISC, 0, b"")
            )
            return b""
        note(f"ioctl {request:#x} on bpf{self.minor}")
        raise _fault(errno.EINVAL)

    def _attach(self, name: str) -> None:
        if name not in [known for _, known in _list_interfaces()]:
            raise _fault(errno.ENXIO)
        self._name, self._index, self._is_detached = name, _if_nametoindex(_to_linux(name)), False
        self._in.bind((_to_linux(name), _ETH_P_ALL))
        self._out.bind((_to_linux(name), 0))
        try:
            _ioctl(self.fd, _LINUX_GSTAMP, bytes(16))  # from now on Linux notes when they come
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        self._has_stamp = True
        self._reset()

    def _set_filter(self, data: bytes) -> None:
        count, address = struct.unpack("=I4xQ", data[:16])
        if count == 0:
            self._in.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER
            return
        if count > 512:
            raise _fault(errno.EINVAL)
        program = ctypes.create_string_buffer(ctypes.string_at(address, 8 * count), 8 * count)
        option = struct.pack("=H6xQ", count, ctypes.addressof(program))
        self._in.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)  # the same code, run by Linux

    def _flush(self) -> None:
        self._take()
        self._stored, self._hold, self._carry = 0, None, b""
        self._received = self._dropped = 0


# --- The calls of the program ----------------------------------------------------------------------------------------


def _placed(path: Any) -> Any:
    """Where a file of the program really lies."""
    return _of_this_mac("run" + path[8:]) if isinstance(path, str) and path.startswith("/var/run/") else path


def _hide(path: Any) -> int:
    """Raise ENOENT for what only Linux has; return the number of a /dev/bpfN, else -1."""
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if isinstance(path, str) and path.startswith("/"):
        if path.startswith("/dev/bpf"):
            found = re.match(r"/dev/bpf(\d+)$", path)
            if not found:
                raise _fault(errno.ENOENT, path)
            return int(found.group(1))
        if path == "/proc" or path.startswith(("/proc/", "/sys/")):
            note(f"looked for {path}")
            raise _fault(errno.ENOENT, path)
    return -1


def open_(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
    """os.open"""
    minor = _hide(path)
    if minor < 0:
        return _open(_placed(path), flags, mode, **more)
    device = Device(minor)
    device.set_nonblocking(bool(flags & os.O_NONBLOCK))
    _devices[device.fd] = device
    return device.fd


def read(fd: int, length: int) -> bytes:
    """os.read"""
    device = _devices.get(fd)
    return _read(fd, length) if device is None else device.read(length)


def write(fd: int, data: bytes) -> int:
    """os.write"""
    device = _devices.get(fd)
    return _write(fd, data) if device is None else device.write(data)


def close(fd: int) -> None:
    """os.close"""
    device = _devices.pop(fd, None)
    return _close(fd) if device is None else device.close()


def set_blocking(fd: int, blocking: bool, _real: Any = os.set_blocking) -> None:
    """os.set_blocking"""
    if fd in _devices:
        _devices[fd].set_nonblocking(not blocking)
    else:
        _real(fd, blocking)


def fcntl_(fd: Any, command: int, argument: Any = 0) -> Any:
    """fcntl.fcntl"""
    answer = _fcntl(fd, command, argument)
    number = fd if isinstance(fd, int) else fd.fileno()
    if number in _devices and command == fcntl.F_SETFL:
        _devices[number].set_nonblocking(bool(argument & os.O_NONBLOCK))
        _fcntl(number, command, argument & ~os.O_NONBLOCK)  # ours alone
    elif number in _devices and command == fcntl.F_GETFL and _devices[number]._nonblocking:
        answer |= os.O_NONBLOCK
    return answer


def _returned(argument: Any, answer: bytes, mutate: bool) -> Any:
    """What fcntl.ioctl makes of the octets that come back."""
    if isinstance(argument, bytes):
        return answer + argument[len(answer) :]
    if not isinstance(argument, int) and mutate:
        memoryview(argument).cast("B")[: len(answer)] = answer
    return 0


def ioctl(fd: Any, request: int, argument: Any = 0, mutate_flag: bool = True) -> Any:
    """fcntl.ioctl: Darwin's numbers. Those of terminals come from the module `termios` and stay Linux's."""
    number = fd if isinstance(fd, int) else fd.fileno()
    request &= 0xFFFFFFFF
    data = b"" if isinstance(argument, int) else bytes(memoryview(argument).cast("B"))
    size = request >> 16 & 0x1FFF
    if number in _devices:
        if len(data) < size and not isinstance(argument, int):
            note(f"ioctl {request:#x} has {len(data)} octets of {size}")
        return _returned(argument, _devices[number].control(request, data), mutate_flag)
    if request in (0xC0206911, 0xC0206933):  # SIOCGIFFLAGS, SIOCGIFMTU
        name = data[:16].split(b"\0")[0].decode()
        value = struct.pack("=H", _flags(name)) if request == 0xC0206911 else struct.pack("=i", _mtu(name))
        return _returned(argument, data[:16] + value, mutate_flag)
    if request >> 8 in (0x89, 0xC02069, 0x802069):
        note(f"ioctl {request:#x} on a socket")
        raise _fault(errno.EOPNOTSUPP)
    return _ioctl(fd, request, argument, mutate_flag)


def select_(reading: Any, writing: Any, excepting: Any, timeout: Optional[float] = None) -> Any:
    """select.select; a device of ours may have frames though its socket has none, and tells nobody that it is down."""
    if not _devices:
        return _select(reading, writing, excepting, timeout)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        ours = [(file, _devices.get(file if isinstance(file, int) else file.fileno())) for file in reading]
        ready = [file for file, device in ours if device is not None and device.is_ready]
        more, could_write, excepted = _select(reading, writing, excepting, 0 if ready else timeout)
        quiet = [file for file, device in ours if device is not None and file in more and device.only_went_down()]
        found = [file for file in reading if file in ready or (file in more and file not in quiet)]
        if found or could_write or excepted or not quiet:
            return found, could_write, excepted
        if deadline is not None:
            timeout = max(0.0, deadline - time.monotonic())


def _hiding(real: Any) -> Any:
    def wrapper(path: Any, *arguments: Any, **more: Any) -> Any:
        if _hide(path) >= 0:
            path = "/dev/null"  # a character device
        return real(_placed(path), *arguments, **more)

    return wrapper


def _hiding_exists(real: Any) -> Any:
    def wrapper(path: Any) -> bool:
        try:
            _hide(path)
        except OSError:
            return False
        return bool(real(_placed(path)))

    return wrapper


_Popen: Any = subprocess.Popen


class Popen(_Popen):  # type: ignore[misc]  # it is what subprocess has
    """subprocess.Popen with our ifconfig."""

    def __init__(self, arguments: Any, *more: Any, **named: Any) -> None:
        words = arguments.split() if isinstance(arguments, str) else [os.fspath(word) for word in arguments]
        program = os.path.basename(words[0]) if words else ""
        if program in ("ifconfig", "netstat", "ip", "route", "sysctl"):
            note(f"runs {' '.join(words)}")
        if program == "ifconfig":
            arguments = ifconfig(words[1:])
            named["shell"] = False
        elif program in ("ip", "netstat", "route", "sysctl"):
            arguments = ["/nonexistent/" + program] if program == "ip" else ["true"]
            named["shell"] = False
        super().__init__(arguments, *more, **named)


# --- Who we are ------------------------------------------------------------------------------------------------------

_ABSENT = {
    os: "sched_setaffinity sched_getaffinity sched_setscheduler sched_getscheduler sched_setparam sched_getparam"
    " sched_rr_get_interval pipe2 memfd_create eventfd splice copy_file_range getrandom posix_fallocate posix_fadvise"
    " fdatasync setresuid setresgid getresuid getresgid O_PATH O_TMPFILE O_LARGEFILE O_RSYNC O_DIRECT O_NOATIME"
    " getxattr setxattr listxattr removexattr pidfd_open setns unshare timerfd_create",
    socket: "AF_PACKET PF_PACKET PACKET_HOST PACKET_BROADCAST PACKET_MULTICAST PACKET_OTHERHOST PACKET_OUTGOING"
    " PACKET_LOOPBACK PACKET_FASTROUTE AF_NETLINK SOL_PACKET SO_BINDTODEVICE SO_MARK SO_PRIORITY SO_PEERCRED"
    " SO_PASSCRED SO_DOMAIN SO_PROTOCOL SOCK_CLOEXEC SOCK_NONBLOCK AF_CAN AF_VSOCK AF_TIPC AF_ALG",
    select: "epoll EPOLLIN EPOLLOUT EPOLL_CLOEXEC",
    signal: "sigtimedwait sigwaitinfo SIGPWR SIGSTKFLT SIGPOLL SIGCLD SIGRTMIN SIGRTMAX pidfd_send_signal",
    time: "CLOCK_BOOTTIME CLOCK_TAI CLOCK_MONOTONIC_COARSE",
    fcntl: "F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_NOTIFY",
}

_SIGINFO = 30  # Linux's SIGPWR, which a program may catch and ignores by no default; Darwin's is 29


def patch(module: Any, **values: Any) -> None:
    """Set names of a module."""
    for name, value in values.items():
        setattr(module, name, value)


def install() -> None:
    """Change the ground under the program; once a process, before it is imported."""
    if sys.platform == "darwin":
        return
    os.environ.setdefault("_PYTHON_SYSCONFIGDATA_NAME", _sysconfigdata())
    # As partials: like the builtin functions they do not become methods where a class has them (pathlib of 3.9).
    for module, name, ours in (
        (os, "open", open_), (os, "read", read), (os, "write", write), (os, "close", close),
        (os, "set_blocking", set_blocking), (fcntl, "fcntl", fcntl_), (fcntl, "ioctl", ioctl),
        (select, "select", select_),
    ):  # fmt: skip
        setattr(module, name, functools.partial(ours))
    for name in ("stat", "lstat", "listdir", "readlink", "mkdir", "unlink"):
        setattr(os, name, functools.partial(_hiding(getattr(os, name))))
    patch(builtins, open=functools.partial(_hiding(_builtin_open)))
    patch(io, open=builtins.open)
    patch(os.path, exists=_hiding_exists(os.path.exists))
    patch(subprocess, Popen=Popen)
    patch(socket, if_nameindex=_list_interfaces, if_nametoindex=lambda name: _if_nametoindex(_to_linux(name)))
    patch(socket, AF_LINK=_DARWIN_AF_LINK, PF_ROUTE=17)
    for module, names in _ABSENT.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    if os.environ.get("FAKEBSD_SCHED_YIELD", "1") == "0":
        delattr(os, "sched_yield")
    _install_signals()
    _install_libc()
    _install_identity()


def _install_signals() -> None:
    dropped = ("SIGPWR", "SIGSTKFLT", "SIGPOLL", "SIGCLD", "SIGRTMIN", "SIGRTMAX")
    members = {name: int(member) for name, member in signal.Signals.__members__.items() if name not in dropped}
    members.update(SIGINFO=_SIGINFO, SIGEMT=58)
    make_enum: Any = enum.IntEnum
    patch(signal, Signals=make_enum("Signals", members, module="signal"))
    for name, member in signal.Signals.__members__.items():
        setattr(signal, name, member)
    signal.signal(_SIGINFO, signal.SIG_IGN)  # its default on Darwin; a handler that is set later prevails


def _install_libc() -> None:
    load, find = ctypes.cdll.LoadLibrary, ctypes.util.find_library
    patch(ctypes.util, find_library=lambda name: _LIBC if name == "c" else find(name))
    patch(ctypes.cdll, LoadLibrary=lambda name: LibC(ctypes.CDLL(None)) if name == _LIBC else load(name))


_LIBC = "/usr/lib/libc.dylib"


def _sysconfigdata() -> str:
    """The module's name has the platform in it."""
    import sysconfig

    namer = getattr(sysconfig, "_get_sysconfigdata_name", None)
    return namer() if namer else ""


def _install_identity() -> None:
    release = "23.6.0"
    version = "Darwin Kernel Version 23.6.0: root:xnu-10063.141.1~2/RELEASE_ARM64_T6000"
    node = os.uname().nodename
    answer = os.uname_result(("Darwin", node, release, version, "arm64"))
    patch(os, uname=lambda: answer)
    patch(platform, _uname_cache=None, mac_ver=lambda *_, **__: ("14.6.1", ("", "", ""), "arm64"))
    patch(sys, platform="darwin")


def main() -> int:
    """Run a script on it."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    import runpy

    del sys.argv[0]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    sys.modules["fakebsd"] = sys.modules["__main__"]
    install()
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
elif __name__ == "sitecustomize":
    _ONLY = os.environ.get("FAKEBSD_ONLY", "")
    if not _ONLY or os.path.basename((getattr(sys, "argv", None) or [""])[0]) in _ONLY.split(","):
        install()
