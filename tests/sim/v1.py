"""An independent AlexMesh v1.0 node for tests: written from the published facts, importing nothing of the project.

Sans-IO: whole Ethernet frames in, whole Ethernet frames out, `now` in seconds. What it does: an empty HANDSHAKE to
everyone every 5 s; an answer to each HANDSHAKE for it; a MESSAGE for it is printed and acknowledged; any other frame is
re-broadcast once per msg_id with ttl - 1 while ttl > 0. As the real one it answers no msg_id twice, and sends a STATUS
from the Ethernet address that the MESSAGE was sent to: after a broadcast from ff:ff:ff:ff:ff:ff, which bridges drop.
`python3 tests/sim/v1.py eth0`: a real one; `--chat`: its chat server; `--id ADDRESS`: as uuid.getnode() gives it.
"""

import argparse
import io
import select
import socket
import struct
import sys
import time
from typing import Any, List, NamedTuple, Optional, Set, Tuple

HANDSHAKE, MESSAGE, BROADCAST, STATUS = 1, 2, 3, 4
EVERYONE = bytes(6)
ETHERNET_BROADCAST = b"\xff" * 6
PERIOD = 5.0


class Header(NamedTuple):
    version: int
    type: int
    origin: bytes
    dest: bytes
    ttl: int
    msg_id: int
    payload: bytes


def encode(kind: int, origin: bytes, dest: bytes, ttl: int, msg_id: int, payload: bytes = b"") -> bytes:
    """Return the 23-byte header and the payload."""
    return struct.pack("!BB", 1, kind) + origin + dest + struct.pack("!B", ttl) + struct.pack("!Q", msg_id) + payload


def decode(data: bytes) -> Header:
    """Return the fields of a frame, whose payload may end with padding; raise struct.error if it is cut."""
    version, kind = struct.unpack("!BB", data[0:2])
    (ttl,) = struct.unpack("!B", data[14:15])
    (msg_id,) = struct.unpack("!Q", data[15:23])
    return Header(version, kind, data[2:8], data[8:14], ttl, msg_id, data[23:])


def ethernet(destination: bytes, source: bytes, data: bytes, *, padded: bool = False) -> bytes:
    """Return the Ethernet frame around `data`; `padded` to 60 bytes, as a real card does."""
    frame = destination + source + b"\x88\xb5" + data
    return frame.ljust(60, b"\0") if padded else frame


class V1Node:
    """One v1.0 node; its id is `node_id`, or its MAC. `padded`: every frame that it sends arrives as from a real card.

    printed: (origin, text) of each MESSAGE for it; acked: msg_ids that a STATUS for it named; known: origins heard.
    """

    def __init__(self, mac: bytes, *, padded: bool = False, started: float = 0.0, node_id: bytes = b"") -> None:
        self.mac = mac
        self.id = node_id or mac
        self.padded = padded
        self.printed: List[Tuple[bytes, str]] = []
        self.acked: List[int] = []
        self.known: Set[bytes] = set()
        self._seen: Set[int] = set()
        self._next_handshake = started
        # Two machines never boot in the same millisecond, and their clocks differ: derive it from the address.
        self._epoch_ms = 1700000000000 + int.from_bytes(mac, "big") % 9973

    def next_deadline(self) -> float:
        """Return when `tick` will have something to send."""
        return self._next_handshake

    def tick(self, now: float) -> List[bytes]:
        """Return the periodic HANDSHAKE if it is due."""
        if now < self._next_handshake:
            return []
        self._next_handshake = now + PERIOD
        return [self._make(ETHERNET_BROADCAST, HANDSHAKE, EVERYONE, b"", now)]

    def send_message(self, dest: bytes, text: str, now: float, *, to: Optional[bytes] = None) -> bytes:
        """Return the frame of a MESSAGE. `to` is the Ethernet destination: broadcast, or what it takes for the MAC."""
        return self._make(ETHERNET_BROADCAST if to is None else to, MESSAGE, dest, text.encode("utf-8"), now)

    def last_id(self, frame: bytes) -> int:
        """Return the msg_id of a frame, to look for it in `acked`."""
        return decode(frame[14:]).msg_id

    def receive(self, frame: bytes, now: float) -> List[bytes]:
        """Return what the node sends on hearing an Ethernet frame; anything that is not v1.0 is ignored."""
        destination, source, ethertype = frame[0:6], frame[6:12], frame[12:14]
        if len(frame) < 14 + 23 or ethertype != b"\x88\xb5" or destination not in (ETHERNET_BROADCAST, self.mac):
            return []
        header = decode(frame[14:])
        if header.version != 1 or header.origin == self.id:
            return []
        self.known.add(header.origin)
        if header.dest == self.id:
            if header.msg_id in self._seen:
                return []
            self._seen.add(header.msg_id)
            return self._take(header, destination, source, now) + self._read(header, source, now)
        is_new = header.dest == EVERYONE and header.msg_id not in self._seen
        return self._relay(header) + (self._read(header, source, now) if is_new else [])

    def _read(self, header: Header, source: bytes, now: float) -> List[bytes]:
        """Read what is for this node or for everyone as something else, too."""
        return []

    def _take(self, header: Header, destination: bytes, source: bytes, now: float) -> List[bytes]:
        """Take a frame for this node; `destination`: its Ethernet destination."""
        if header.type == HANDSHAKE:
            return [self._make(source, HANDSHAKE, header.origin, b"", now)]
        text = header.payload.rstrip(b"\0").decode("utf-8", "replace")
        if header.type == MESSAGE:
            self.printed.append((header.origin, text))
            status = self._make(source, STATUS, header.origin, b"ACK:%d" % header.msg_id, now)
            return [status[:6] + destination + status[12:]]
        if header.type == STATUS and text.startswith("ACK:"):
            self.acked.append(int(text[4:]))
        return []

    def _relay(self, header: Header) -> List[bytes]:
        if header.ttl == 0 or header.msg_id in self._seen:
            return []
        self._seen.add(header.msg_id)
        data = encode(header.type, header.origin, header.dest, header.ttl - 1, header.msg_id, header.payload)
        return [ethernet(ETHERNET_BROADCAST, self.mac, data, padded=self.padded)]

    def _make(self, destination: bytes, kind: int, dest: bytes, payload: bytes, now: float) -> bytes:
        msg_id = self._epoch_ms + int(now * 1000)
        self._seen.add(msg_id)
        return ethernet(destination, self.mac, encode(kind, self.id, dest, 5, msg_id, payload), padded=self.padded)


class V1ChatServer(V1Node):
    """v1.0's chat server: it reads every payload for it or everyone, of whatever type, as a segment of its streams.

    A segment: stream id u32, seq u32, flags u8 (1 SYN, 2 ACK, 4 FIN, 8 DATA), length u16, data. Whatever does more than
    acknowledge is answered in a MESSAGE: a SYN by SYN and ACK, the rest by ACK.
    """

    def _read(self, header: Header, source: bytes, now: float) -> List[bytes]:
        if len(header.payload) < 11:
            return []
        stream, seq, flags, _ = struct.unpack("!IIBH", header.payload[:11])
        if not flags & (1 | 4 | 8):
            return []
        segment = struct.pack("!IIBH", stream, (seq + 1) & 0xFFFFFFFF, 2 | flags & 1, 0)
        return [self._make(source, MESSAGE, header.origin, segment, now)]


def main() -> int:
    """Run the node on real interfaces: print each text for it, send each line `ADDRESS TEXT` of stdin.

    Its address is the first interface's; what it sends leaves by all of them.
    """
    ports = []
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interfaces", nargs="+")
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--id", default="")
    arguments = parser.parse_args()
    for name in arguments.interfaces:
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        port.bind((name, 0x88B5))
        ports.append(port)
    kind = V1ChatServer if arguments.chat else V1Node
    node_id = bytes.fromhex(arguments.id.replace(":", ""))
    node = kind(ports[0].getsockname()[4], started=time.monotonic(), node_id=node_id)
    print("v1.0 node", ":".join(f"{octet:02x}" for octet in node.id), flush=True)
    files: List[Any] = [io.FileIO(0), *ports]
    shown = [0, 0]
    while True:
        now = time.monotonic()
        out = node.tick(now)
        for file in select.select(files, [], [], 0 if out else node.next_deadline() - now)[0]:
            if isinstance(file, socket.socket):
                frame, address = file.recvfrom(0x10000)
                if address[2] != socket.PACKET_OUTGOING:  # type: ignore[attr-defined, unused-ignore]
                    out += node.receive(frame, time.monotonic())
                continue
            words = file.readline().decode().rstrip("\n").split(" ", 1)
            if len(words) == 2:
                out.append(node.send_message(bytes.fromhex(words[0].replace(":", "")), words[1], time.monotonic()))
            else:
                files.remove(file)
        for port in ports:
            for data in out:
                port.send(data.ljust(60, b"\0"))
        for origin, text in node.printed[shown[0] :]:
            print(":".join(f"{octet:02x}" for octet in origin), text, flush=True)
        for msg_id in node.acked[shown[1] :]:
            print("acknowledged", msg_id, flush=True)
        shown = [len(node.printed), len(node.acked)]


if __name__ == "__main__":
    sys.exit(main())
