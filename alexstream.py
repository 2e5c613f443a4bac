"""AlexStream (L4): a reliable, ordered, flow-controlled byte stream with half-close, like TCP and by TCP's words.

The machine is pure: segments in, segments out, events out. Time comes in as `now` (monotonic seconds), randomness as
`rng`; there is no clock, thread or socket here. What carries the segments (AlexMesh, a simulator) gives the address
they came from, and may leave padding behind them.

    0        2       3       4      6        8     12    16       20    24    28     32      36
    +--------+-------+-------+------+--------+-----+-----+--------+-----+-----+------+-------+---------+---------+
    | stream | flags | words | port | length | seq | ack | window | tag | ts  | echo | crc32 | options | payload |
    | u16    | u8    | u8    | u16  | u16    | u32 | u32 | u32    | u32 | u32 | u32  | u32   |         |         |
    +--------+-------+-------+------+--------+-----+-----+--------+-----+-----+------+-------+---------+---------+

    stream    chosen at random by the opener, not 0; with the peer's address and who opened it names the stream
    flags     1 SYN, 2 ACK, 4 FIN, 8 DATA, 16 RST, 32 PUSH "acknowledge now", 64 INIT "sent by the opener"; 128 is 0
    words     header length in 4-byte words, options included
    port      the service at the responder: 1 chat, 2 pipe, 3 file of a chat, 4 chat of a client that calls
    length    payload bytes; what follows them in the frame is padding
    seq, ack  position of the first payload byte, next position expected; SYN and FIN take one position each
    window    bytes accepted from `ack` on, unscaled
    tag       the receiver's initial number (0 in a SYN): a segment with another one is none of this stream's
    ts, echo  the sender's microseconds, strictly increasing, so that it names the transmission; that of the answered
    crc32     over origin, destination, header, options and payload: against faults of memory and relays, not people
    options   2 segment size (u16, while opening), 5 SACK (pairs of edges; 16 in a pure acknowledgement, 3 beside data)

OPENING. The responder keeps nothing until it has heard from the opener twice: its initial number is a keyed hash of
both addresses, the stream, the port, the opener's number and a 64-second slot. Spent cookies are remembered for two
slots, so that a recorded conversation cannot be played again. The opener repeats its SYN after 0.2, 0.4, then every
0.5 s, for 15 s. Until the responder has said more than SYN-ACK the opener sends nothing but its first segment: a later
one could overtake it, and a responder that knows nothing would have to reset it.

STATES are those of RFC 9293, two halves, each open or finished. LISTEN and SYN-RECEIVED need no state (the cookie
stands for it), and simultaneous opens are two streams. `MOVES` is the table:

                       SYN-SENT
                          | SYN-ACK                  cookie answered
                          v                          (responder)
                     ESTABLISHED <------------------------+
              finish |         | FIN
                     v         v
             FIN-WAIT-1       CLOSE-WAIT
     ack of FIN |    | FIN         | finish
                v    v             v
        FIN-WAIT-2  CLOSING    LAST-ACK
            FIN |    | ack of FIN  | ack of FIN
                v    v             v
                TIME-WAIT ---------+--- 10 s ---> CLOSED

LOSS. Every transmission has a number of its own, and every acknowledgement names the transmission that caused it
(`echo`), so a round trip is measured on retransmitted segments too. A segment is lost when three later transmissions
have arrived, or one has and a round trip plus a quarter has passed (RACK, RFC 8985); once the path has shown that it
reorders, only time counts. If nothing is heard, a probe goes out after srtt + 4 rttvar + 5 ms, then after twice that,
up to every 2 s; it marks nothing as lost (RFC 9002 section 6.2). SACK is always on, and never reneged upon.

CONGESTION. NewReno with an initial window of ten segments and one cut a round; a loss while the round trip (the least
of the last four) has not grown is taken for noise (x 0.95), else for a full queue (x 0.7; in slow start x 0.5). Slow
start pauses while that has grown by an eighth (1 to 2 ms; compare RFC 9406). It fills drop-tail buffers, as Reno does.

FLOW CONTROL. 512 KiB each way, where segments are larger 256 of them (up to 2 MiB), no scaling; both buffers grow to
twice what passes in a round trip, up to 4 MiB. The window never moves back, moves by worthwhile steps only (RFC 9293
section 3.8.6.2), and is probed for as long as it is closed. No Nagle delay. Acknowledgements wait at most 5 ms and for
at most four segments.

ENDING. The end of the stream is reported only after the last byte. A stream closed both ways stays 10 s in TIME-WAIT.
`Stalled` comes after four silent probes, and after 180 s without progress the stream is given up. Idle streams are
probed every 15 s; a peer that restarted answers with a reset. `acked` counts the bytes in the peer node's memory.

BOUNDS. 1024 streams, 64 of one peer; 64 MiB in all receive buffers, as much in all send buffers, and 32 KiB sure for
each stream; a piece for each 512 bytes of a receive buffer; 4096 cookies; 1024 streams in TIME-WAIT; 5000 SYN-ACKs and
200 resets a second, 10 challenge ACKs a second and stream. The answer to a SYN is no larger than the SYN.

LEFT OUT: ECN, DSACK, PRR, CUBIC, BBR, pacing, search for a larger MTU, urgent data, migration to another address,
several streams in one, message boundaries.

Inside, a position is a plain integer that never wraps: 0 is the SYN, 1 the first byte, and the FIN follows the last
byte; the wire carries (ISN + position) mod 2**32. Read in this order: codec, round trip and congestion, `Sender`
(bytes in flight, what is lost), `Receiver` (what is in order, what waits), `Session` (one stream), `Endpoint` (all).
"""

import hashlib
import heapq
import itertools
import struct
import zlib
from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from enum import Enum
from typing import Any, Deque, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

import constants as c
from utils import ByteQueue, ByteWindow, Range, RangeSet, TokenBucket, is_unicast, unwrap

# --- Codec ----------------------------------------------------------------------------------------------------------

_HEADER = struct.Struct(">HBBHHIIIIIII")
_CRC_AT = 32  # offset of the checksum, which counts as zero in its own sum
_NO_CRC = b"\0\0\0\0"
_EXPECTED_BYTES = 6  # stream to port: how the usual segments of a stream begin
_FLAGS_SHIFT, _LENGTH_SHIFT, _SEQ_SHIFT, _TS_SHIFT, _ECHO_SHIFT = 264, 224, 192, 64, 32  # in the header as one number
_BLOCK = struct.Struct(">II")
_SACK_OPTION_BYTES = 28  # three blocks, padded to words: room that every data segment keeps
_MASK = 0xFFFFFFFF


class SegmentError(ValueError):
    """A segment that must be dropped; `reason` is the name under which the drop is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Segment(NamedTuple):
    """One segment; numbers as on the wire. `sacks` are (left, right) pairs, `segment_size` is None where not sent."""

    stream: int
    flags: int
    port: int
    seq: int
    ack: int = 0
    window: int = 0
    tag: int = 0
    ts: int = 0
    echo: int = 0
    segment_size: Optional[int] = None
    sacks: Tuple[Range, ...] = ()
    payload: bytes = b""


def encode_segment(segment: Segment, origin: bytes, destination: bytes) -> bytes:
    """Return the segment's bytes. The CRC covers both addresses, so a misdelivered segment is a broken one."""
    options = b""
    if segment.segment_size is not None:
        options += struct.pack(">BBH", c.OPTION_SEGMENT_SIZE, 4, segment.segment_size)
    if segment.sacks:
        options += struct.pack(">BB", c.OPTION_SACK, 2 + _BLOCK.size * len(segment.sacks))
        options += b"".join(_BLOCK.pack(*block) for block in segment.sacks)
    options += bytes(-len(options) % 4)
    words = (c.STREAM_HEADER_BYTES + len(options)) // 4
    head = _HEADER.pack(
        segment.stream, segment.flags, words, segment.port, len(segment.payload), segment.seq, segment.ack,
        segment.window, segment.tag, segment.ts, segment.echo, 0,
    )  # fmt: skip
    body = b"".join((options, segment.payload))
    crc = zlib.crc32(body, zlib.crc32(head, zlib.crc32(origin + destination)))
    return b"".join((head[:_CRC_AT], crc.to_bytes(4, "big"), body))


def decode_segment(data: bytes, origin: bytes, destination: bytes) -> Segment:
    """Return the segment at the start of `data`; what follows it is padding. Raise SegmentError."""
    if len(data) < c.STREAM_HEADER_BYTES:
        raise SegmentError("short")
    stream, flags, words, port, length, seq, ack, window, tag, ts, echo, crc = _HEADER.unpack_from(data)
    start = words * 4
    stop = start + length
    if start < c.STREAM_HEADER_BYTES or stop > len(data):
        raise SegmentError("length")
    covered = zlib.crc32(_NO_CRC, zlib.crc32(data[:_CRC_AT], zlib.crc32(origin + destination)))
    if zlib.crc32(data[c.STREAM_HEADER_BYTES : stop], covered) != crc:
        raise SegmentError("checksum")
    if flags not in _VALID_FLAGS or bool(flags & c.FLAG_DATA) != bool(length):
        raise SegmentError("flags")
    if stream == 0:
        raise SegmentError("stream")
    options = data[c.STREAM_HEADER_BYTES : start]
    segment_size, sacks = _decode_options(options) if options else (None, ())
    payload = bytes(data[start:stop])
    return Segment(stream, flags, port, seq, ack, window, tag, ts, echo, segment_size, sacks, payload)


def _decode_options(options: bytes) -> Tuple[Optional[int], Tuple[Range, ...]]:
    """Return segment size and SACK blocks; unknown kinds and known ones of odd length are skipped."""
    segment_size: Optional[int] = None
    sacks: Tuple[Range, ...] = ()
    at = 0
    while at < len(options) and options[at]:  # kind 0: from here on padding
        length = options[at + 1] if at + 1 < len(options) else 0
        value = options[at + 2 : at + length]
        if length < 2 or at + length > len(options):
            raise SegmentError("option")
        if options[at] == c.OPTION_SEGMENT_SIZE and len(value) == 2:
            segment_size = int.from_bytes(value, "big")
        elif options[at] == c.OPTION_SACK and len(value) % _BLOCK.size == 0:
            sacks = tuple(Range(*block) for block in _BLOCK.iter_unpack(value))[: c.SACKS_MAX]
        at += length
    return segment_size, sacks


def _is_valid(flags: int) -> bool:
    if flags & 128:
        return False
    if flags & c.FLAG_SYN:
        return not flags & (c.FLAG_FIN | c.FLAG_RST | c.FLAG_DATA)
    if flags & c.FLAG_RST:
        return not flags & (c.FLAG_FIN | c.FLAG_DATA)
    return bool(flags & c.FLAG_ACK)


_VALID_FLAGS: FrozenSet[int] = frozenset(flags for flags in range(256) if _is_valid(flags))


# --- States and events ----------------------------------------------------------------------------------------------


class State(Enum):
    """States of a stream, by RFC 9293's names. LISTEN and SYN-RECEIVED hold no state here: the cookie stands for it."""

    SYN_SENT = "SYN-SENT"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    TIME_WAIT = "TIME-WAIT"
    CLOSED = "CLOSED"


# What may happen to a stream, and where it leads. Besides these, every state may fall to CLOSED: reset, given up.
MOVES: Dict[State, Dict[str, State]] = {
    State.SYN_SENT: {"SYN-ACK": State.ESTABLISHED},
    State.ESTABLISHED: {"finish": State.FIN_WAIT_1, "FIN": State.CLOSE_WAIT},
    State.FIN_WAIT_1: {"ack of FIN": State.FIN_WAIT_2, "FIN": State.CLOSING},
    State.FIN_WAIT_2: {"FIN": State.TIME_WAIT},
    State.CLOSE_WAIT: {"finish": State.LAST_ACK},
    State.CLOSING: {"ack of FIN": State.TIME_WAIT},
    State.LAST_ACK: {"ack of FIN": State.TIME_WAIT},
    State.TIME_WAIT: {},
    State.CLOSED: {},
}


class Accepted(NamedTuple):
    """A peer opened this stream to a port that is listened on."""

    session: "Session"


class Connected(NamedTuple):
    """The peer answered: the stream that was asked for is open."""

    session: "Session"


class Readable(NamedTuple):
    """There are bytes to read."""

    session: "Session"


class Writable(NamedTuple):
    """There is room again, after `send` had to refuse bytes."""

    session: "Session"


class Acked(NamedTuple):
    """Every byte before `offset` is in the peer node's memory and will reach its application in order."""

    session: "Session"
    offset: int


class EndOfStream(NamedTuple):
    """The peer has finished, and all that it sent has arrived."""

    session: "Session"


class Stalled(NamedTuple):
    """The peer has not answered several probes; `since` is when it was last heard."""

    session: "Session"
    since: float


class Resumed(NamedTuple):
    """A stalled peer is heard again."""

    session: "Session"


class Closed(NamedTuple):
    """The stream has ended; always the last event. The rest is as in `End`."""

    session: "Session"
    reason: str
    sent: int
    acked: int


class End(NamedTuple):
    """How a stream ended: `sent` bytes were taken, `acked` of them the peer surely held.

    `reason`: finished, refused, busy, no answer, timed out, peer silent, reset by peer, peer restarted or aborted.
    """

    reason: str
    sent: int
    acked: int


Event = Union[Accepted, Connected, Readable, Writable, Acked, EndOfStream, Stalled, Resumed, Closed]


Parts = Tuple[bytes, Union[bytes, memoryview]]  # of a segment: its header and its payload, joined in the frame only


class Outgoing(NamedTuple):
    """A segment for the node `peer`."""

    peer: bytes
    payload: bytes


# --- Round trip and congestion --------------------------------------------------------------------------------------


class RoundTrip:
    """Round-trip estimator (RFC 6298 section 2); all in seconds."""

    def __init__(self) -> None:
        self.srtt = 0.0
        self.rttvar = 0.0
        self.latest = 0.0
        self.minimum: Optional[float] = None  # None: no sample yet
        self._recent: Deque[float] = deque(maxlen=c.QUEUE_SAMPLES)

    def sample(self, seconds: float) -> None:
        """Take one measured round trip."""
        if self.minimum is None:
            self.srtt, self.rttvar, self.minimum = seconds, seconds / 2, seconds
        self.rttvar += (abs(self.srtt - seconds) - self.rttvar) / 4
        self.srtt += (seconds - self.srtt) / 8
        self.latest = seconds
        self.minimum = min(self.minimum, seconds)
        self._recent.append(seconds)

    @property
    def shows_queue(self) -> bool:
        """Whether a queue stands on the path: the last round trips were all longer than the shortest ever.

        By a quarter, but at most QUEUE_DELAY_MAX: the shortest that a stream knows which came to a full queue is long.
        """
        return self._has_grown(4, c.QUEUE_DELAY_MIN, c.QUEUE_DELAY_MAX)

    @property
    def pauses_slow_start(self) -> bool:
        """Whether slow start must wait (RFC 9406 section 4.2): only a round trip later would a doubled queue show."""
        return self._has_grown(8, c.PAUSE_DELAY_MIN, c.PAUSE_DELAY_MAX)

    def _has_grown(self, divisor: int, low: float, high: float) -> bool:
        shortest = self.minimum or 0.0
        return bool(self._recent) and min(self._recent) - shortest >= min(max(shortest / divisor, low), high)

    def probe_timeout(self, backoff: int) -> float:
        """Return how long to wait for an answer before probing (RFC 9002 section 6.2.1), after `backoff` probes."""
        if self.minimum is None:
            first = c.RTO_INITIAL
        else:
            first = max(c.PTO_MIN, self.srtt + max(4 * self.rttvar, c.REO_MIN) + c.PTO_MARGIN)
        return min(c.PTO_MAX, first * 2.0 ** min(backoff, 10))


class Congestion:
    """Congestion window in bytes: NewReno (RFC 5681) with a gentler cut.

    On a LAN the path holds 2 to 20 segments and every real bottleneck shows itself as delay before it drops. So a
    loss without a queue is taken for noise (x 0.95), one with a queue for congestion: x 0.7, or x 0.5 in slow start,
    whose window is by then twice what the path holds.
    """

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.window = float(min(10 * mss, max(2 * mss, c.INITIAL_WINDOW_BYTES)))  # RFC 6928
        self.threshold = float("inf")
        self._before_cut: Optional[Tuple[float, float]] = None

    def on_delivered(self, count: int, *, gently: bool = False) -> None:
        """Grow: `count` bytes were delivered while the window was the limit; `gently`: not as in slow start."""
        if self.window < self.threshold and not gently:
            self.window += count
        else:
            self.window += self.mss * count / self.window

    def on_loss(self, *, queueing: bool) -> None:
        """Cut, once a round; `queueing` tells whether the round trip had grown before the loss."""
        self._before_cut = (self.window, self.threshold)
        factor = 0.95 if not queueing else 0.7 if self.window >= self.threshold else 0.5
        self.window = self.threshold = max(2.0 * self.mss, self.window * factor)

    def on_spurious(self) -> None:
        """Undo the last cut: what was taken for lost has arrived."""
        if self._before_cut is not None:
            self.window = max(self.window, self._before_cut[0])
            self.threshold = max(self.threshold, self._before_cut[1])
            self._before_cut = None

    def collapse(self) -> None:
        """Start over: nothing was heard for several probes (RFC 9002 section 7.6, simplified)."""
        self.window = 2.0 * self.mss
        self._before_cut = None


# --- Buffers --------------------------------------------------------------------------------------------------------


class BufferPool:
    """What the buffers of all streams may hold in one direction, beyond what each is sure of."""

    def __init__(self) -> None:
        self.left = c.BUFFERS_BYTES - c.STREAMS_MAX * c.BUFFER_BYTES_MIN


class BufferSize:
    """How much one buffer may hold: it grows to twice what passes in a round trip (dynamic right-sizing).

    Twice, because slow start doubles in one. A stream that is not read holds no more than BUFFER_BYTES; those that want
    more leave half the pool to others that begin.
    """

    def __init__(self, pool: BufferPool, mss: int, first: int) -> None:
        self.bytes = c.BUFFER_BYTES_MIN
        self._pool = pool
        self._usual = buffer_size(mss)
        self._passed = 0  # bytes since the time `_since`
        self._since = 0.0
        self._grow_to(first)

    def on_passed(self, count: int, *, trip: float, now: float) -> None:
        """Count bytes that were read or acknowledged, and grow; `trip` is the shortest round trip, 0 if not known."""
        self._passed += count
        if 2 * self._passed > self.bytes:  # else there is no cause, and short messages need be no slower
            seconds = now - self._since
            if 0 < seconds >= trip:
                wanted = min(int(2 * self._passed * trip / seconds), c.BUFFER_GROWN_MAX)
                self._grow_to(max(wanted, self._usual))
                self._passed, self._since = 0, now

    def _grow_to(self, size: int) -> None:
        for limit, kept in ((min(size, c.BUFFER_BYTES), 0), (size, c.BUFFERS_BYTES // 4)):
            granted = max(0, min(limit - self.bytes, self._pool.left - kept))
            self._pool.left -= granted
            self.bytes += granted

    def release(self) -> None:
        """Give back everything: the stream has ended."""
        self._pool.left += self.bytes - c.BUFFER_BYTES_MIN
        self.bytes = c.BUFFER_BYTES_MIN


# --- Sender ---------------------------------------------------------------------------------------------------------


class SegmentState(Enum):
    """What is known of a range that was sent."""

    FLYING = 1
    SACKED = 2
    LOST = 3


class SentRange:
    """A range of positions in [una, nxt) and its last transmission, number `number` of the stream, stamped `ts`.

    `repaired_ts` is the stamp of the last one that was made because the range was lost, 0 if there was none.
    """

    __slots__ = ("copies", "number", "repaired_ts", "start", "state", "stop", "time", "ts")

    def __init__(
        self, start: int, stop: int, number: int = 0, time: float = 0.0, ts: int = 0, copies: int = 0,
        state: SegmentState = SegmentState.LOST,
    ) -> None:  # fmt: skip
        self.start = start
        self.stop = stop
        self.number = number
        self.time = time
        self.ts = ts
        self.copies = copies
        self.state = state  # lost until it is sent
        self.repaired_ts = 0

    @property
    def length(self) -> int:
        """How many positions the range takes."""
        return self.stop - self.start


class SegmentRun:
    """Segments of `length` positions, the last of them perhaps shorter, sent once, in a row and at one time.

    Numbers of transmissions and stamps count up from those of the first.
    """

    __slots__ = ("length", "number", "start", "stop", "time", "ts")

    def __init__(self, start: int, stop: int, length: int, number: int, time: float, ts: int) -> None:
        self.start = start
        self.stop = stop
        self.length = length
        self.number = number
        self.time = time
        self.ts = ts

    def __len__(self) -> int:
        """Return the number of segments."""
        return -((self.start - self.stop) // self.length)

    def segments(self) -> List[SentRange]:
        """Return the record of each segment."""
        flying = SegmentState.FLYING
        return [
            SentRange(start, min(start + self.length, self.stop), self.number + i, self.time, self.ts + i, 1, flying)
            for i, start in enumerate(range(self.start, self.stop, self.length))
        ]


class Sender:
    """Send buffer and scoreboard: what is acknowledged, in flight, lost. RACK (RFC 8985) with a packet threshold.

    `una` is the oldest position not acknowledged, `nxt` the next to send, `edge` the end of the peer's window, `end`
    the position after the last byte written; `bytes_in_flight` counts the positions in flight.

    New data is recorded as runs: while nothing but cumulative acknowledgements comes, that is enough. `sent` and
    `flying` expand them to segments. The numbers of the runs are above those of the segments.
    """

    def __init__(self, mss: int, pool: BufferPool) -> None:
        self.una = self.nxt = self.edge = self.end = 1
        self.fin_at: Optional[int] = None  # position of the FIN, once the application has finished
        self.max_window = 0
        self.bytes_in_flight = 0
        self.last_number = 0
        self.reorder_at: Optional[float] = None  # when the next candidate will count as lost
        self.round_trip = RoundTrip()
        self.congestion = Congestion(mss)
        self.size = BufferSize(pool, mss, buffer_size(mss))
        self._sent: List[SentRange] = []  # with the runs behind it tiles [una, nxt), ascending
        self._runs: Deque[SegmentRun] = deque()
        self._flying: OrderedDict[int, SentRange] = OrderedDict()  # by number of transmission, hence by time
        self._starts: List[int] = []  # of `_sent`, for bisect
        self._lost: List[int] = []  # heap of starts; an entry whose range is lost no longer is skipped
        self._buffer = ByteWindow(self.end)  # from `una` on
        self._newest_delivered = 0  # number of the latest transmission known to have arrived: RACK.xmit_ts
        self._newest_cut = 0  # a loss of a transmission up to this one belongs to a round that was cut already
        self._reorder_scale = 1
        self._reordered = False
        self._spurious = False

    # The application's side

    @property
    def room(self) -> int:
        """Bytes that `write` would take."""
        return self.size.bytes - len(self._buffer)

    def write(self, data: Union[bytes, memoryview]) -> int:
        """Append up to `room` bytes and return how many."""
        taken = bytes(data[: self.room])
        self._buffer.append(taken)
        self.end += len(taken)
        return len(taken)

    # What was sent

    @property
    def sent(self) -> List[SentRange]:
        """All ranges not acknowledged: they tile [una, nxt), ascending."""
        self._expand_runs()
        return self._sent

    @property
    def flying(self) -> "OrderedDict[int, SentRange]":
        """Those of them that are in flight, by number of transmission, hence by time."""
        self._expand_runs()
        return self._flying

    @property
    def segments_in_flight(self) -> int:
        """How many segments are in flight."""
        return len(self._flying) + sum(map(len, self._runs))

    def _expand_runs(self) -> None:
        while self._runs:
            batch = self._runs.popleft().segments()
            self._sent += batch
            self._starts += [sent.start for sent in batch]
            self._flying.update((sent.number, sent) for sent in batch)

    @property
    def idle(self) -> bool:
        """Whether everything that was sent is acknowledged."""
        return self.una == self.nxt

    @property
    def unsent(self) -> bool:
        """Whether there is something that was never sent."""
        return self.nxt < self.end or self.nxt == self.fin_at

    @property
    def finished(self) -> bool:
        """Whether the peer has acknowledged the FIN."""
        return self.fin_at is not None and self.una > self.fin_at

    # What to send

    def next_lost(self) -> Optional[SentRange]:
        """Return the lost range of the lowest position, cut to one segment, or None."""
        while self._lost:
            index = bisect_left(self._starts, self._lost[0])
            found = self._sent[index] if index < len(self._sent) else None
            if found is not None and found.start == self._lost[0] and found.state is SegmentState.LOST:
                return self.split_to_mss(found)
            heapq.heappop(self._lost)
        return None

    def next_new(self, *, forced: bool = False) -> Optional[SentRange]:
        """Return the next range never sent that the peer's window lets pass, or None.

        No fragment is sent merely because the window ends there, unless it is half the window or `forced`
        (RFC 9293 section 3.8.6.2.1).
        """
        room = self.edge - self.nxt
        length = min(self.congestion.mss, self.end - self.nxt, room)
        if length < 0 or (length == 0 and self.nxt != self.fin_at):
            return None
        cut_by_window = length == room and length < self.congestion.mss and self.nxt + length < self.end
        if cut_by_window and length * 2 < self.max_window and not forced:
            return None
        with_fin = self.nxt + length == self.fin_at and length < room
        return SentRange(self.nxt, self.nxt + length + with_fin) if length or with_fin else None

    def tail(self) -> Optional[SentRange]:
        """Return the last range not acknowledged, cut to one segment, or None."""
        last = next((sent for sent in reversed(self.sent) if sent.state is not SegmentState.SACKED), None)
        return last and self.split_to_mss(last)

    def split_to_mss(self, sent: SentRange) -> SentRange:
        """Cut a range longer than a segment may now be; what is cut off is lost. Return the head."""
        limit = sent.start + self.congestion.mss
        if self.payload_stop(sent) > limit:
            self.mark_lost(sent)
            tail = SentRange(limit, sent.stop, sent.number, sent.time, sent.ts, sent.copies)
            tail.repaired_ts = sent.repaired_ts
            sent.stop = limit
            index = bisect_left(self._starts, sent.start) + 1
            self._sent.insert(index, tail)
            self._starts.insert(index, tail.start)
            heapq.heappush(self._lost, tail.start)
        return sent

    def on_sent(self, sent: SentRange, *, ts: int, now: float) -> None:
        """Record a transmission of `sent`, new or repeated."""
        sent.ts = ts
        if sent.start == self.nxt:
            self.on_run_sent(sent.stop, sent.length, ts=ts, now=now)
            return
        self._expand_runs()
        if sent.state is SegmentState.FLYING:
            del self._flying[sent.number]
        else:
            self.bytes_in_flight += sent.stop - sent.start
            sent.repaired_ts = ts if sent.copies else 0
        self.last_number += 1
        sent.number, sent.time, sent.state = self.last_number, now, SegmentState.FLYING
        sent.copies += 1
        self._flying[sent.number] = sent

    def on_run_sent(self, stop: int, length: int, *, ts: int, now: float) -> SegmentRun:
        """Record the first transmission of everything from `nxt` to `stop`, in segments of `length`."""
        run = SegmentRun(self.nxt, stop, length, self.last_number + 1, now, ts)
        self._runs.append(run)
        self.last_number += len(run)
        self.bytes_in_flight += stop - self.nxt
        self.nxt = stop
        return run

    @property
    def lost(self) -> bool:
        """Whether something may wait to be repaired."""
        return bool(self._lost)

    def payloads(self, run: SegmentRun) -> List[Union[bytes, memoryview]]:
        """Return the bytes of each of its segments."""
        return self._buffer.slices(run.start, run.stop, run.length)

    def payload_stop(self, sent: SentRange) -> int:
        """Return the position after the last byte of the range: without its FIN."""
        return min(sent.stop, self.end)

    def payload(self, sent: SentRange) -> bytes:
        """Return the bytes of the range."""
        return self._buffer.read(sent.start, self.payload_stop(sent))

    def has_fin(self, sent: SentRange) -> bool:
        """Whether the range holds the FIN."""
        return sent.stop > self.end

    def discard(self) -> None:
        """Drop everything: nothing will be sent any more."""
        for held in (self._sent, self._starts, self._lost, self._runs, self._flying, self._buffer):
            held.clear()
        self.bytes_in_flight = 0

    # What the peer says

    def acknowledge(self, ack: int, sacks: Iterable[Range], *, echo: int) -> int:
        """Take a cumulative acknowledgement and SACK blocks, all as positions; return the positions newly delivered.

        `echo` is the stamp of the transmission that caused them, 0 if unknown: where it is older than the last copy
        of a range, an earlier copy has arrived, and the loss was none.
        """
        delivered = self._acknowledge_below(ack, echo) if ack > self.una else 0
        for block in sacks:
            if self.una < block.start < block.stop <= self.nxt:
                delivered += self._acknowledge_block(block, echo)
        if self._spurious:
            self._spurious = False
            self._reordered = True
            self._reorder_scale = min(2 * self._reorder_scale, 64)
            self.congestion.on_spurious()
        return delivered

    def _acknowledge_below(self, ack: int, echo: int) -> int:
        delivered = self._acknowledge_segments(ack, echo) if self._sent else 0
        if not self._sent and self._runs:
            delivered += self._acknowledge_runs(ack)
            if self._runs and self._runs[0].start < ack:
                self._expand_runs()
                delivered += self._acknowledge_segments(ack, echo)
        self._buffer.forget(min(ack, self.end))
        self.una = ack
        return delivered

    def _acknowledge_runs(self, ack: int) -> int:
        """Take the segments that end at `ack` or before."""
        before = self.bytes_in_flight
        runs = self._runs
        while runs and runs[0].stop <= ack:
            run = runs.popleft()
            self.bytes_in_flight -= run.stop - run.start
            self._newest_delivered = run.number + len(run) - 1
        if runs and runs[0].start + runs[0].length <= ack:
            run = runs[0]
            passed = (ack - run.start) // run.length
            run.start += passed * run.length
            run.number += passed
            run.ts += passed
            self.bytes_in_flight -= passed * run.length
            self._newest_delivered = run.number - 1
        return before - self.bytes_in_flight

    def _acknowledge_segments(self, ack: int, echo: int) -> int:
        delivered = passed = 0
        for sent in self._sent:
            if sent.stop > ack:
                break
            delivered += self._deliver(sent, echo)
            passed += 1
        del self._sent[:passed], self._starts[:passed]
        if self._sent and self._sent[0].start < ack:  # the peer took part of a segment
            head = self._sent[0]
            delivered += (ack - head.start) * (head.state is not SegmentState.SACKED)
            self.bytes_in_flight -= (ack - head.start) * (head.state is SegmentState.FLYING)
            head.start = self._starts[0] = ack
            if head.state is SegmentState.LOST:
                heapq.heappush(self._lost, ack)
        if self._sent and self._sent[0].state is SegmentState.SACKED:  # SACK reneging (RFC 2018 section 8)
            self.mark_lost(self._sent[0])
        return delivered

    def _acknowledge_block(self, block: Range, echo: int) -> int:
        self._expand_runs()
        delivered = 0
        index = bisect_left(self._starts, block.start)
        while index < len(self._sent) and self._sent[index].stop <= block.stop:
            if self._sent[index].state is not SegmentState.SACKED:
                delivered += self._deliver(self._sent[index], echo)
                index = self._merge(index)
            index += 1
        return delivered

    def _deliver(self, sent: SentRange, echo: int) -> int:
        if sent.state is SegmentState.SACKED:
            return 0
        length = sent.stop - sent.start
        if sent.state is SegmentState.FLYING:
            del self._flying[sent.number]
            self.bytes_in_flight -= length
        if sent.state is SegmentState.LOST or 0 < echo < sent.repaired_ts:
            self._spurious = True
        elif not 0 < echo < sent.ts or sent.copies == 1:
            self._newest_delivered = max(self._newest_delivered, sent.number)
        sent.state = SegmentState.SACKED
        return length

    def _merge(self, index: int) -> int:
        """Join the range at `index` with its neighbours that are SACKED too, so that blocks are cheap to walk."""
        for left in (index, index - 1):
            pair = self._sent[left : left + 2] if left >= 0 else []
            if len(pair) == 2 and pair[0].state is pair[1].state is SegmentState.SACKED:
                pair[0].stop = pair[1].stop
                del self._sent[left + 1], self._starts[left + 1]
                index = left
        return index

    def detect_losses(self, *, now: float) -> bool:
        """Mark what must be lost by now (RFC 8985 section 6.2); return whether that begins a new round of loss."""
        self.reorder_at = None
        if not self._flying:
            return False  # what goes by run has not been overtaken
        trip = self.round_trip
        reorder = min(max((trip.minimum or 0.0) / 4, c.REO_MIN) * self._reorder_scale, trip.srtt)
        patience = max(trip.srtt, trip.latest) + reorder
        lost = []
        for number, sent in self._flying.items():
            if number >= self._newest_delivered:
                break
            overtaken = not self._reordered and number + c.THRESHOLD <= self._newest_delivered
            if not overtaken and sent.time + patience > now:
                self.reorder_at = sent.time + patience
                break
            lost.append(sent)
        for sent in lost:
            self.mark_lost(sent)
        new_round = bool(lost) and lost[-1].number > self._newest_cut
        if new_round:
            self._newest_cut = self.last_number
        return new_round

    def mark_lost(self, sent: SentRange) -> None:
        """Mark a range as lost."""
        if sent.state is SegmentState.FLYING:
            del self._flying[sent.number]
            self.bytes_in_flight -= sent.stop - sent.start
        sent.state = SegmentState.LOST
        heapq.heappush(self._lost, sent.start)

    def resize(self, mss: int) -> None:
        """Change the segment size; what is in flight in larger ones is lost: it cannot have got through."""
        self.congestion.mss = mss
        for sent in [sent for sent in self.flying.values() if self.payload_stop(sent) - sent.start > mss]:
            self.mark_lost(sent)


# --- Receiver -------------------------------------------------------------------------------------------------------


class Receiver:
    """Receive buffer: bytes in order that wait to be read, and pieces beyond a gap. The first copy of a byte wins.

    `nxt` is the next position expected, `edge` the end of the window advertised to the peer, which never moves back.
    """

    def __init__(self, mss: int, pool: BufferPool) -> None:
        self.size = BufferSize(pool, mss, c.BUFFER_BYTES)
        self.nxt = 1
        self.edge = 1 + self.size.bytes  # as the handshake says
        self.fin_at: Optional[int] = None
        self.ranges = RangeSet()  # positions held beyond the gap
        self.unread = ByteQueue(c.PIECES_MAX)
        self._pieces: Dict[int, bytes] = {}  # by start; disjoint, they make up `ranges`
        self._newest = 0  # start of the latest piece

    @property
    def finished(self) -> bool:
        """Whether the FIN and all before it has arrived."""
        return self.fin_at is not None and self.nxt > self.fin_at

    def take(self, start: int, payload: bytes, fin: bool) -> bool:
        """Store what is new of the bytes from position `start` on; return False for a segment that contradicts."""
        stop = start + len(payload)
        if self.fin_at is not None and (stop > self.fin_at or (fin and stop != self.fin_at)):
            return False
        if fin and self.fin_at is None and stop < self.edge:
            if stop < max([self.nxt] + [held.stop for held in self.ranges]):
                return False
            self.fin_at = stop
        for gap in self.ranges.gaps(max(start, self.nxt), min(stop, self.edge)):
            if start > self.nxt and len(self._pieces) >= self.size.bytes // c.BYTES_PER_PIECE:
                break
            self._pieces[gap.start] = payload[gap.start - start : gap.stop - start]
            self.ranges.add(*gap)
            self._newest = gap.start
        self._advance()
        return True

    def _advance(self) -> None:
        while self.nxt in self._pieces:
            piece = self._pieces.pop(self.nxt)
            self.unread.append(piece)
            self.nxt += len(piece)
        self.ranges.discard_below(self.nxt)
        if self.nxt == self.fin_at:
            self.nxt += 1

    def window(self, mss: int) -> int:
        """Return the window to advertise; its edge moves by worthwhile steps only (RFC 9293 section 3.8.6.2.2)."""
        edge = self.nxt + self.size.bytes - len(self.unread)
        if edge - self.edge >= min(self.size.bytes // 2, mss):
            self.edge = edge
        return max(0, self.edge - self.nxt)

    def wants_update(self, mss: int) -> bool:
        """Return whether reading has opened the window so far that the peer is sent an update."""
        gained = self.nxt + self.size.bytes - len(self.unread) - self.edge
        open_bytes = self.edge - self.nxt
        if open_bytes <= 0:
            return gained >= min(self.size.bytes // 2, mss)
        return gained >= 4 * mss and open_bytes < self.size.bytes // 2

    def sacks(self, limit: int) -> List[Range]:
        """Return up to `limit` ranges held beyond the gap: that of the newest piece first, then from the left."""
        blocks = list(self.ranges)
        newest = self.ranges.range_at(self._newest)
        if newest is not None:
            blocks.remove(newest)
            blocks.insert(0, newest)
        return blocks[:limit]


# --- One stream -----------------------------------------------------------------------------------------------------


def segment_size(mtu: int) -> int:
    """Return the payload that fits a frame of `mtu` bytes beside both headers and three SACK blocks."""
    room = mtu - c.MESH_HEADER_BYTES - c.STREAM_HEADER_BYTES - _SACK_OPTION_BYTES
    return max(c.MSS_MIN, min(c.MSS_MAX, room))


def buffer_size(mss: int) -> int:
    """Return the bytes that the send or receive buffer of a stream holds."""
    return max(c.BUFFER_BYTES, min(c.BUFFER_SEGMENTS * mss, c.BUFFER_BYTES_MAX))


def _run_step(length: int) -> int:
    """Return what headers, read as one number, grow by in a run: `length` in `seq`, one in `ts`."""
    return (length << _SEQ_SHIFT) + (1 << _TS_SHIFT)


class Session:
    """One stream between two nodes. Made by `Endpoint.connect`, or by a peer and posted as `Accepted`.

    The application calls `send`, `read`, `finish` and `abort`; the endpoint calls the rest.
    """

    keepalive = c.KEEPALIVE  # seconds of silence before the peer is asked

    def __init__(
        self, endpoint: "Endpoint", peer: bytes, stream: int, port: int, *,
        opener: bool, isn: int, peer_isn: int, mtu: int, now: float,
    ) -> None:  # fmt: skip
        self.peer = peer
        self.stream = stream
        self.port = port
        self.opener = opener
        self.state = State.SYN_SENT if opener else State.ESTABLISHED
        self.closed: Optional[End] = None  # not the event, whose session would hold itself: freed late
        self.stalled = False  # whether the peer left the last few probes unanswered
        self.heard = now  # when the peer was last heard
        self.sender = Sender(segment_size(mtu), endpoint.send_pool)
        self.receiver = Receiver(segment_size(mtu), endpoint.receive_pool)
        self.timer_at: Optional[float] = None  # for which the endpoint keeps an entry in its heap
        self.pending_events: Set[Any] = set()  # kinds of event that wait to be fetched
        self._endpoint = endpoint
        self._isn = isn
        self._peer_isn = peer_isn
        self._path_mss = segment_size(mtu)
        self._peer_mss = c.MSS_MAX
        self._confirmed = not opener  # whether the peer is known to hold state: it said something but SYN-ACK
        self._opened = self._progress = now
        self._cwnd_limited = False  # whether the congestion window ended the last burst
        self._send_blocked = False  # whether `send` had to refuse bytes
        self._burst_credit = c.BURST
        self._heard_since_burst = False  # whether there was a stimulus to send another burst
        # What the next call of `transmit` owes
        self._ack_now = False
        self._push_now = opener
        self._probe_now = False
        self._echo = 0  # stamp of the latest data or PUSH segment not acknowledged yet
        self._unacknowledged = 0  # data segments since our last acknowledgement
        # Timers: absolute, None where not set
        self._syn_at: Optional[float] = None
        self._ack_at: Optional[float] = None
        self._probe_at: Optional[float] = None
        self._keepalive_at = now + self.keepalive
        self._backoff = 0  # doublings of the probe timeout
        self._fruitless = 0  # probes since the last progress
        self._silent = 0  # probes since the peer was last heard
        self._keepalives = 0
        self._newest_ts = 0  # of the peer; unwrapped
        self._small_ts = 0  # stamp of the small probe beside the last big one
        self._black_hole = 0  # rounds in which the small one was answered and the big one was not
        self._known_ack = self._known_window = -1
        self._crc_seed = zlib.crc32(peer + endpoint.address)  # of what the peer sends
        self._own_crc_seed = zlib.crc32(endpoint.address + peer)
        self._challenges = TokenBucket(c.CHALLENGES_PER_SECOND, c.CHALLENGES_PER_SECOND)

    # The application's side

    @property
    def written(self) -> int:
        """Bytes taken by `send`."""
        return self.sender.end - 1

    @property
    def acked(self) -> int:
        """Bytes that the peer's node holds."""
        return min(self.sender.una, self.sender.end) - 1

    @property
    def writable(self) -> int:
        """Bytes that `send` would take now."""
        return self.sender.room if self.closed is None and self.sender.fin_at is None else 0

    @property
    def readable(self) -> int:
        """Bytes that `read` would return now."""
        return len(self.receiver.unread)

    @property
    def at_eof(self) -> bool:
        """Whether the peer has finished and everything was read."""
        return self.receiver.finished and not self.receiver.unread

    def send(self, data: Union[bytes, memoryview]) -> int:
        """Take as many bytes as fit the send buffer and return how many. ValueError after `finish`."""
        if self.sender.fin_at is not None:
            raise ValueError("the stream is finished: nothing more can be sent")
        if self.closed is not None:
            return 0
        taken = self.sender.write(data)
        self._send_blocked = taken < len(data)
        if taken:
            self._endpoint.schedule(self)
        return taken

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes in order; empty if there are none now."""
        data = self.receiver.unread.take(count)
        if not data or self.closed is not None:
            return data
        self.receiver.size.on_passed(len(data), trip=self.sender.round_trip.minimum or 0.0, now=self._endpoint.now)
        if self.receiver.wants_update(self.sender.congestion.mss):
            self._ack_now = True
            self._endpoint.schedule(self)
        return data

    @property
    def presses(self) -> bool:
        """Whether the peer waits for an acknowledgement that the application's answer should not hold up."""
        return self._ack_now and (self._unacknowledged != 1 or bool(self.receiver.ranges))

    def finish(self) -> None:
        """End our half: the peer sees the end of the stream after the last byte. Its half stays open."""
        if self.closed is None and self.sender.fin_at is None:
            self.sender.fin_at = self.sender.end
            if self.state is not State.SYN_SENT:
                self._move("finish")
            self._endpoint.schedule(self)

    def abort(self) -> None:
        """End both halves at once with a reset; what was not delivered is lost."""
        if self.closed is None:
            if self.state is not State.SYN_SENT:
                self._endpoint.send_unowned(self.peer, *self._encode(c.FLAG_RST, self.sender.nxt))
            self._close("aborted")

    # A segment arrives (RFC 9293 section 3.10.7): short steps, each of which may refuse it by SegmentError

    def receive(self, segment: Segment, *, now: float) -> None:
        """Take a segment that the endpoint found to be this stream's. Raise SegmentError if it must be dropped."""
        if self.state is State.SYN_SENT:
            self._receive_in_syn_sent(segment, now)
            return
        self._check_syn(segment, now)
        self._check_reset(segment, now)
        if self.closed is not None:
            return
        self._check_tag(segment)
        self._check_age(segment, now)
        self._hear(now)
        self._take_acknowledgement(segment, now)
        self._take_data(segment, now)
        self._finish_close()

    def _receive_in_syn_sent(self, segment: Segment, now: float) -> None:
        """Section 3.10.7.3: only what answers our SYN counts."""
        answers = segment.flags & c.FLAG_ACK and segment.tag == self._isn and segment.ack == (self._isn + 1) & _MASK
        if not answers or not segment.flags & (c.FLAG_SYN | c.FLAG_RST):
            raise SegmentError("no answer to SYN")
        if segment.flags & c.FLAG_RST:
            self._close("refused")
            return
        self._peer_isn = segment.seq
        self._move("SYN-ACK")
        if self.sender.fin_at is not None:
            self._move("finish")
        self._begin(segment, now)
        self._syn_at = None
        self._backoff = 0
        self._push_now = True  # the cookie goes back at once, with the first data if there is some

    def accept(self, segment: Segment, *, now: float) -> None:
        """Begin as the responder, with the segment that brought the cookie back."""
        self._begin(segment, now)
        self._tell(Accepted)
        self._ack_now = True
        self.receive(segment, now=now)

    def _begin(self, segment: Segment, now: float) -> None:
        """Take from the peer's first segment what the handshakes of both sides have in common."""
        self._newest_ts = self._echo = segment.ts
        self.heard = now
        self._sample(self._unwrap_echo(segment.echo), now)
        self._take_window(1, segment.window)
        if segment.segment_size is not None:
            self._peer_mss = max(c.MSS_MIN, segment.segment_size)
            self._resize()

    def _check_syn(self, segment: Segment, now: float) -> None:
        """Fourth check: a SYN inside a stream is answered by a challenge (RFC 5961 section 4)."""
        if segment.flags & c.FLAG_SYN:
            self._challenge(now)
            raise SegmentError("SYN in a stream")

    def _check_reset(self, segment: Segment, now: float) -> None:
        """Second check: a reset counts if it proves that its sender saw our segments (RFC 5961 section 3)."""
        if not segment.flags & c.FLAG_RST:
            return
        receiver = self.receiver
        seq = unwrap(segment.seq - self._peer_isn, receiver.nxt)
        if segment.flags & c.FLAG_ACK:  # a live peer aborts
            if segment.tag != self._isn or not receiver.nxt <= seq <= receiver.edge:
                raise SegmentError("reset")
            self._close("reset by peer" if self._confirmed else "busy")
        else:  # a node that does not know the stream reflects our own numbers
            if segment.tag != self._peer_isn or not receiver.nxt - receiver.size.bytes <= seq <= receiver.nxt:
                raise SegmentError("reset")
            expired = not self._confirmed and now - self.heard >= c.COOKIE_SLOT  # the cookie, before it came back
            self._close("finished" if self._only_fin_missing() else "no answer" if expired else "peer restarted")

    def _check_tag(self, segment: Segment) -> None:
        """Third check: the sender knows our ISN (the verification tag of RFC 9260 section 8.5)."""
        if segment.tag != self._isn:
            raise SegmentError("tag")

    def _check_age(self, segment: Segment, now: float) -> None:
        """First check, part one: drop what an older lap of the numbers left on the path (PAWS, RFC 7323 section 5)."""
        ts = unwrap(segment.ts, self._newest_ts)
        if now - self.heard > c.PAWS_IDLE_SECONDS:
            self._newest_ts = ts
        elif ts < self._newest_ts - c.PAWS_SECONDS * 1e6:
            raise SegmentError("old")
        self._newest_ts = max(self._newest_ts, ts)

    def _hear(self, now: float) -> None:
        """Note that the peer is alive."""
        self.heard = now
        self._silent = self._keepalives = 0
        self._keepalive_at = now + self.keepalive
        self._burst_credit = self._burst_credit + c.BURST if self._heard_since_burst else c.BURST
        self._heard_since_burst = True
        if self.sender.idle:
            self._progress = now  # the answered probe of a closed window is progress
        if self.stalled:
            self.stalled = False
            self._tell(Resumed)
        if not self._confirmed:
            self._confirmed = True
            self._push_now = False
            self._backoff = 0
            self._tell(Connected)

    def _take_acknowledgement(self, segment: Segment, now: float) -> None:
        """Fifth check: the ACK field, the window and the SACK blocks."""
        sender = self.sender
        ack = unwrap(segment.ack - self._isn, sender.una)
        if not max(1, sender.una - sender.max_window) <= ack <= sender.nxt:
            self._challenge(now)
            raise SegmentError("ack")
        self._known_ack, self._known_window = segment.ack, segment.window
        una = sender.una
        sacks = [Range(*(unwrap(edge - self._isn, una) for edge in block)) for block in segment.sacks]
        self._acknowledge(ack, segment.window, segment.echo, sacks, now)

    def _acknowledge(self, ack: int, window: int, wire_echo: int, sacks: Sequence[Range], now: float) -> None:
        sender = self.sender
        self._take_window(ack, window)
        una = sender.una
        echo = self._unwrap_echo(wire_echo)
        delivered = sender.acknowledge(ack, sacks, echo=echo)
        if delivered:
            self._sample(echo, now)
            self._note_progress(delivered, now)
            self._detect_losses(now)
        elif echo and echo == self._small_ts:
            self._suspect_black_hole(now)
        if sender.una > una:  # that of the FIN alone, too: who waits for the peer to hold everything must wake
            self._tell(Acked)

    def _take_window(self, ack: int, window: int) -> None:
        sender = self.sender
        sender.max_window = max(sender.max_window, window)
        if ack + window > sender.edge:
            if sender.idle:  # it was closed: what waited goes out now, not with the next probe
                self._backoff = 0
                self._probe_at = None
            sender.edge = ack + window

    def _note_progress(self, delivered: int, now: float) -> None:
        """Something was newly acknowledged: grow the window, start the probe timer anew."""
        sender = self.sender
        if self._fruitless >= c.PERSISTENT_PROBES:
            sender.congestion.collapse()
        elif self._cwnd_limited:
            sender.congestion.on_delivered(delivered, gently=sender.round_trip.pauses_slow_start)
        sender.size.on_passed(delivered, trip=sender.round_trip.minimum or 0.0, now=now)
        self._burst_credit += delivered // sender.congestion.mss  # what has left the path may be replaced at once
        self._progress = now
        self._backoff = self._fruitless = self._black_hole = 0
        self._probe_at = now + sender.round_trip.probe_timeout(0) if not sender.idle else None
        if self._send_blocked and sender.room:
            self._send_blocked = False
            self._tell(Writable)
        if sender.finished and self.state in (State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK):
            self._move("ack of FIN")

    def _detect_losses(self, now: float) -> None:
        if self.sender.detect_losses(now=now):
            self.sender.congestion.on_loss(queueing=self.sender.round_trip.shows_queue)

    def _take_data(self, segment: Segment, now: float) -> None:
        """Seventh and eighth check: the segment text and the FIN; with the first check's part two, the window.

        A segment without data needs no place in the window: its tag has proved it, and to answer an old pure
        acknowledgement would make acknowledgements answer each other.
        """
        fin = bool(segment.flags & c.FLAG_FIN)
        if segment.flags & c.FLAG_PUSH:
            self._ack_now = True
        elif not segment.payload and not fin:
            return
        self._echo = max(self._echo, unwrap(segment.ts, self._newest_ts))
        if segment.payload or fin:
            self._store(segment, fin, now)

    def _store(self, segment: Segment, fin: bool, now: float) -> None:
        receiver = self.receiver
        start = unwrap(segment.seq - self._peer_isn, receiver.nxt)
        orderly = start == receiver.nxt and start + len(segment.payload) <= receiver.edge and not receiver.ranges
        readable, ended = len(receiver.unread), receiver.finished
        taken = receiver.take(start, segment.payload, fin)
        at_once = fin or not taken or not orderly or bool(receiver.ranges)
        self._owe_acknowledgement(1, now, at_once=at_once)
        if len(receiver.unread) > readable:
            self._tell(Readable)
        if receiver.finished and not ended:
            self._ack_now = True
            self._move("FIN")
            self._tell(EndOfStream)
        if not taken:
            raise SegmentError("contradiction")

    def _owe_acknowledgement(self, count: int, now: float, *, at_once: bool) -> None:
        """Note so many more data segments: the ACK is due at once, by their number, or after ACK_DELAY."""
        self._unacknowledged += count
        if at_once or self._unacknowledged >= c.ACK_EVERY:
            self._ack_now = True
        elif self._ack_at is None:
            self._ack_at = now + c.ACK_DELAY

    def _challenge(self, now: float) -> None:
        """Send a rate-limited challenge ACK, from which an honest peer learns our state (RFC 5961 section 5)."""
        if self._challenges.take(now=now):
            self._ack_now = True

    def _unwrap_echo(self, wire_echo: int) -> int:
        """Return the stamp that is echoed, 0 for none."""
        return unwrap(wire_echo, self._endpoint.last_stamp) if wire_echo else 0

    def _sample(self, echo: int, now: float) -> None:
        """Take a round-trip sample, unless the echo is none, was never sent or is too old to be believed."""
        if 0 < echo <= self._endpoint.last_stamp and 0 <= now - echo / 1e6 <= c.RTT_MAX:
            self.sender.round_trip.sample(now - echo / 1e6)

    def _only_fin_missing(self) -> bool:
        """Whether everything but the acknowledgement of our FIN is done."""
        return self.receiver.finished and self.sender.una == self.sender.fin_at

    def _finish_close(self) -> None:
        """Both FINs are done: acknowledge the peer's, and linger (TIME-WAIT) without a session."""
        if self.state is State.TIME_WAIT:
            if self._ack_now:
                self._endpoint.send_unowned(self.peer, *self._encode(0, self.sender.nxt))
            self._close("finished")

    # Timers

    def next_deadline(self) -> Optional[float]:
        """Return when `tick` has something to do (absolute seconds), or None."""
        if self.closed is not None:
            return None
        if self.state is State.SYN_SENT:
            return self._syn_at
        deadline = self._keepalive_at
        for at in (self._ack_at, self._probe_at, self.sender.reorder_at):
            if at is not None and at < deadline:
                deadline = at
        return deadline

    def tick(self, *, now: float) -> None:
        """Run the timers that are due; what they owe leaves with `transmit`."""
        if self.state is State.SYN_SENT:
            self._on_syn_timeout(now)
            return
        if self._ack_at is not None and self._ack_at <= now:
            self._ack_at = None
            self._ack_now = True
        if self.sender.reorder_at is not None and self.sender.reorder_at <= now:
            self._burst_credit = c.BURST
            self._detect_losses(now)
        if self._probe_at is not None and self._probe_at <= now:
            self._on_probe_timeout(now)
        if self._keepalive_at <= now:
            self._on_keepalive(now)

    def _on_syn_timeout(self, now: float) -> None:
        self._syn_at = None
        if now - self._opened >= c.SYN_TIMEOUT:
            self._close("no answer")
        self._push_now = True

    def _on_probe_timeout(self, now: float) -> None:
        """No answer in time: probe, and after long enough give up (RFC 9002 section 6.2, RFC 1122 section 4.2.3.5)."""
        self._backoff += 1
        self._fruitless += 1
        self._silent += 1
        self._probe_at = now + self.sender.round_trip.probe_timeout(self._backoff)
        self._probe_now = True
        if self._silent > c.STALLED_PROBES and self._only_fin_missing():
            self._close("finished")  # the peer's process ended right after its last acknowledgement
        elif now - self._progress >= c.USER_TIMEOUT and self._fruitless > c.PROBES_MIN:
            self._close("timed out")
        elif self._silent >= c.STALLED_PROBES and not self.stalled:
            self.stalled = True
            self._tell(Stalled)

    def _on_keepalive(self, now: float) -> None:
        """Nothing was heard for long: ask whether the peer is there (RFC 9293 section 3.8.4)."""
        if now - self.heard >= c.USER_TIMEOUT and self._keepalives >= c.KEEPALIVE_PROBES_MIN:
            self._close("peer silent")
            return
        if self._probe_at is None:  # else the probes of the data ask already
            self._keepalives += 1
            self._push_now = True
        interval = min(self.keepalive * 2.0**self._keepalives, c.KEEPALIVE_MAX)
        last_chance = self.heard + c.USER_TIMEOUT
        self._keepalive_at = min(now + interval, last_chance) if last_chance > now else now + interval

    # What to send

    def transmit(self, *, now: float) -> List[Parts]:
        """Return the segments that may leave now."""
        if self.closed is not None:
            return []
        if self.state is State.SYN_SENT:
            return [self._syn(now)] if self._push_now else []
        out = self._probes(now) if self._probe_now else []
        out += self._burst_of_data(now)
        if self._push_now and not out:
            out.append(self._encode(c.FLAG_PUSH, self._empty_position()))
        elif self._ack_now:
            out.append(self._encode(0, self._empty_position()))
        self._push_now = False
        self._heard_since_burst = False
        self._set_probe_timer(now)
        return out

    def _syn(self, now: float) -> Parts:
        self._push_now = False
        interval = min(c.RTO_INITIAL * 2.0 ** min(self._backoff, 10), c.SYN_INTERVAL_MAX)
        self._backoff += 1
        self._syn_at = min(now + interval, self._opened + c.SYN_TIMEOUT)
        segment = Segment(
            self.stream, c.FLAG_SYN | c.FLAG_INIT, self.port, self._isn, window=self.receiver.edge - 1,
            ts=self._endpoint.stamp() & _MASK, segment_size=self._path_mss,
        )  # fmt: skip
        return encode_segment(segment, self._endpoint.address, self.peer), b""

    def _burst_of_data(self, now: float) -> List[Parts]:
        """Send lost ranges, then new data, as far as congestion window, peer's window and burst limit go.

        The last segment asks for an acknowledgement at once where nothing follows it, or too little to make the
        peer acknowledge by count.
        """
        sender = self.sender
        if sender.idle and not self._heard_since_burst:
            self._burst_credit = c.BURST
        launched: List[Union[SentRange, SegmentRun]] = []
        while self._burst_credit > 0 and (sender.unsent or sender.lost):
            stop = self._run_stop()
            if stop > sender.nxt:
                launched.append(self._send_run(stop, now))
                continue
            sent = self._next_range()
            if sent is None:
                break
            self._record_sent(sent, now)
            launched.append(sent)
            self._burst_credit -= 1
        if not launched:
            return []
        push = c.FLAG_PUSH if not sender.unsent or sender.segments_in_flight < c.PUSH_BELOW else 0
        out: List[Parts] = []
        for piece in launched:
            flags = push if piece is launched[-1] else 0
            out += (
                self._encode_run(piece, flags) if isinstance(piece, SegmentRun) else [self._encode_range(piece, flags)]
            )
        return out

    def _next_range(self) -> Optional[SentRange]:
        sender = self.sender
        if not self._confirmed and not sender.idle:
            return None  # nothing but position 1 may reach a peer that has no state yet
        sent = sender.next_lost() or sender.next_new()
        self._cwnd_limited = (
            sent is not None
            and sender.bytes_in_flight > 0
            and sender.bytes_in_flight + sent.stop - sent.start > sender.congestion.window
        )
        return None if self._cwnd_limited else sent

    def _probes(self, now: float) -> List[Parts]:
        """Send the head of the gap, and new data or the tail, whatever the congestion window; mark nothing lost."""
        self._probe_now = False
        sender = self.sender
        head = sender.split_to_mss(sender.sent[0]) if not sender.idle else None
        out = [self._send_range(head, c.FLAG_PUSH, now)] if head is not None else []
        if self._confirmed:
            second = sender.next_new(forced=head is None) or sender.tail()
            if second is not None:  # the tail may be the head: two copies, one of which may get through
                out.append(self._send_range(second, c.FLAG_PUSH, now))
        if not out:
            out.append(self._encode(c.FLAG_PUSH, self._empty_position()))
        elif self._confirmed and self._fruitless > 1 and head is not None and head.length > c.MSS_BLACK_HOLE_MIN:
            out.append(self._encode(c.FLAG_PUSH, self._empty_position()))
            self._small_ts = self._endpoint.last_stamp
        return out

    def _send_range(self, sent: SentRange, flags: int, now: float) -> Parts:
        self._record_sent(sent, now)
        return self._encode_range(sent, flags)

    def _record_sent(self, sent: SentRange, now: float) -> None:
        self._note_launch(now)
        self.sender.on_sent(sent, ts=self._endpoint.stamp(), now=now)

    def _note_launch(self, now: float) -> None:
        if self.sender.idle:
            self._progress = now
        self._probe_at = now + self.sender.round_trip.probe_timeout(self._backoff)

    def _set_probe_timer(self, now: float) -> None:
        """Keep the timer running while anything waits for the peer: an answer, a window, the end of the handshake."""
        if self.sender.idle and not self.sender.unsent and self._confirmed:
            self._probe_at = None
        elif self._probe_at is None:
            self._probe_at = now + self.sender.round_trip.probe_timeout(self._backoff)

    def _empty_position(self) -> int:
        return self.sender.nxt if self._confirmed else 1

    def _encode_range(self, sent: SentRange, flags: int) -> Parts:
        payload = self.sender.payload(sent)
        flags |= c.FLAG_DATA if payload else 0
        flags |= c.FLAG_FIN if self.sender.has_fin(sent) else 0
        return self._encode(flags, sent.start, payload, sent.ts)

    def _encode(self, flags: int, position: int, payload: bytes = b"", ts: Optional[int] = None) -> Parts:
        """Return a segment from `position` on. Every one acknowledges, so it settles what acknowledgement is owed."""
        receiver, mss = self.receiver, self.sender.congestion.mss
        if self._confirmed and not receiver.ranges and not flags & c.FLAG_RST:
            header = self._plain_header(flags, len(payload), position, self._endpoint.stamp() if ts is None else ts)
            crc = zlib.crc32(payload, zlib.crc32(header, self._own_crc_seed))
            self._settle_acknowledgement()
            return header[:_CRC_AT] + crc.to_bytes(4, "big"), payload
        limit = c.SACKS_WITH_DATA if payload else min(c.SACKS_MAX, (mss + _SACK_OPTION_BYTES - 2) // _BLOCK.size)
        sacks = [] if flags & c.FLAG_RST else receiver.sacks(limit)
        segment = Segment(
            self.stream, flags | c.FLAG_ACK | (c.FLAG_INIT if self.opener else 0), self.port,
            (self._isn + position) & _MASK, (self._peer_isn + receiver.nxt) & _MASK,
            0 if flags & c.FLAG_RST else receiver.window(mss), self._peer_isn,
            (self._endpoint.stamp() if ts is None else ts) & _MASK, self._echo & _MASK,
            None if self._confirmed else self._path_mss,
            tuple(Range(*((self._peer_isn + edge) & _MASK for edge in block)) for block in sacks), payload,
        )  # fmt: skip
        self._settle_acknowledgement()
        return encode_segment(segment, self._endpoint.address, self.peer), b""

    def _plain_header(self, flags: int, length: int, position: int, ts: int) -> bytes:
        """Return the header of a segment without options; its checksum is still zero."""
        return _HEADER.pack(
            self.stream, flags | c.FLAG_ACK | (c.FLAG_INIT if self.opener else 0), c.STREAM_HEADER_BYTES // 4,
            self.port, length, (self._isn + position) & _MASK, (self._peer_isn + self.receiver.nxt) & _MASK,
            self.receiver.window(self.sender.congestion.mss), self._peer_isn, ts & _MASK, self._echo & _MASK, 0,
        )  # fmt: skip

    def _settle_acknowledgement(self) -> None:
        self._ack_now = False
        self._ack_at = None
        self._echo = self._unacknowledged = 0

    # The path

    def path_changed(self, mtu: Optional[int], *, now: float) -> None:
        """Take a new MTU of the path (bytes of a frame), if known, and ask at once for what is outstanding."""
        if mtu is not None:
            self._path_mss = segment_size(mtu)
            self._resize()
        if self.state is State.SYN_SENT:
            self._syn_at = now
        elif self._probe_at is not None:
            self._backoff = 0
            self._burst_credit = c.BURST
            self._probe_now = True
            self._probe_at = now + self.sender.round_trip.probe_timeout(0)

    def _resize(self) -> None:
        self.sender.resize(min(self._path_mss, self._peer_mss))

    def _suspect_black_hole(self, now: float) -> None:
        """The small probe was answered and the big one was not; often enough, the path carries less than it said."""
        mss = self.sender.congestion.mss
        self._small_ts = self._backoff = 0  # the peer is there: no need to wait ever longer
        self._probe_at = now + self.sender.round_trip.probe_timeout(0)
        self._black_hole += 1
        if self._black_hole >= c.BLACK_HOLE_ROUNDS and mss > c.MSS_BLACK_HOLE_MIN:
            self._black_hole = 0
            self._path_mss = max(c.MSS_BLACK_HOLE_MIN, mss // 2)
            self._resize()

    # State

    def _move(self, what: str) -> None:
        self.state = MOVES[self.state][what]

    def _tell(self, kind: Any) -> None:
        self._endpoint.post_event(self, kind)

    def _close(self, reason: str) -> None:
        self.closed = End(reason, self.written, self.acked)
        lingering = None
        if reason == "finished":
            seq, ack = self._isn + self.sender.nxt, self._peer_isn + self.receiver.nxt
            lingering = TimeWait(self.port, self._isn, self._peer_isn, seq & _MASK, ack & _MASK)
        self.sender.discard()
        if self.state is not State.TIME_WAIT:
            self.state = State.CLOSED
        self._tell(Closed)
        self._endpoint.forget(self, lingering)

    # Fast paths (skip on first reading): many segments at once, equal to the general paths, as tests show

    def receive_expected(self, batch: Sequence[bytes], first: int, at: int, *, now: float) -> int:
        """Header prediction (Jacobson, 1990): take data that follows the last, or acknowledgements, and nothing else.

        Those of `batch` from `first` on that begin alike, each at offset `at`; return how many. The general path comes
        to the same in five times the time; but of acknowledgements that came together the last one counts.
        """
        receiver, crc32, unpack, seed = self.receiver, zlib.crc32, _HEADER.unpack_from, self._crc_seed
        if receiver.ranges or receiver.fin_at is not None or self.state is State.SYN_SENT:
            return 0
        known, crc_at, body = at + _EXPECTED_BYTES, at + _CRC_AT, at + c.STREAM_HEADER_BYTES
        prefix, nxt, shift, newest = batch[first][at:known], receiver.nxt, self._peer_isn, self._newest_ts
        tag, known_ack, known_window = self._isn, self._known_ack, self._known_window
        una, flying = (tag + self.sender.una) & _MASK, self.sender.nxt - self.sender.una
        with_data, limit, size, known_echo = bool(prefix[2] & c.FLAG_DATA), receiver.edge - nxt, 0, 0
        pieces: List[bytes] = []
        while first + len(pieces) < len(batch):
            data = batch[first + len(pieces)]
            if len(data) < body or data[at:known] != prefix:
                break
            _, _, _, _, length, seq, ack, window, to, ts, echo, crc = unpack(data, at)
            payload = data[body : body + length]
            age = (ts - newest) & _MASK
            if (
                seq != (shift + nxt + size) & _MASK
                or to != tag
                or not 0 < age < 0x80000000
                or length != len(payload)
                or (length > 0) is not with_data
                or size + length > limit
                or crc32(payload, crc32(data[at:crc_at] + _NO_CRC, seed)) != crc
            ):
                break
            if ack != known_ack or window != known_window or echo:
                if (ack - una) & _MASK > flying:
                    break
                known_ack, known_window, known_echo = ack, window, echo or known_echo
            pieces.append(payload)
            followers = self._take_followers(pieces, batch, first, at, (limit - size) // length) if with_data else 0
            size += length * (1 + followers)
            newest += age + followers
        if pieces:
            self._acknowledge_expected(newest, known_ack, known_window, known_echo, now)
            if with_data:
                self._store_expected(pieces, bool(prefix[2] & c.FLAG_PUSH), now)
        return len(pieces)

    def _take_followers(self, pieces: List[bytes], batch: Sequence[bytes], first: int, at: int, most: int) -> int:
        """Add to `pieces` the payloads that left in one run with the last of them, `most` with it; return how many.

        One comparison of its header checks each: it is `_run_step` more than that of the one before.
        """
        index = first + len(pieces)
        if index == len(batch):
            return 0
        length, body = len(pieces[-1]), at + c.STREAM_HEADER_BYTES
        stop, crc32, seed = body + length, zlib.crc32, self._crc_seed
        number, step = int.from_bytes(batch[index - 1][at:body], "big"), _run_step(length)
        number = number >> _TS_SHIFT << _TS_SHIFT  # without the checksum, and the echo, which only the first one has
        for data in itertools.islice(batch, index, index - 1 + most):
            number += step
            payload = data[body:stop]
            crc = crc32(payload, crc32(number.to_bytes(c.STREAM_HEADER_BYTES, "big"), seed))
            if data[at:body] != (number | crc).to_bytes(c.STREAM_HEADER_BYTES, "big") or len(payload) != length:
                break
            pieces.append(payload)
        return first + len(pieces) - index

    def _acknowledge_expected(self, newest_ts: int, ack: int, window: int, echo: int, now: float) -> None:
        self._newest_ts = newest_ts
        self._hear(now)
        if echo or ack != self._known_ack or window != self._known_window:
            self._known_ack, self._known_window = ack, window
            self._acknowledge(unwrap(ack - self._isn, self.sender.una), window, echo, (), now)
        self._endpoint.schedule(self)

    def _store_expected(self, pieces: List[bytes], push: bool, now: float) -> None:
        receiver = self.receiver
        receiver.nxt += sum(map(len, pieces))
        receiver.unread.extend(pieces)
        self._echo = self._newest_ts
        self._owe_acknowledgement(len(pieces), now, at_once=push)
        self._tell(Readable)

    def _run_stop(self) -> int:
        """Return up to where new data may leave at once, cut as `next_new` would: full segments, and the last of all.

        A last one that carries the FIN too is left to `next_new`, as is what waits for a larger window.
        """
        sender = self.sender
        nxt, mss = sender.nxt, sender.congestion.mss
        if not self._confirmed or sender.lost:
            return nxt
        left = sender.end - nxt
        room = min(
            left, sender.edge - nxt, int(sender.congestion.window) - sender.bytes_in_flight, self._burst_credit * mss
        )
        if room == left and sender.fin_at is None:
            return sender.end
        return nxt + (room - (room == left)) // mss * mss

    def _send_run(self, stop: int, now: float) -> SegmentRun:
        self._cwnd_limited = False
        self._note_launch(now)
        sender = self.sender
        mss = sender.congestion.mss
        count = -((sender.nxt - stop) // mss)
        self._burst_credit -= count
        return sender.on_run_sent(stop, mss, ts=self._endpoint.stamp(count), now=now)

    def _encode_run(self, run: SegmentRun, last_flags: int) -> List[Parts]:
        """Return segments without options: `_encode_range` for many.

        Their headers, read as one number, grow by `_run_step` from one to the next: `seq` must not wrap, and `ts` does
        not (see `stamp`).
        """
        sender, receiver = self.sender, self.receiver
        seq = (self._isn + run.start) & _MASK
        if receiver.ranges or seq + run.stop - run.start > _MASK:
            segments = run.segments()
            return [self._encode_range(sent, last_flags if sent is segments[-1] else 0) for sent in segments]
        header = self._plain_header(c.FLAG_DATA, run.length, run.start, run.ts)
        number, plain = int.from_bytes(header, "big"), _run_step(run.length)
        step = plain - ((self._echo & _MASK) << _ECHO_SHIFT)  # only the first one has an echo
        crc32, seed = zlib.crc32, self._own_crc_seed
        payloads = sender.payloads(run)
        out: List[Parts] = []
        for left, payload in enumerate(payloads, 1 - len(payloads)):
            if not left:
                number += (last_flags << _FLAGS_SHIFT) - ((run.length - len(payload)) << _LENGTH_SHIFT)
            crc = crc32(payload, crc32(number.to_bytes(c.STREAM_HEADER_BYTES, "big"), seed))
            out.append(((number | crc).to_bytes(c.STREAM_HEADER_BYTES, "big"), payload))
            number += step
            step = plain
        self._settle_acknowledgement()
        return out


# --- All streams of a node ------------------------------------------------------------------------------------------


class Key(NamedTuple):
    """The name of a stream: both directions may use the same number, and a wrong port is another stream."""

    peer: bytes
    stream: int
    port: int
    opener: bool  # whether this side opened it


def _expected_prefixes(key: Key) -> List[Tuple[bytes, bytes]]:
    """Return where segments of the stream come from and how they begin: plain data, its end, an acknowledgement."""
    direction = 0 if key.opener else c.FLAG_INIT
    return [
        (
            key.peer,
            struct.pack(">HBBH", key.stream, c.FLAG_ACK | flags | direction, c.STREAM_HEADER_BYTES // 4, key.port),
        )
        for flags in (c.FLAG_DATA, c.FLAG_DATA | c.FLAG_PUSH, 0)
    ]


class TimeWait(NamedTuple):
    """What is left of a stream in TIME-WAIT: enough to acknowledge a repeated FIN. Numbers as on the wire."""

    port: int
    isn: int
    peer_isn: int
    seq: int
    ack: int


class Endpoint:
    """All streams of one node: which segment is whose, the stateless handshake, resets, limits.

    Drive it so: wait until `next_deadline` or a frame; take `now` once; `receive` every frame that is there; let the
    application read and write; send what `segments_to_send` returns. Frames come before timers, so that a process
    that was stopped does not take its own silence for the peer's.
    """

    def __init__(self, address: bytes, *, rng: Any, mtu: int = c.ETHERNET_MTU) -> None:
        """`rng` offers getrandbits, unguessable in earnest; `mtu` is the largest frame of the interface in bytes."""
        self.address = address
        self.sessions: Dict[Key, Session] = {}
        self.drops: Counter[str] = Counter()
        self.last_stamp = 0
        self.now = 0.0  # as it was last told
        self.send_pool, self.receive_pool = BufferPool(), BufferPool()
        self.events: Deque[Tuple[Session, Any]] = deque()  # for `next_event`
        self._rng = rng
        self._mtu = mtu
        self._path_mtus: OrderedDict[bytes, int] = OrderedDict()
        self._expecting: Dict[Tuple[bytes, bytes], Session] = {}
        self._ports: Set[int] = set()
        self._out: List[Tuple[bytes, List[Parts]]] = []
        self._touched: OrderedDict[Session, None] = OrderedDict()
        self._timers: List[Tuple[float, int, Session]] = []  # heap; entries that were superseded are skipped
        self._timer_count = 0  # breaks ties in the heap
        self._time_wait: OrderedDict[Key, Tuple[float, TimeWait]] = OrderedDict()  # with the time of its end
        self._secret = b""
        self._spent: OrderedDict[Tuple[bytes, int, int], float] = OrderedDict()  # cookies, with the time of their end
        self._renew_secret()
        self._syn_acks = TokenBucket(c.SYN_ACKS_PER_SECOND, c.SYN_ACKS_PER_SECOND)
        self._resets = TokenBucket(c.RESETS_PER_SECOND, c.RESETS_PER_SECOND)

    # The application's side

    def listen(self, port: int) -> None:
        """Accept streams to `port`. ValueError if it is listened on already."""
        if port in self._ports:
            raise ValueError(f"port {port} is in use")
        self._ports.add(port)

    def unlisten(self, port: int) -> None:
        """Refuse new streams to `port`; those that are open stay."""
        self._ports.discard(port)

    def connect(self, peer: bytes, port: int, *, now: float) -> Session:
        """Open a stream. ValueError for an address that cannot be a peer, RuntimeError if there are too many."""
        now = self._advance(now)
        if peer == self.address or len(peer) != c.ADDRESS_BYTES or not is_unicast(peer):
            raise ValueError("a stream needs the address of one other node")
        used = {key.stream for keys in (self.sessions, self._time_wait) for key in keys if key.peer == peer}
        if len(self.sessions) >= c.STREAMS_MAX or len(used) >= 0xFFFF:
            raise RuntimeError("too many streams")
        stream = self._rng.getrandbits(16)
        while stream == 0 or stream in used:
            stream = (stream + 1) & 0xFFFF
        isn = self._rng.getrandbits(32)
        session = self._add(Key(peer, stream, port, True), isn, 0, now)
        self.schedule(session)
        return session

    def next_event(self) -> Optional[Event]:
        """Return the oldest event not fetched yet, or None."""
        if not self.events:
            return None
        session, kind = self.events.popleft()
        session.pending_events.discard(kind)
        if kind is Acked:
            return Acked(session, session.acked)
        if kind is Stalled:
            return Stalled(session, session.heard)
        if session.closed is not None and kind is Closed:
            return Closed(session, *session.closed)
        event: Event = kind(session)
        return event

    # Driving

    def receive(self, origin: bytes, payload: bytes, *, now: float) -> None:
        """Take the payload of a STREAM frame for this node, padding and all. Never raises."""
        self.receive_all(origin, (payload,), now=now)

    def receive_all(self, origin: bytes, frames: Sequence[bytes], *, now: float, at: int = 0) -> None:
        """Take the payloads of STREAM frames from one node, in order of arrival; each begins at offset `at`."""
        now = self._advance(now)
        done = 0
        while done < len(frames):
            session = self._expecting.get((origin, frames[done][at : at + _EXPECTED_BYTES]))
            taken = session.receive_expected(frames, done, at, now=now) if session is not None else 0
            if not taken:
                self._receive_one(origin, frames[done][at:], now)
            done += taken or 1

    def _receive_one(self, origin: bytes, payload: bytes, now: float) -> None:
        try:
            if origin == self.address:
                raise SegmentError("own address")
            if not is_unicast(origin):
                raise SegmentError("origin")
            self._dispatch(origin, decode_segment(payload, origin, self.address), now)
        except SegmentError as error:
            self.drops[error.reason] += 1

    def _dispatch(self, peer: bytes, segment: Segment, now: float) -> None:
        key = Key(peer, segment.stream, segment.port, not segment.flags & c.FLAG_INIT)
        session = self.sessions.get(key)
        if session is not None:
            self.schedule(session)
            session.receive(segment, now=now)
        elif key in self._time_wait:
            self._receive_in_time_wait(key, segment, now)
        elif segment.flags & c.FLAG_RST:
            raise SegmentError("reset of no stream")
        elif segment.flags & c.FLAG_SYN:
            self._answer_syn(key, segment, now)
        elif key.opener or not self._accept(key, segment, now):
            self._reset_unknown(key, segment, now)

    def tick(self, *, now: float) -> None:
        """Run the timers that are due."""
        now = self._advance(now)
        for session in self._touched:
            self._set_timer(session)
        while self._timers and self._timers[0][0] <= now:  # none is late, some are early
            at = self._next_timer()
            if at is not None and at <= now:
                session = self._timers[0][2]
                session.tick(now=now)
                self.schedule(session)
        while self._time_wait and next(iter(self._time_wait.values()))[0] <= now:
            self._time_wait.popitem(last=False)

    def next_deadline(self) -> Optional[float]:
        """Return when `tick` has something to do (absolute seconds), or None."""
        deadlines = [at for at in (self._next_timer(),) if at is not None]
        if self._time_wait:
            deadlines.append(next(iter(self._time_wait.values()))[0])
        return min(deadlines) if deadlines else None

    def segments_to_send(self, *, now: float) -> List[Outgoing]:
        """Run the timers that are due and return what is to be sent."""
        return [Outgoing(peer, b"".join(parts)) for peer, burst in self.bursts_to_send(now=now) for parts in burst]

    def bursts_to_send(self, *, now: float) -> List[Tuple[bytes, List[Parts]]]:
        """Do the same, grouped by peer, in parts: what takes the same path is sent together."""
        self.tick(now=now)
        now = self.now
        out, self._out = self._out, []
        while self._touched:
            session, _ = self._touched.popitem(last=False)
            burst = session.transmit(now=now)
            if burst:
                out.append((session.peer, burst))
            self._set_timer(session)
        return out

    def path_changed(self, peer: bytes, *, now: float, mtu: Optional[int] = None) -> None:
        """A route to `peer` (re)appeared, with the MTU of its path in bytes, if known."""
        now = self._advance(now)
        if mtu is not None:
            self._path_mtus[peer] = mtu
            self._path_mtus.move_to_end(peer)
            if len(self._path_mtus) > c.DESTINATIONS_MAX:
                self._path_mtus.popitem(last=False)
        for session in [session for session in self.sessions.values() if session.peer == peer]:
            session.path_changed(mtu, now=now)
            self.schedule(session)

    # For sessions

    def schedule(self, session: Session) -> None:
        """Let the session transmit at the next opportunity."""
        self._touched[session] = None

    def post_event(self, session: Session, kind: Any) -> None:
        """Queue an event; those that only say "look again" wait once."""
        if kind not in (Readable, Writable, Acked):
            self.events.append((session, kind))
        elif kind not in session.pending_events:
            session.pending_events.add(kind)
            self.events.append((session, kind))

    def send_unowned(self, peer: bytes, header: bytes, payload: Union[bytes, memoryview] = b"") -> None:
        """Queue a segment that no session repeats."""
        self._out.append((peer, [(header, payload)]))

    def stamp(self, count: int = 1) -> int:
        """Return the time in microseconds, made strictly increasing, so that it also names the transmission.

        With `count`, the first of so many in a row.
        """
        first = max(int(self.now * 1e6), self.last_stamp + 1)
        if -first % (_MASK + 1) < count:  # on the wire zero says "none"
            first += count
        self.last_stamp = first + count - 1
        return first

    def forget(self, session: Session, ended: Optional[TimeWait]) -> None:
        """Take a closed session out of the table; keep what TIME-WAIT needs of it."""
        key = Key(session.peer, session.stream, session.port, session.opener)
        del self.sessions[key]
        session.sender.size.release()
        session.receiver.size.release()
        for prefix in _expected_prefixes(key):
            del self._expecting[prefix]
        if ended is not None:
            # a peer that did not see our FIN may be without a cable: it will ask, at the latest by its keepalive
            patience = c.LINGER if session.state is State.TIME_WAIT else c.USER_TIMEOUT
            self._time_wait[key] = (self.now + patience, ended)
            if len(self._time_wait) > c.LINGERING_MAX:
                self._time_wait.popitem(last=False)

    # The handshake

    def _answer_syn(self, key: Key, segment: Segment, now: float) -> None:
        """Answer a SYN without keeping anything: our ISN is a cookie that the peer will bring back."""
        if key.opener or segment.flags & c.FLAG_ACK:
            raise SegmentError("SYN-ACK of no stream")
        ack = (segment.seq + 1) & _MASK
        if key.port not in self._ports:
            self._refuse(key, 0, ack, now)
            return
        if not self._syn_acks.take(now=now):
            raise SegmentError("too many SYNs")
        cookie = self._cookie(key, segment.seq, int(now // c.COOKIE_SLOT))
        flags, mss = c.FLAG_SYN | c.FLAG_ACK, segment_size(self._mtu_to(key.peer))
        window = min(c.BUFFER_BYTES, c.BUFFER_BYTES_MIN + self.receive_pool.left)
        self._answer(key, flags, cookie, ack, segment.seq, window=window, echo=segment.ts, segment_size=mss)

    def _accept(self, key: Key, segment: Segment, now: float) -> bool:
        """Make a session if the segment brings a cookie of ours back; return False if it brings none."""
        slot = int(now // c.COOKIE_SLOT)
        peer_isn = (segment.seq - 1) & _MASK
        if segment.tag not in (self._cookie(key, peer_isn, slot), self._cookie(key, peer_isn, slot - 1)):
            return False
        if segment.ack != (segment.tag + 1) & _MASK:
            raise SegmentError("cookie")
        if (key.peer, key.stream, segment.tag) in self._spent:
            return False
        mine = sum(other.peer == key.peer for other in self.sessions)
        if key.port not in self._ports or mine >= c.STREAMS_PER_PEER or len(self.sessions) >= c.STREAMS_MAX:
            self._refuse(key, segment.ack, segment.seq, now)
            return True
        self._spend((key.peer, key.stream, segment.tag), now)
        session = self._add(key, segment.tag, peer_isn, now)
        self.schedule(session)
        session.accept(segment, now=now)
        return True

    def _cookie(self, key: Key, peer_isn: int, slot: int) -> int:
        """Return the ISN that stands for a half-open stream (RFC 4987 section 3.6, with a keyed BLAKE2s)."""
        numbers = struct.pack(">HHIQ", key.stream, key.port, peer_isn, slot & 0xFFFFFFFFFFFFFFFF)
        message = key.peer + self.address + numbers
        return int.from_bytes(hashlib.blake2s(message, key=self._secret, digest_size=4).digest(), "big")

    def _spend(self, cookie: Tuple[bytes, int, int], now: float) -> None:
        """Remember a cookie for as long as it is valid: a recorded handshake must not open a second stream."""
        while self._spent and next(iter(self._spent.values())) <= now:
            self._spent.popitem(last=False)
        if len(self._spent) >= c.COOKIES_MAX:
            self._renew_secret()
        self._spent[cookie] = now + 2 * c.COOKIE_SLOT

    def _renew_secret(self) -> None:
        self._secret = self._rng.getrandbits(256).to_bytes(32, "big")
        self._spent.clear()

    # Answers without a session

    def _answer(self, key: Key, flags: int, seq: int, ack: int, tag: int, **fields: Any) -> None:
        """Send a segment that no session repeats; it has a stamp unless `ts` says otherwise."""
        if "ts" not in fields:
            fields["ts"] = self.stamp() & _MASK
        flags |= c.FLAG_INIT if key.opener else 0
        segment = Segment(key.stream, flags, key.port, seq, ack, tag=tag, **fields)
        self.send_unowned(key.peer, encode_segment(segment, self.address, key.peer))

    def _limit_resets(self, now: float) -> None:
        if not self._resets.take(now=now):
            raise SegmentError("too many resets")

    def _refuse(self, key: Key, seq: int, ack: int, now: float) -> None:
        """Refuse a stream with a reset: no program listens on its port, or there are too many streams."""
        self._limit_resets(now)
        self._answer(key, c.FLAG_RST | c.FLAG_ACK, seq, ack, (ack - 1) & _MASK)

    def _reset_unknown(self, key: Key, segment: Segment, now: float) -> None:
        """Answer a segment of no stream by its own numbers, which only a stream that sent them believes."""
        self._limit_resets(now)
        self._answer(key, c.FLAG_RST, segment.ack, 0, segment.tag, ts=0)
        raise SegmentError("no such stream")

    def _receive_in_time_wait(self, key: Key, segment: Segment, now: float) -> None:
        """TIME-WAIT (RFC 9293 section 3.10.7.4): acknowledge what is repeated, reset what is new."""
        end, ended = self._time_wait[key]
        if segment.flags & (c.FLAG_RST | c.FLAG_SYN) or segment.tag != ended.isn:
            raise SegmentError("closed")
        if not segment.flags & (c.FLAG_DATA | c.FLAG_FIN | c.FLAG_PUSH):
            return
        self._limit_resets(now)
        stop = segment.seq + len(segment.payload)
        is_new = bool(segment.payload) and unwrap(stop, ended.ack) > ended.ack
        if segment.flags & c.FLAG_FIN and not is_new:
            self._time_wait[key] = (max(end, now + c.LINGER), ended)
            self._time_wait.move_to_end(key)
        flags, seq = c.FLAG_RST if is_new else 0, ended.seq
        if not is_new and segment.ack == (seq - 1) & _MASK:  # our FIN was lost, and we gave up repeating it
            flags, seq = c.FLAG_FIN, segment.ack
        self._answer(key, flags | c.FLAG_ACK, seq, ended.ack, ended.peer_isn, echo=segment.ts)

    # The table and the clock

    def _add(self, key: Key, isn: int, peer_isn: int, now: float) -> Session:
        session = Session(
            self, key.peer, key.stream, key.port,
            opener=key.opener, isn=isn, peer_isn=peer_isn, mtu=self._mtu_to(key.peer), now=now,
        )  # fmt: skip
        self.sessions[key] = session
        self._expecting.update((prefix, session) for prefix in _expected_prefixes(key))
        return session

    def _mtu_to(self, peer: bytes) -> int:
        return min(self._mtu, self._path_mtus.get(peer, self._mtu))

    def _advance(self, now: float) -> float:
        """Let time go only forward, whatever the caller's clock does."""
        if now > self.now:
            self.now = now
        return self.now

    def _set_timer(self, session: Session) -> None:
        """See to it that the heap has an entry for the session that is not too late; one too early corrects itself."""
        at = session.next_deadline()
        if at is not None and (session.timer_at is None or at < session.timer_at):
            session.timer_at = at
            self._timer_count += 1
            heapq.heappush(self._timers, (at, self._timer_count, session))
            if len(self._timers) > 2 * len(self.sessions) + 64:  # far ones that were superseded pile up
                self._drop_superseded_timers()

    def _drop_superseded_timers(self) -> None:
        waiting = [session for session in self.sessions.values() if session.timer_at is not None]
        self._timers = [(session.timer_at or 0.0, count, session) for count, session in enumerate(waiting)]
        heapq.heapify(self._timers)

    def _next_timer(self) -> Optional[float]:
        while self._timers:
            at, _, session = self._timers[0]
            if session.timer_at == at and session.next_deadline() == at:
                return at
            heapq.heappop(self._timers)
            if session.timer_at == at:
                session.timer_at = None
                self._set_timer(session)
        return None


# --- Inside a secret stream ------------------------------------------------------------------------------------------
#
# A secret stream carries TLS, in which both ends prove that they hold the secret. Inside, each first says who it is and
# whom it means:
#
#     u8 1, own address 6, the other's address 6, u16 service
#
# which must mirror what the other says: nobody is led to another holder or service, or back to itself. Then frames:
#
#     u32 length, at most 64 KiB; 0: a receipt alone; 0xFFFFFFFF: the end     u64 bytes taken so far (the end is one)
#
# What outsiders can forge, AlexStream's acknowledgements and FIN, proves nothing any more: `delivered` is that receipt.

_SECRET_HELLO = struct.Struct(">B6s6sH")
_SECRET_FRAME = struct.Struct(">IQ")
_SECRET_HELLO_VERSION, _END = 1, 0xFFFFFFFF


class Channel:
    """One end of what goes on inside a secret stream: bytes in, bytes out, no I/O. With a `fault` it is at its end."""

    def __init__(self, secret: Any, *, opener: bool, own: bytes, peer: bytes, port: int) -> None:
        """Addresses and service as the mesh says them. `secret` makes TLS over two buffers, and has its errors."""
        self._secret = secret
        self._in, self._out = secret.buffer(), secret.buffer()
        self._tls = secret.wrap(self._in, self._out, opener=opener)
        self._own_hello = _SECRET_HELLO.pack(_SECRET_HELLO_VERSION, own, peer, port)
        self._peer_hello = _SECRET_HELLO.pack(_SECRET_HELLO_VERSION, peer, own, port)
        self._is_shaken = False
        self.is_verified = False  # the other end holds the secret, and means this one
        self.fault = ""  # the first, for good
        self._plain = bytearray()  # decrypted, not parsed
        self._left = 0  # bytes of the frame that is being received
        self.at_end = False  # the other end says nothing more
        self.finished = False  # this one
        self.written = 0  # bytes, and one for the end
        self.delivered = 0  # as many of them as the other end's program has taken
        self._received = self._taken = self._told = 0  # the same of what comes: here; taken by the program; said to be

    def receive(self, data: bytes) -> bytes:
        """Take what came from the network; return what is for the application, up to a `fault` if there is one."""
        if self.fault:
            return b""
        self._in.write(data)
        try:
            if not self._is_shaken:
                self._tls.do_handshake()
                self._is_shaken = True
                self._tls.write(self._own_hello)
            piece = b" "
            while piece:
                piece = self._tls.read(c.SECRET_FRAME_BYTES)
                self._plain += piece
            self.fault = "ended TLS without ending the stream"
        except self._secret.want_more:
            pass
        except self._secret.error as error:
            self.fault = self._explain(error)
        return self._parse()

    def take(self) -> bytes:
        """Return what is to go to the network."""
        return bytes(self._out.read())

    def write(self, data: bytes) -> None:
        """Send at most SECRET_FRAME_BYTES; once verified."""
        self._send(len(data), data)
        self.written += len(data)

    def finish(self) -> None:
        """Send the end; once verified."""
        self._send(_END)
        self.written += 1
        self.finished = True

    def on_taken(self, count: int) -> None:
        """The program has taken so many bytes, or (1) the end."""
        self._taken += count

    @property
    def owed(self) -> int:
        """How much was taken and is not said yet."""
        return self._taken - self._told

    def acknowledge(self) -> None:
        """Say what was taken, if that was not said yet."""
        if self.owed and self.is_verified and not self.fault:
            self._send(0)

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be said any more: both have ended, and each has said that it has taken all."""
        return self.at_end and self.finished and self._told == self._received and self.delivered == self.written

    def _send(self, count: int, data: bytes = b"") -> None:
        self._told = self._taken
        self._tls.write(_SECRET_FRAME.pack(count, self._taken) + data)

    def _parse(self) -> bytes:
        """Return the data of the frames that have been decrypted."""
        if not self.is_verified:
            if len(self._plain) < _SECRET_HELLO.size:
                return b""
            if self._plain[: _SECRET_HELLO.size] != self._peer_hello:
                self.fault = self.fault or "holds this secret, but is another one than was called"
                return b""
            self.is_verified = True
            del self._plain[: _SECRET_HELLO.size]
        data = bytearray()
        while self._left or len(self._plain) >= _SECRET_FRAME.size:
            if not self._left and not self._begin_frame():
                break
            piece = self._plain[: self._left]
            if self._left and not piece:
                break
            data += piece
            self._received += len(piece)
            self._left -= len(piece)
            del self._plain[: len(piece)]
        return bytes(data)

    def _begin_frame(self) -> bool:
        """Take the head of a frame; return whether it makes sense."""
        count, taken = _SECRET_FRAME.unpack_from(self._plain)
        del self._plain[: _SECRET_FRAME.size]
        is_end = count == _END
        if (self.at_end and count) or not self.delivered <= taken <= self.written:
            self.fault = self.fault or "breaks the protocol"
            return False
        if not is_end and count > c.SECRET_FRAME_BYTES:
            self.fault = self.fault or "breaks the protocol"
            return False
        self.delivered = taken
        self.at_end = self.at_end or is_end
        self._received += is_end
        self._left = 0 if is_end else count
        return True

    def _explain(self, error: Any) -> str:
        if self.is_verified:
            return "is out of reach: what came was not sent by a holder of the secret"
        reason = (error.reason or str(error)).lower().replace("_", " ")
        if any(word in reason for word in ("certif", "unknown ca", "handshake failure", "decrypt error")):
            return "does not hold this secret"
        return f"is no holder of the secret, or somebody meddles ({reason})"
