"""A network of Routers in virtual time: segments with loss, silent cuts and isolated ports; crashes and restarts.

Everything is decided by one seed: the same seed gives the same run. Links that fail here fail silently, without a
carrier event, as behind a switch. Nodes of v1.0 (tests/sim/v1.py) may stand anywhere.
"""

import heapq
import random
from collections import Counter
from typing import (
    Any,
    Callable,
    Counter as CounterType,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Type,
    TypeVar,
)

from v1 import V1Node

from constants import NO_SLOT
from protocol import Delivered, InterfaceConfig, MeshEvent, MessageReceived, Router

BROADCAST = b"\xff" * 6
HANDSHAKE, MESSAGE, TEXT, STATUS, STREAM = 1, 2, 3, 4, 5
TYPE_OFFSET = 15  # of the AlexMesh type in an Ethernet frame
BOOT_SEQ = 1700000000
FAR_AHEAD = 100000
INFINITY = float("inf")
Event = TypeVar("Event")


def mac_of(number: int, port: int = 0) -> bytes:
    """Return a MAC: that of port 0 is the node's address."""
    return bytes((0x6A, port, 0, 0, number >> 8, number & 255))


class Arrival(NamedTuple):
    """A STREAM payload that came to a node."""

    time: float
    origin: bytes
    payload: bytes


class Port:
    def __init__(self, node: "SimNode", index: int, segment: "Segment", mac: bytes) -> None:
        self.node = node
        self.index = index
        self.segment = segment
        self.mac = mac
        self.slot: Optional[int] = None  # while its node is up, where locks give slots

    def claim(self) -> Optional[int]:
        """Take the lowest slot that no other program on this card holds; None where locks cannot be had."""
        if self.node.net.locks:
            card = [port for port in self.segment.ports if port.mac == self.mac and port.node.up and port is not self]
            self.slot = min(set(range(NO_SLOT + 1)) - {port.slot for port in card} | {NO_SLOT})
        return self.slot


class Segment:
    """A bus or, with two ports, a cable. `deaf`: the programs that share a card do not hear each other."""

    deaf = False

    def __init__(self, number: int, loss: float, delay: float, loopback: bool) -> None:
        self.number = number
        self.loss = loss
        self.delay = delay
        self.loopback = loopback
        self.mtu = 65536  # of the switch; longer frames are silently lost
        self.ports: List[Port] = []
        self.isolated: Set[Port] = set()  # these hear only those that are not isolated
        self.cuts: Set[Tuple[Optional[Port], Optional[Port]]] = set()  # (from, to): silently lost; None: every port

    def carries(self, sender: Port, receiver: Port) -> bool:
        """Return whether frames get from one port to another; those of one card need no switch."""
        if sender in self.isolated and receiver in self.isolated and sender.mac != receiver.mac:
            return False
        cuts = self.cuts
        return not cuts or cuts.isdisjoint(((sender, receiver), (sender, None), (None, receiver)))

    def cut(self, sender: Port, receiver: Port, both: bool = True) -> None:
        self.cuts.add((sender, receiver))
        if both:
            self.cuts.add((receiver, sender))

    def hear(self, sender: Port, destination: bytes) -> Iterator[Port]:
        """Yield the ports that a frame reaches: those of other programs on the same card too; on `lo` the sender's."""
        for port in self.ports:
            if self.loopback:
                yield port
            elif port is sender or (self.deaf and port.mac == sender.mac):
                continue
            elif destination in (BROADCAST, port.mac):
                yield port


class SimNode:
    """A node: its router (None while it is down), what came out of it, and what others may ask of it."""

    def __init__(
        self,
        net: "Network",
        segments: Sequence[Segment],
        macs: Sequence[bytes] = (),
        address: Optional[bytes] = None,
        mtu: int = 1500,
        kind: Type[Router] = Router,
    ) -> None:
        self.net = net
        self.number = len(net.nodes) + 1
        self.kind = kind
        self.mtu = mtu
        self.ports: List[Port] = []
        for index, segment in enumerate(segments):
            mac = bytes(6) if segment.loopback else macs[index] if macs else mac_of(self.number, index)
            self.ports.append(Port(self, index, segment, mac))
            segment.ports.append(self.ports[-1])
        self.address = address or (self.ports[0].mac if any(self.ports[0].mac) else mac_of(self.number))
        self.up = False
        self.boots = 0
        self.wake = INFINITY
        self.events: List[Tuple[float, MeshEvent]] = []
        self.streams: List[Arrival] = []
        self.routers: List[Router] = []  # one per boot

    @property
    def router(self) -> Router:
        """The router of this boot, or of the last one."""
        return self.routers[-1]

    def start(self, seq: Optional[int] = None) -> "SimNode":
        net = self.net
        interfaces = [
            InterfaceConfig(f"e{p.index}", p.mac, self.mtu, p.segment.loopback, p.claim()) for p in self.ports
        ]
        self.routers.append(
            self.kind(
                self.address,
                interfaces,
                rng=random.Random(net.rng.getrandbits(32)),
                now=net.now,
                seq=int(BOOT_SEQ + net.now) if seq is None else seq,
                name=f"n{self.number}",
                ports=(self.number,),
            )
        )
        self.boots += 1
        self.up = True
        net.pump(self)
        return self

    def crash(self) -> None:
        self.up = False

    def receive(self, port: Port, frame: bytes) -> None:
        incoming = self.router.receive(port.index, frame, now=self.net.now)
        if incoming is not None:
            self.streams.append(Arrival(self.net.now, *incoming))

    def work(self) -> Optional[float]:
        """Let the router do what is due; send its frames; collect its events; return its next deadline."""
        for index, frame in self.router.frames_to_send(now=self.net.now):
            self.net.send(self.ports[index], frame)
        event = self.router.next_event()
        while event is not None:
            self.events.append((self.net.now, event))
            event = self.router.next_event()
        return self.router.next_deadline()

    # What a test wants done

    def stream(self, dest: "SimNode", payload: bytes = b"data") -> None:
        transmit = self.router.send_stream(dest.address, payload, now=self.net.now)
        if transmit is not None:
            self.net.send(self.ports[transmit.interface], transmit.frame)
        self.net.pump(self)

    def message(self, dest: "SimNode", data: bytes = b"hello", timeout: float = 3.0) -> int:
        """Send a text; return its id, for `delivered`."""
        return int(self.do("send_message", dest.address, data, timeout=timeout))

    def do(self, action: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the router at the current time."""
        result = getattr(self.router, action)(*arguments, now=self.net.now, **options)
        self.net.pump(self)
        return result

    # What a test wants to know

    def happened(self, kind: Type[Event]) -> List[Event]:
        return [event for _, event in self.events if isinstance(event, kind)]

    def delivered(self, msg_id: int) -> bool:
        return any(event.msg_id == msg_id for event in self.happened(Delivered))

    def texts(self) -> List[bytes]:
        return [event.data for event in self.happened(MessageReceived)]

    def port_on(self, segment: Segment) -> Port:
        return next(port for port in self.ports if port.segment is segment)


class V1SimNode(SimNode):
    """A v1.0 node; it has one port. `v1` is the node itself."""

    def __init__(self, net: "Network", segment: Segment) -> None:
        super().__init__(net, [segment])
        self.v1 = V1Node(self.ports[0].mac, padded=True, started=net.now + net.rng.uniform(0, 0.1))

    def start(self, seq: Optional[int] = None) -> "V1SimNode":
        self.up = True
        self.boots += 1
        self.net.pump(self)
        return self

    def receive(self, port: Port, frame: bytes) -> None:
        for answer in self.v1.receive(frame, self.net.now):
            self.net.send(port, answer)

    def work(self) -> Optional[float]:
        for frame in self.v1.tick(self.net.now):
            self.net.send(self.ports[0], frame)
        return self.v1.next_deadline()

    def text(self, dest: SimNode, text: str) -> int:
        """Broadcast a MESSAGE, as v1.0 does; return its id, for `v1.acked`."""
        frame = self.v1.send_message(dest.address, text, self.net.now)
        self.net.send(self.ports[0], frame)
        return self.v1.last_id(frame)


class Network:
    """Segments, nodes, and the time they live in.

    `watch`, if set, is called after every event. `frames` and `bytes` count what was sent, by (segment number, type).
    `locks`: whether lock files tell programs on one card their slots.
    """

    locks = True

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.segments: List[Segment] = []
        self.nodes: List[SimNode] = []
        self.watch: Optional[Callable[[], None]] = None
        self.tap: Optional[Callable[[Port, bytes], None]] = None
        self.frames: CounterType[Tuple[int, int]] = Counter()
        self.bytes: CounterType[Tuple[int, int]] = Counter()
        self._queue: List[Tuple[float, int, Callable[..., Any], Tuple[Any, ...]]] = []
        self._serial = 0

    # Building

    def segment(self, loss: float = 0.0, delay: float = 0.0001, loopback: bool = False) -> Segment:
        self.segments.append(Segment(len(self.segments), loss, delay, loopback))
        return self.segments[-1]

    def node(self, *segments: Segment, start: bool = True, **options: Any) -> SimNode:
        node = SimNode(self, segments, **options)
        self.nodes.append(node)
        return node.start() if start else node

    def v1(self, segment: Segment) -> V1SimNode:
        node = V1SimNode(self, segment)
        self.nodes.append(node)
        return node.start()

    def bus(self, count: int) -> List[SimNode]:
        segment = self.segment()
        return [self.node(segment) for _ in range(count)]

    def line(self, count: int, **options: Any) -> List[SimNode]:
        cables = [self.segment(**options) for _ in range(count - 1)]
        return [self.node(*cables[max(i - 1, 0) : i + 1]) for i in range(count)]

    def ring(self, count: int) -> List[SimNode]:
        cables = [self.segment() for _ in range(count)]
        return [self.node(cables[i - 1], cables[i]) for i in range(count)]

    def diamond(self) -> List[SimNode]:
        """A - B - D and A - C - D."""
        ab, ac, bd, cd = (self.segment() for _ in range(4))
        return [self.node(ab, ac), self.node(ab, bd), self.node(ac, cd), self.node(bd, cd)]

    def grid(self, width: int, height: int) -> List[SimNode]:
        pairs = [(i, i + 1) for i in range(width * height) if (i + 1) % width]
        return self.graph(width * height, pairs + [(i, i + width) for i in range(width * (height - 1))])

    def graph(self, count: int, pairs: Sequence[Tuple[int, int]]) -> List[SimNode]:
        """Nodes with a cable for every pair."""
        cables: List[List[Segment]] = [[] for _ in range(count)]
        for a, b in pairs:
            cable = self.segment()
            cables[a].append(cable)
            cables[b].append(cable)
        return [self.node(*own) for own in cables]

    # Running

    def send(self, port: Port, frame: bytes) -> None:
        segment = port.segment
        self.frames[segment.number, frame[TYPE_OFFSET]] += 1
        self.bytes[segment.number, frame[TYPE_OFFSET]] += len(frame)
        if self.tap is not None:
            self.tap(port, frame)
        if len(frame) > min(segment.mtu, port.node.mtu) + 14:
            return
        for other in segment.hear(port, frame[:6]):
            lost = segment.loss and self.rng.random() < segment.loss
            if not lost and other.node.up and segment.carries(port, other):
                self.at(self.now + segment.delay, self._arrive, other, other.node.boots, frame)

    def _arrive(self, port: Port, boot: int, frame: bytes) -> None:
        if port.node.up and port.node.boots == boot:
            port.node.receive(port, frame)
            self.pump(port.node)

    def at(self, when: float, action: Callable[..., Any], *arguments: Any) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (when, self._serial, action, arguments))

    def pump(self, node: SimNode) -> None:
        """Something happened to the node: let it work, and wake it at its next deadline."""
        deadline = node.work()
        if deadline is not None and deadline < node.wake:
            node.wake = deadline
            self.at(max(deadline, self.now), self._wake, node, deadline)

    def _wake(self, node: SimNode, deadline: float) -> None:
        if node.wake == deadline:
            node.wake = INFINITY
            if node.up:
                self.pump(node)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(queue)
            action(*arguments)
            if self.watch is not None:
                self.watch()
        self.now = until

    def flow(self, source: SimNode, dest: SimNode, interval: float = 0.01, until: float = INFINITY) -> List[float]:
        """Send a STREAM frame every `interval`; return a list that tells when."""
        sent: List[float] = []

        def beat() -> None:
            if source.up and self.now < until:
                sent.append(self.now)
                source.stream(dest)
                self.at(self.now + interval, beat)

        beat()
        return sent

    # Looking

    def alive(self) -> List[SimNode]:
        return [node for node in self.nodes if node.up]

    def walk(self, source: SimNode, dest: SimNode) -> Optional[List[SimNode]]:
        """Return the nodes on the routed way from one node to another, or None where it ends or loops."""
        way = [source]
        while way[-1] is not dest:
            path = way[-1].router.path_to(dest.address) if way[-1].routers else None
            if path is None or len(way) > len(self.nodes):
                return None
            segment = way[-1].ports[path.neighbour.interface.index].segment
            near = [port.node for port in segment.ports if port.mac == path.neighbour.mac]
            hop = next((node for node in near if node.address == path.neighbour.address and node.up), None)
            if hop is None:
                return None
            way.append(hop)
        return way

    def converged(self) -> bool:
        """Return whether every live node has a working route to every other."""
        routers = [node for node in self.alive() if node.routers]
        return all(self.walk(a, b) for a in routers for b in self.alive() if a is not b)

    def run_until_converged(self, limit: float = 10.0) -> float:
        """Return how long it took, to 10 ms."""
        start = self.now
        while not self.converged() and self.now - start < limit:
            self.run(0.01)
        return self.now - start

    def outage(self, node: SimNode, after: float) -> float:
        """Return the longest gap between stream payloads at `node` since `after`."""
        times = [after] + [arrival.time for arrival in node.streams if arrival.time > after]
        return max((b - a for a, b in zip(times, times[1:])), default=INFINITY)

    def sent(self, kind: Optional[int] = None) -> int:
        """Return how many frames were sent so far, of one type or all."""
        return sum(count for (_, k), count in self.frames.items() if kind in (None, k))
