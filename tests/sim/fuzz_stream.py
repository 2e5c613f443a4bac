"""Fuzzing of what takes bytes from the wire: no exception, no table without bound, no byte delivered wrong.

    python tests/sim/fuzz_stream.py --target endpoint --seconds 300   by coverage, with atheris (CPython 3.11 on Linux)
    python tests/sim/fuzz_stream.py --seconds 60 --random             every target in turn, at random: needs nothing
    python tests/sim/fuzz_stream.py --target router FILE...           run inputs again: a crash, a corpus

What is found goes to --corpus (a folder for each target); tests/sim/corpus holds the few inputs that reach the most.
"""

import argparse
import glob
import importlib
import os
import random
import struct
import sys
import tempfile
import time
import types
from contextlib import suppress
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import paths  # noqa: F401  # the folders of the tests
import streamscript
import streamwire
from invariants import check_endpoint
from meshsim import BOOT_SEQ, mac_of
from streamscript import OURS, PORT, THEIRS, Script
from streamwire import ACK, DATA, FIN, INIT, PUSH, RST, SYN, WRAP, Wire
from test_stream_machine import StreamMachine

import alexstream
import node
import protocol
import utils
from alexstream import SegmentError, decode_segment, encode_segment
from constants import (
    BROADCAST_ADDRESS,
    DESTINATIONS_MAX,
    EVERYONE,
    FLAG_PROBE,
    FLAG_REPLY,
    FLOWS_MAX,
    LINGERING_MAX,
    MESSAGES_MAX,
    NAME_BYTES_MAX,
    NEIGHBOURS_MAX,
    PORTS_MAX,
    STREAM_HEADER_BYTES,
    TTL_ROUTED,
    TTL_V1,
    TYPE_BROADCAST,
    TYPE_HANDSHAKE,
    TYPE_MESSAGE,
    TYPE_STATUS,
    TYPE_STREAM,
)
from protocol import (
    Frame,
    FrameError,
    Handshake,
    Heard,
    InterfaceConfig,
    MessageReceived,
    Request,
    Route,
    Router,
    decode_ethernet,
    decode_frame,
    decode_handshake,
    encode_ethernet,
    encode_frame,
    encode_handshake,
    parse_status,
    parse_text,
    status_payload,
)

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
INPUT_MAX = 4096
STEPS_MAX = 120
PATTERN = bytes((at * 7 + (at >> 8)) & 0xFF for at in range(1 << 16)) * 2
INTERESTING = (0, 1, 2, 35, 36, 1412, 1413, 1 << 15, (1 << 16) - 1, 1 << 19, (1 << 31) - 1, 1 << 31, WRAP - 1)
WAITS = (0.0, 0.0, 0.0, 0.0001, 0.004, 0.005, 0.03, 0.2, 1.0, 15.0, 31.0, 200.0)  # seconds


class Reader:
    """An input, taken apart from the front; behind its end there are zeros."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        self.at += count
        return part + bytes(count - len(part))

    def number(self, octets: int) -> int:
        return int.from_bytes(self.take(octets), "big")

    def below(self, limit: int) -> int:
        return self.number(1) % limit

    def one_of(self, values: Sequence[Any]) -> Any:
        return values[self.below(len(values))]


class Piece(NamedTuple):
    """One frame of an input that is several: how long to wait before it, on which interface, its bytes."""

    wait: int
    interface: int
    data: bytes


def split(data: bytes) -> Iterator[Piece]:
    """Yield the frames of an input: u8 wait, u8 interface, u16 length, bytes."""
    reader = Reader(data)
    while reader:
        wait, interface, length = struct.unpack(">BBH", reader.take(4))
        yield Piece(wait, interface, data[reader.at : reader.at + length])
        reader.at += length


def join(pieces: Sequence[Piece]) -> bytes:
    return b"".join(struct.pack(">BBH", p.wait, p.interface, len(p.data)) + p.data for p in pieces)


# --- The codecs ------------------------------------------------------------------------------------------------------


def fuzz_segment(data: bytes) -> None:
    """alexstream's decoder, on the bytes as they are and with the checksum made right."""
    for candidate in (data, repair(data)):
        try:
            segment = decode_segment(candidate, THEIRS, OURS)
        except SegmentError:
            continue
        again = decode_segment(encode_segment(segment, THEIRS, OURS), THEIRS, OURS)
        assert again == segment
        assert bool(segment.payload) == bool(segment.flags & DATA)
        assert len(segment.sacks) <= 16


def fuzz_frame(data: bytes) -> None:
    """protocol.py's decoders: each on all of the bytes, and each on what the one above leaves."""
    for decode in (decode_ethernet, decode_frame, check_handshake):
        with suppress(FrameError):
            decode(data)
    check_texts(data)
    with suppress(FrameError):
        frame = decode_frame(decode_ethernet(data).payload)
        assert decode_frame(encode_frame(frame)) == frame
        check_texts(frame.payload)
        check_handshake(frame.payload)


def check_texts(payload: bytes) -> None:
    assert payload.startswith(parse_text(payload))
    assert not parse_text(payload).endswith(b"\0")
    msg_id = parse_status(payload)
    assert msg_id is None or payload.rstrip(b"\0").endswith(str(msg_id).encode())


def check_handshake(payload: bytes) -> None:
    """Decode, hold against the limits, and encode again what fits one HANDSHAKE."""
    h = decode_handshake(payload)
    if h is None:
        return
    assert max(len(h.heard or ()), len(h.routes), len(h.requests)) <= DESTINATIONS_MAX
    assert len(h.ports or ()) <= PORTS_MAX
    assert len(h.name or "") <= NAME_BYTES_MAX
    h = h._replace(name=None)  # one that is no UTF-8 does not come back as it was
    assert decode_handshake(encode_handshake(h)) == h


# --- One endpoint, one peer that says anything -----------------------------------------------------------------------


def pattern(position: int, count: int) -> bytes:
    """What a peer sends at `position`, whatever segment it is in: so it can be told whether bytes arrive right."""
    start = position % (1 << 16)
    return PATTERN[start : start + count]


ISN = Script().isn


def repair(data: bytes, isn: int = 0) -> bytes:
    """Give a segment the payload that belongs at its position, and the checksum that belongs to all."""
    if len(data) < STREAM_HEADER_BYTES:
        return data
    start = data[3] * 4
    stop = start + int.from_bytes(data[6:8], "big")
    if STREAM_HEADER_BYTES <= start <= stop <= len(data):
        seq = int.from_bytes(data[8:12], "big")
        data = data[:start] + pattern((seq - isn - 1) % WRAP, stop - start) + data[stop:]
    return streamwire.seal(data, THEIRS, OURS)


def opened_script(kind: int) -> Script:
    """A stream that we opened, or the peer, or nobody yet; with something to be acknowledged."""
    if kind % 3 == 2:
        script = Script()
        script.endpoint.listen(PORT)
        return script
    script = (streamscript.opened, streamscript.accepted)[kind % 3]()
    script.session.send(bytes(6_000))
    script.take()
    return script


def fuzz_endpoint(data: bytes) -> None:
    """Frames from one origin in sequence; all of them are taken, whatever they do to the stream."""
    script = opened_script(data[0] if data else 0)
    endpoint, got, events = script.endpoint, bytearray(), 0
    for piece in split(data[1:]):
        script.now += WAITS[piece.wait % len(WAITS)]
        endpoint.receive(THEIRS, piece.data, now=script.now)
        check_endpoint(endpoint)
        for wire in script.take_raw():
            assert wire.flags in alexstream._VALID_FLAGS
        events += len(script.events())
        for session in endpoint.sessions.values():
            if session is script.session and piece.interface % 4 != 3:  # sometimes the application is slow
                got += session.read(1 << 20)
    if script.session is not None:
        got += script.session.read(1 << 20)
    assert bytes(got) == pattern(0, len(got))
    assert len(endpoint.drops) < 40
    assert len(endpoint._time_wait) <= LINGERING_MAX
    if data[:1] >= b"\x80":
        run_out(script)


def run_out(script: Script) -> None:
    """A peer that falls silent is given up, whatever state it left things in."""
    end = script.now + 400.0
    while script.now < end:
        script.endpoint.segments_to_send(now=script.now)
        check_endpoint(script.endpoint)
        deadline = script.endpoint.next_deadline()
        if deadline is None:
            break
        assert deadline > script.now
        script.now = deadline
    assert not script.endpoint.sessions


def mutate_endpoint(data: bytes, rng: random.Random, scramble: Callable[[bytes], bytes]) -> bytes:
    """Change one frame as a whole, or a field of it to a number near those that matter; most are made valid again."""
    kind, pieces = data[:1] or b"\0", list(split(data[1:]))
    if not pieces or rng.random() < 0.2:
        return kind + scramble(data[1:])
    index = rng.randrange(len(pieces))
    piece = pieces[index]
    what = rng.random()
    if what < 0.15:
        pieces.insert(rng.randrange(len(pieces) + 1), piece)
    elif what < 0.25:
        del pieces[index]
    elif what < 0.35:
        pieces[index] = piece._replace(wait=rng.randrange(256), interface=rng.randrange(256))
    else:
        frame = change_field(piece.data, rng) if what < 0.75 else scramble(piece.data)
        pieces[index] = piece._replace(data=repair(frame, ISN) if rng.random() < 0.95 else frame)
    return kind + join(pieces)


def change_field(segment: bytes, rng: random.Random) -> bytes:
    """Set one field of the header to a number that matters somewhere, or one as far from what it was."""
    at, octets = rng.choice([(2, 1), (2, 1), (6, 2), (8, 4), (12, 4), (16, 4), (20, 4), (24, 4), (28, 4)])
    old = int.from_bytes(segment[at : at + octets], "big")
    far = rng.choice(INTERESTING)
    new = rng.choice([far, old + far, old - far, old ^ 1 << rng.randrange(8 * octets)])
    return segment[:at] + (new % (1 << 8 * octets)).to_bytes(octets, "big") + segment[at + octets :]


def endpoint_seeds() -> Iterator[bytes]:
    """What a peer says in an ordinary conversation, for each kind of stream."""
    flags = [ACK, ACK | PUSH, ACK | DATA, ACK | FIN, ACK | DATA | FIN, ACK | RST, RST, SYN, SYN | ACK]
    for kind in (0, 1, 129):
        script = opened_script(kind)
        frames = [script.packed(flag, payload=pattern(0, 50) if flag & DATA else b"") for flag in flags]
        sacked = script.packed(ACK, sacks=((1413, 2826), (5652, 7065)))
        chat = [script.packed(ACK | PUSH, seq=50 * n, ack=1413 * n, payload=pattern(50 * n, 50)) for n in range(8)]
        for some in ([frame] for frame in frames):
            yield bytes([kind]) + join([Piece(0, 0, frame) for frame in some])
        yield bytes([kind]) + join([Piece(0, 0, sacked), Piece(8, 0, sacked), Piece(6, 0, sacked)])
        yield bytes([kind]) + join([Piece(n % 5, n, frame) for n, frame in enumerate(chat)])
        script.give(ACK, ack=6_000)
        end = script.packed(ACK | FIN, seq=0)
        yield bytes([kind]) + join([Piece(0, 0, script.packed(ACK)), Piece(0, 0, end), Piece(0, 0, end)])
    script = opened_script(2)
    syn = script.pack(script.syn())
    (answer,) = opened_answer(script)
    yield b"\2" + join([Piece(0, 0, syn), Piece(0, 0, script.pack(script.cookie_echo(answer, pattern(0, 30))))])


def opened_answer(script: Script) -> List[Wire]:
    script.raw(script.syn())
    return script.take_raw()


# --- One router, neighbours that say anything ------------------------------------------------------------------------

ME = mac_of(1)
CABLES = [mac_of(1, 0), mac_of(1, 1)]


def new_router(now: float) -> Router:
    wires = [InterfaceConfig(f"e{index}", mac, 1500, False) for index, mac in enumerate(CABLES)]
    return Router(ME, wires, rng=random.Random(1), now=now, seq=BOOT_SEQ, name="me", ports=(7,))


def fuzz_router(data: bytes) -> None:
    """Ethernet frames in sequence, on two interfaces, while the node sends something of its own."""
    now = 100.0
    router = new_router(now)
    router.send_message(mac_of(9), b"hello", now=now, timeout=30.0)
    router.echo(mac_of(9), now=now)
    texts = set()
    for piece in split(data):
        now += WAITS[piece.wait % len(WAITS)]
        incoming = router.receive(piece.interface % 2, piece.data, now=now)
        if incoming is not None:
            assert piece.data.endswith(bytes(incoming.payload))
            assert piece.data[16:22] == incoming.origin
        texts.add(parse_text(piece.data[37:]))
        if piece.interface & 2:
            router.send_stream(piece.data[16:22], b"answer", now=now)
        check_sent(router, now)
        for event in iter(router.next_event, None):
            assert not isinstance(event, MessageReceived) or event.data in texts
    check_tables(router)
    for _ in range(50):
        deadline = router.next_deadline()
        if deadline is None:
            break
        now = max(now, deadline)
        check_sent(router, now)
    check_tables(router)


def check_sent(router: Router, now: float) -> None:
    """Whatever goes out is a frame, from an interface's own address."""
    for index, data in router.frames_to_send(now=now):
        ethernet = decode_ethernet(data)
        assert ethernet.source == CABLES[index]
        frame = decode_frame(ethernet.payload)
        assert frame.ttl <= TTL_ROUTED
        if frame.type == TYPE_HANDSHAKE and frame.origin == ME:
            decode_handshake(frame.payload)
            assert len(data) <= 1514
    deadline = router.next_deadline()
    assert deadline is None or deadline > now


def check_tables(router: Router) -> None:
    """No more than there may be."""
    assert len(router.routes.table) <= DESTINATIONS_MAX
    assert len(router.neighbours.indirect_nodes) <= DESTINATIONS_MAX
    assert len(router.neighbours.asked_at) <= DESTINATIONS_MAX
    assert len(router.messages.unacknowledged) <= MESSAGES_MAX
    assert len(router.drops) < 40
    for wire in router.local.interfaces:
        assert len(wire.neighbours) <= NEIGHBOURS_MAX
        assert len(wire.flows) <= FLOWS_MAX
        assert sum(len(senders) for senders in wire.senders.values()) == sum(
            len(n.sources) for n in wire.neighbours.values()
        )
    assert len(router.nodes()) <= 2 * DESTINATIONS_MAX


def mutate_pieces(data: bytes, rng: random.Random, scramble: Callable[[bytes], bytes]) -> bytes:
    """Change one frame, or the sequence of them."""
    pieces = list(split(data))
    what = rng.random()
    if not pieces or what < 0.1:
        return scramble(data)
    index = rng.randrange(len(pieces))
    if what < 0.3:
        pieces.insert(rng.randrange(len(pieces) + 1), pieces[index])
    elif what < 0.4:
        del pieces[index]
    elif what < 0.55:
        pieces[index] = pieces[index]._replace(wait=rng.randrange(256), interface=rng.randrange(4))
    else:
        pieces[index] = pieces[index]._replace(data=scramble(pieces[index].data))
    return join(pieces)


def router_seeds() -> Iterator[bytes]:
    """A neighbour that comes up and says what neighbours say; then one frame of each kind."""
    me = Heard(CABLES[0], new_router(100.0).local.nonce)
    plain = Handshake(0, TTL_V1, 5.0, 1500, 2, BOOT_SEQ)
    routes = (Route(mac_of(9), BOOT_SEQ, 10, 1500), Route(mac_of(8), BOOT_SEQ, 20, 1400))
    says = [
        plain._replace(heard=(me,)),
        plain._replace(routes=routes, name="two", ports=(1, 7)),
        plain._replace(routes=routes[:1], flags=4),
        plain._replace(requests=(Request(mac_of(9), BOOT_SEQ + 1, 5), Request(ME, BOOT_SEQ + 1, 5))),
        plain._replace(routes=(routes[0]._replace(metric=0xFFFF),)),
        plain._replace(flags=8),
        plain._replace(nonce=3, heard=(me,), mtu=9000),
    ]
    direct = [plain._replace(ttl0=0, flags=flag, token=5) for flag in (FLAG_PROBE, FLAG_REPLY)]
    greeting = [ethernet_of(TYPE_HANDSHAKE, EVERYONE, encode_handshake(h), TTL_V1) for h in says]
    greeting += [ethernet_of(TYPE_HANDSHAKE, ME, encode_handshake(h), 0) for h in direct]
    others = [
        ethernet_of(TYPE_MESSAGE, ME, b"text"),
        ethernet_of(TYPE_BROADCAST, EVERYONE, b"text"),
        ethernet_of(TYPE_STATUS, ME, status_payload(7)),
        ethernet_of(TYPE_STREAM, ME, bytes(40)),
        ethernet_of(TYPE_STREAM, mac_of(9), bytes(40)),
        ethernet_of(TYPE_MESSAGE, mac_of(9), b"pass on"),
        ethernet_of(TYPE_HANDSHAKE, EVERYONE, b"", TTL_V1),
        ethernet_of(TYPE_HANDSHAKE, ME, encode_handshake(plain._replace(ttl0=TTL_ROUTED, flags=FLAG_PROBE)), 30),
    ]
    for frame in greeting[1:] + others:
        yield join([Piece(0, 0, greeting[0]), Piece(5, 0, greeting[1]), Piece(0, 0, frame), Piece(7, 2, frame)])
    yield join([Piece(5, index % 4, frame) for index, frame in enumerate(greeting + others)])


def ethernet_of(kind: int, dest: bytes, payload: bytes, ttl: int = TTL_ROUTED) -> bytes:
    """A frame from neighbour 2, straight to this node or to all."""
    destination = BROADCAST_ADDRESS if dest == EVERYONE else CABLES[0]
    return encode_ethernet(destination, mac_of(2), encode_frame(Frame(kind, mac_of(2), dest, ttl, 77, payload)))


# --- Two endpoints and a hostile network -----------------------------------------------------------------------------

FORGED = (ACK, ACK | DATA, ACK | DATA | FIN, RST, RST | ACK, SYN, SYN | ACK, ACK | PUSH, INIT | ACK)
TAGGED = (ACK, ACK | PUSH, ACK | DATA, ACK | DATA | FIN, ACK | FIN, RST | ACK, SYN, SYN | ACK)
RULES: Dict[str, Callable[[Reader], Dict[str, Any]]] = {
    "write": lambda r: {"side": r.below(2), "size": 1 + r.number(2) % 8000, "fill": r.number(1)},
    "write_more_than_a_window": lambda r: {"side": r.below(2)},
    "read": lambda r: {"side": r.below(2), "size": 1 + r.number(2)},
    "finish": lambda r: {"side": r.below(2)},
    "abort": lambda r: {"side": r.below(2), "sure": r.below(4)},
    "deliver": lambda r: {"which": r.number(1)},
    "deliver_in_order": lambda r: {"count": 1 + r.below(60)},
    "drop": lambda r: {"which": r.number(1)},
    "duplicate": lambda r: {"which": r.number(1)},
    "corrupt": lambda r: {"which": r.number(1), "bit": r.number(2)},
    "cut_or_mend": lambda r: {},
    "set_mtu": lambda r: {"side": r.below(2), "mtu": r.one_of([100, 300, 600, 900, 1500, 1600])},
    "wait": lambda r: {"seconds": r.one_of([0.0001, 0.001, 0.005, 0.02, 0.2, 3.0])},
    "wait_for_timer": lambda r: {},
    "restart": lambda r: {"side": r.below(2), "seed": r.number(1), "sure": r.below(4)},
    "inject": lambda r: {
        "side": r.below(2), "flags": r.one_of(FORGED), "numbers": [r.number(4) for _ in range(6)],
        "init": bool(r.below(2)),
    },
    "inject_with_the_right_tag": lambda r: {
        "side": r.below(2), "flags": r.one_of(TAGGED), "beyond": 1 + r.number(4) % 2**30, "window": r.number(4),
        "sack": [r.number(4) % 2**30 for _ in range(r.below(5))],
    },
    "inject_noise": lambda r: {"side": r.below(2), "data": r.take(r.below(80))},
}  # fmt: skip


def fuzz_schedule(data: bytes) -> None:
    """The state machine of test_stream_machine.py, its rules chosen by the bytes of the input."""
    machine, reader = StreamMachine(), Reader(data)
    machine.connect()
    for _ in range(STEPS_MAX):
        if not reader:
            break
        name = reader.one_of(sorted(RULES))
        arguments = RULES[name](reader)
        rule = getattr(machine, name)
        if all(allowed(machine) for allowed in rule.hypothesis_stateful_rule.preconditions):
            rule(**arguments)
            machine.pair.check()
    machine.teardown()


# --- Running them ----------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """`run` takes an input and raises if something is wrong; `mutate` makes one of another."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    mutate: Callable[[bytes, random.Random, Callable[[bytes], bytes]], bytes]


def mutate_whole(data: bytes, rng: random.Random, scramble: Callable[[bytes], bytes]) -> bytes:
    """Leave it to who scrambles."""
    return scramble(data)


def segment_seeds() -> Iterator[bytes]:
    script = Script()
    yield script.pack(script.syn())
    yield script.pack(Wire(flags=ACK | DATA, sacks=((1, 2), (3, 9)), segment_size=1413, payload=pattern(0, 9)))


def frame_seeds() -> Iterator[bytes]:
    for seed in router_seeds():
        yield from (piece.data for piece in split(seed))


def schedule_seeds() -> Iterator[bytes]:
    rng = random.Random(1)
    yield from (bytes(rng.getrandbits(8) for _ in range(size)) for size in (20, 60, 120, 240, 240, 240))


TARGETS = {
    "segment": Target(fuzz_segment, segment_seeds, mutate_whole),
    "frame": Target(fuzz_frame, frame_seeds, mutate_whole),
    "endpoint": Target(fuzz_endpoint, endpoint_seeds, mutate_endpoint),
    "router": Target(fuzz_router, router_seeds, mutate_pieces),
    "schedule": Target(fuzz_schedule, schedule_seeds, mutate_whole),
}


def starting_inputs(name: str) -> List[bytes]:
    """Return the committed corpus of a target, and what an ordinary peer would send."""
    inputs = list(TARGETS[name].seeds())
    for path in sorted(glob.glob(os.path.join(CORPUS, name, "*"))):
        with open(path, "rb") as file:
            inputs.append(file.read())
    return inputs


def scramble(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, repeat, cut or insert something."""
    spoilt = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(spoilt) + 1)
        what = rng.randrange(5)
        if what == 0 and at < len(spoilt):
            spoilt[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            octets = rng.choice((1, 2, 4))
            spoilt[at : at + octets] = (rng.choice(INTERESTING) % (1 << 8 * octets)).to_bytes(octets, "big")
        elif what == 2:
            spoilt[at:at] = spoilt[at : at + rng.randrange(1, 40)]
        elif what == 3:
            del spoilt[at : at + rng.randrange(1, 20)]
        else:
            spoilt[at:at] = bytes(rng.getrandbits(8) for _ in range(rng.randrange(1, 12)))
    return bytes(spoilt[:INPUT_MAX])


def run_randomly(name: str, *, seed: int, count: int = sys.maxsize, seconds: float = float("inf")) -> int:
    """Run `count` inputs, or for so many seconds; return how many. An input that fails is in the exception's text."""
    target, rng, inputs = TARGETS[name], random.Random(seed), starting_inputs(name)
    until = time.monotonic() + seconds
    for done in range(count):
        if time.monotonic() >= until:
            return done
        data = rng.choice(inputs)
        for _ in range(rng.choice((1, 2, 5))):
            data = target.mutate(data, rng, lambda part: scramble(part, rng))
        try:
            target.run(data[:INPUT_MAX])
        except Exception as error:
            raise AssertionError(f"{name} seed {seed} input {data.hex()}") from error
    return count


def fuzz_by_coverage(name: str, atheris: Any, seconds: int, corpus: str) -> None:
    """Let libFuzzer choose the inputs; it ends the process."""
    target = TARGETS[name]
    for module in (alexstream, node, protocol, utils):
        for function in functions_of(module):
            atheris.instrument_func(function)
    folder = os.path.join(corpus, name)
    seeds = tempfile.mkdtemp(prefix="fuzz-" + name)
    for folder_needed in (folder, os.path.join(CORPUS, name)):
        os.makedirs(folder_needed, exist_ok=True)
    for number, data in enumerate(starting_inputs(name)):
        with open(os.path.join(seeds, str(number)), "wb") as file:
            file.write(data)
    options: Dict[str, Any] = {}
    if target.mutate is not mutate_whole:

        def custom_mutator(data: bytes, max_size: int, seed: int) -> bytes:
            mutated = target.mutate(data, random.Random(seed), lambda part: atheris.Mutate(part, max_size))
            return mutated[:max_size]

        options["custom_mutator"] = custom_mutator
    flags = [f"-max_total_time={seconds}", f"-max_len={INPUT_MAX}", f"-artifact_prefix={folder}-", "-timeout=20"]
    atheris.Setup([sys.argv[0], *flags, "-print_final_stats=1", folder, seeds], target.run, **options)
    atheris.Fuzz()


def functions_of(module: Any) -> Iterator[Any]:
    """Yield the functions, methods and properties that a module defines."""
    for item in list(vars(module).values()):
        parts = list(vars(item).values()) if isinstance(item, type) else [item]
        for part in parts:
            function = getattr(part, "fget", part)
            if isinstance(function, types.FunctionType) and function.__code__.co_filename == module.__file__:
                yield function


def load_atheris() -> Optional[Any]:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        return None


def parse_arguments() -> Tuple[argparse.Namespace, List[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=sorted(TARGETS), help="without it, all of them in turn, at random")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--random", action="store_true", help="do without atheris")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument(
        "--corpus", default=os.path.join(tempfile.gettempdir(), "fuzz_stream"), help="default: %(default)s"
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="run these inputs and nothing else; with --target")
    arguments = parser.parse_args()
    if arguments.files and not arguments.target:
        parser.error("FILE needs --target")
    return arguments, [arguments.target] if arguments.target else sorted(TARGETS)


def main() -> int:
    arguments, names = parse_arguments()
    for path in arguments.files:
        with open(path, "rb") as file:
            TARGETS[arguments.target].run(file.read())
    if arguments.files:
        print(f"{len(arguments.files)} inputs: nothing wrong")
        return 0
    atheris = None if arguments.random or not arguments.target else load_atheris()
    if atheris is not None:
        fuzz_by_coverage(arguments.target, atheris, arguments.seconds, arguments.corpus)
    for name in names:
        done = run_randomly(name, seed=arguments.seed, seconds=arguments.seconds)
        print(f"{name}: {done} inputs at random, seed {arguments.seed}: nothing wrong", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
