"""The receive side against a model too plain to be wrong, a dictionary of position -> byte; and the cookie."""

import hashlib
import random
import struct
from typing import Dict, List, Tuple

import pytest
from invariants import check_endpoint
from streamscript import OURS, PORT, THEIRS, WINDOW, Script, opened
from streamwire import ACK, DATA, FIN, PUSH, WRAP

PIECES = 1024


class Model:
    """What must have been received after any segments: the first copy of every byte inside the window wins."""

    def __init__(self) -> None:
        self.bytes: Dict[int, int] = {}
        self.next = 0
        self.read = 0
        self.edge = WINDOW

    def take(self, start: int, payload: bytes) -> None:
        """A segment arrives."""
        for position, byte in enumerate(payload, start):
            if self.next <= position < self.edge:
                self.bytes.setdefault(position, byte)
        while self.next in self.bytes:
            self.next += 1

    def ranges(self) -> List[Tuple[int, int]]:
        """What is held beyond the gap."""
        held: List[Tuple[int, int]] = []
        for position in sorted(position for position in self.bytes if position > self.next):
            if held and held[-1][1] == position:
                held[-1] = (held[-1][0], position + 1)
            else:
                held.append((position, position + 1))
        return held

    def take_out(self) -> bytes:
        """All that can be read now."""
        data = bytes(self.bytes.pop(position) for position in range(self.read, self.next))
        self.read = self.next
        return data


@pytest.mark.parametrize("seed", range(25))
def test_established_random_overlapping_segments(seed: int) -> None:
    """4000 a seed, 100 000 in all: late, early, overlapping, contradicting, beyond the window."""
    rng = random.Random(seed)
    script, model = opened(isn=rng.choice([0, WRAP - 5000, WRAP - 1, 2**31 - 5000, rng.getrandbits(32)])), Model()
    reach = rng.choice([50, 400, 3000])
    for number in range(4000):
        script.now += 0.0001
        start = model.next + rng.randint(-reach // 4, reach)
        if rng.random() < 0.02:
            start = model.edge + rng.randint(-20, 20)
        payload = bytes([number & 0xFF]) * rng.randint(1, max(1, reach // 10))
        script.endpoint.receive(THEIRS, script.packed(ACK | DATA, seq=start, payload=payload), now=script.now)
        model.take(start, payload)
        if number % 16 == 0:
            assert script.session.readable == model.next - model.read
            assert script.session.read(1 << 20) == model.take_out()
            check_acknowledgement(script, model)
            check_endpoint(script.endpoint)


def check_acknowledgement(script: Script, model: Model) -> None:
    """What the endpoint says of itself is what the model holds."""
    script.give(ACK | PUSH, seq=model.next)
    (ack,) = script.take()
    assert ack.ack == model.next
    assert ack.ack + ack.window >= model.edge
    model.edge = ack.ack + ack.window
    held = model.ranges()
    assert len(held) < PIECES
    assert len(ack.sacks) == min(16, len(held))
    assert set(ack.sacks) <= set(held)
    assert list(ack.sacks[1:]) == sorted(ack.sacks[1:])


def test_established_random_order_of_a_whole_stream() -> None:
    """Pieces of one text in any order, twice; the FIN somewhere among them."""
    for seed in range(30):
        rng = random.Random(seed)
        text = bytes(rng.getrandbits(8) for _ in range(3000))
        cuts = sorted(rng.sample(range(1, 3000), 60))
        pieces = list(zip([0, *cuts], [*cuts, 3000])) * 2
        rng.shuffle(pieces)
        script = opened(isn=WRAP - 1500)
        got = b""
        ended_early = False
        for number, (start, stop) in enumerate(pieces):
            fin = FIN if stop == 3000 else 0
            script.endpoint.receive(
                THEIRS, script.packed(ACK | DATA | fin, seq=start, payload=text[start:stop]), now=script.now
            )
            check_endpoint(script.endpoint)
            got += script.session.read(100)
            ended_early = ended_early or (script.session.at_eof and len(got) < 3000)
            if number % 7 == 0:
                script.take()
        got += script.session.read(3000)
        assert got == text
        assert script.session.at_eof
        assert not ended_early
        assert script.names().count("EndOfStream") == 1


# --- The cookie -----------------------------------------------------------------------------------------------------


def cookie(script: Script, **fields: int) -> int:
    """The ISN with which the endpoint answers a SYN."""
    script.raw(script.syn(**fields))
    (answer,) = script.take_raw()
    return answer.seq


def listening(seed: int = 1) -> Script:
    """An endpoint that listens."""
    script = Script(seed=seed)
    script.endpoint.listen(PORT)
    script.now = 6400.0
    return script


def test_listen_cookie_is_keyed_blake2s() -> None:
    """Against hashlib and RFC 7693: the endpoint's secret is the only random number that it takes at its start."""

    class Known(random.Random):
        def getrandbits(self, k: int) -> int:
            value = super().getrandbits(k)
            asked.append((k, value))
            return value

    asked: List[Tuple[int, int]] = []
    script = listening()
    script.endpoint.__init__(OURS, rng=Known(5))  # type: ignore[misc]
    script.endpoint.listen(PORT)
    ((size, secret),) = asked
    assert size == 256
    got = cookie(script, stream=0x1234, seq=0x01020304)
    text = THEIRS + OURS + b"\x12\x34" + PORT.to_bytes(2, "big") + b"\x01\x02\x03\x04" + (100).to_bytes(8, "big")
    digest = keyed_blake2s(text, secret.to_bytes(32, "big"), 4)
    assert digest == hashlib.blake2s(text, key=secret.to_bytes(32, "big"), digest_size=4).digest()
    assert got == int.from_bytes(digest, "big")


def keyed_blake2s(text: bytes, key: bytes, size: int) -> bytes:
    """RFC 7693, for a text of one block: the keyed hash that stands in for an HMAC."""
    sigma = [[int(digit, 16) for digit in row] for row in BLAKE2S_SIGMA.split()]
    h = [BLAKE2S_IV[0] ^ 0x01010000 ^ len(key) << 8 ^ size, *BLAKE2S_IV[1:]]
    blocks = [key.ljust(64, b"\0"), text.ljust(64, b"\0")]
    assert len(text) <= 64
    for block, done, last in zip(blocks, (64, 64 + len(text)), (0, 0xFFFFFFFF)):
        m = struct.unpack("<16I", block)
        v = [*h, *BLAKE2S_IV]
        v[12] ^= done
        v[14] ^= last
        for s in sigma:
            for step, (a, b, c, d) in enumerate(BLAKE2S_LANES):
                for word, (left, right) in zip((m[s[2 * step]], m[s[2 * step + 1]]), ((16, 12), (8, 7))):
                    v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
                    v[d] = rotated(v[d] ^ v[a], left)
                    v[c] = (v[c] + v[d]) & 0xFFFFFFFF
                    v[b] = rotated(v[b] ^ v[c], right)
        h = [old ^ one ^ other for old, one, other in zip(h, v, v[8:])]
    return struct.pack("<8I", *h)[:size]


def rotated(word: int, right: int) -> int:
    """A word of 32 bits, turned."""
    return (word >> right | word << (32 - right)) & 0xFFFFFFFF


BLAKE2S_IV = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
BLAKE2S_LANES = [(n, 4 + n, 8 + n, 12 + n) for n in range(4)] + [
    (n, 4 + (n + 1) % 4, 8 + (n + 2) % 4, 12 + (n + 3) % 4) for n in range(4)
]
BLAKE2S_SIGMA = """
    0123456789abcdef ea489fd61c02b753 b8c052fdae367194 7931dcbe265a40f8 905724afe1bc683d
    2c6a0b834d75fe19 c51fed4a0763928b db7ec13950f4862a 6fe9b308c2d714a5 a2847615fb9e3cd0
"""


def test_listen_cookies_look_random() -> None:
    """5000 neighbours in stream and ISN: no two alike beyond chance, every bit set half the time."""
    script = listening()
    cookies = []
    for number in range(5000):
        script.now = 6400.0 + number / 1000.0
        cookies.append(cookie(script, seq=number))
    assert len(set(cookies)) >= 4998
    for bit in range(32):
        share = sum(value >> bit & 1 for value in cookies) / 5000.0
        assert 0.46 < share < 0.54, bit


def test_listen_cookie_guesses_fail() -> None:
    """20 000 guesses, 2**-31 each."""
    script = listening()
    (rng, now) = (random.Random(38), script.now)
    for number in range(20000):
        script.now = now + number * 0.0001
        tag = rng.getrandbits(32)
        wire = script.cookie_echo(script.syn(seq=tag))
        script.endpoint.receive(THEIRS, script.pack(wire), now=script.now)
    assert script.endpoint.sessions == {}
    assert script.events() == []


def test_listen_secrets_differ() -> None:
    assert len({cookie(listening(seed)) for seed in range(50)}) == 50
