"""Send text or stdin over one whole stream, print what comes back, and make sure that every byte arrived.

And the sending side of files that others fetch, for the chat.
"""

import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python3 -I leaves it out
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import argparse
import base64
import contextlib
import errno
import fcntl
import functools
import hashlib
import shlex
import stat
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import constants as c
from node import (
    INTERRUPTS,
    Channel,
    Node,
    NodeEvent,
    Output,
    Session,
    SetupError,
    StrangerRefused,
    Stream,
    argument_parser,
    check_peer,
    describe_event,
    json_line,
    open_node,
    open_stream,
    peer_address,
    quoted,
    run,
    tell_on_stderr,
)
from utils import LineSplitter, decode_json, format_address, format_rate, is_typable, printable

BLOCK_BYTES = 256 << 10
PIPE_BYTES = 1 << 20  # of the buffer of a pipe at either end; Linux gives 64 KiB
PROGRESS_SECONDS = 1.0
F_SETPIPE_SZ = 1031  # fcntl(2)

OPENSSL = (
    "(umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500"
    " -subj /CN=alexchat -keyout {0} -out {0})"
)
SECRECY = f"""\
--secret FILE: only programs with the same FILE are talked to, and only they can read or forge what is said. To make it:
  {OPENSSL.format("FILE")}
  It does not hide who talks to whom, when, how much; nor names, ports, messages, broadcasts, pings. Anybody on the LAN
  can cut you off. Each holder can read what is said to it, and pose as any other; nobody can be put out but by a new
  FILE. Nobody but its authors has reviewed it.
"""
EXAMPLES = f"""\
Whatever the other side sends back goes to stdout. On a terminal a transfer of over a second shows its progress.
--json: delivered or not delivered, with the bytes written and those that the other node holds, on stderr, as
  stdout is the stream's.
{SECRECY}\
examples:
  sudo python3 alexstream_client.py eth0 6a:00:00:00:00:01 "one line"
  sudo python3 alexstream_client.py eth0 dora - < file
  tar c photos | sudo python3 alexstream_client.py eth0 6a:00:00:00:00:01 -q
exits with 0 only when the other side has taken every byte, else says how many its node holds.
"""


def widen_pipes() -> None:
    """Give stdin and stdout, where they are pipes, larger buffers: less waiting for the program at the other end."""
    for file in (0, 1):
        with contextlib.suppress(OSError):  # no pipe, or not Linux
            fcntl.fcntl(file, F_SETPIPE_SZ, PIPE_BYTES)


class Transfer:
    """A stream with stdin or a text at one end and stdout at the other."""

    def __init__(self, node: Node, stream: Stream, text: Optional[bytes], *, shows_progress: bool = False) -> None:
        self._node = node
        self._stream = stream
        self._pending = memoryview(text or b"")
        self._reading = text is None  # there may be more on stdin
        self._started = node.now()
        self._shows_progress = shows_progress
        self._output = Output(1)
        self._show_at = self._started + PROGRESS_SECONDS

    def run(self) -> None:
        """Return when both sides have finished and hold everything; raise OSError if that cannot be."""
        self._stream.setblocking(False)
        busy, ended = True, False
        while busy or not ended or self._output.waiting:
            timeout = 0 if busy else PROGRESS_SECONDS if self._shows_progress else None
            self._wait(timeout)
            self._send()
            ended = self._stream.ended  # looked at before, or the last bytes could come in between
            busy = self._receive()
            self._show_progress()
        if self._stream.error is not None:
            raise self._stream.error

    def _wait(self, timeout: Optional[float]) -> None:
        """Wait for the node, and for stdin when all that was read of it is on its way."""
        files = [0] if self._reading and not self._pending else []
        writing = [self._output.file] if self._output.waiting else []
        if 0 in self._node.wait(*files, writing=writing, timeout=timeout):
            self._pending = memoryview(os.read(0, BLOCK_BYTES))
            self._reading = len(self._pending) > 0

    def _send(self) -> None:
        if self._pending:
            try:
                self._pending = self._pending[self._stream.write(self._pending) or 0 :]
            except OSError:  # the stream has failed, and says so itself; what came before is still to be read
                self._pending, self._reading = memoryview(b""), False
        if not self._pending and not self._reading:
            self._stream.finish()

    def _receive(self) -> bool:
        """Pass on what has arrived; return whether there may be more."""
        self._output.flush()
        if self._output.is_full:
            return False
        data = self._stream.read(BLOCK_BYTES) or b""
        self._output.write(data)
        return bool(data)

    def _show_progress(self) -> None:
        if self._shows_progress and self._node.now() >= self._show_at:
            self._show_at = self._node.now() + PROGRESS_SECONDS
            megabytes = self._stream.delivered / 1e6
            rate = megabytes / (self._node.now() - self._started)
            print(f"\r{megabytes:.1f} MB delivered, {rate:.1f} MB/s\x1b[K", end="", file=sys.stderr, flush=True)


# --- Secret streams: what goes on inside is alexstream.Channel -------------------------------------------------------
#
# The secret is a private key and its self-signed certificate, in one file that all holders have.

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: machines without a clock are usual here
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # forward secrecy; all are of TLS 1.2 or 1.3


class NotAHolderError(ConnectionError):
    """The other end does not hold the secret, or what came is not what its holder sent."""


class Secret:
    """A key and its certificate, which all holders have: what TLS is told to do with them."""

    def __init__(self, path: str) -> None:
        """Read the file at `path`; raise OSError, ValueError for what is none, ssl.SSLError."""
        import ssl

        self.want_more, self.error = ssl.SSLWantReadError, ssl.SSLError
        self.buffer = ssl.MemoryBIO
        self._contexts = []
        for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
            context = ssl.SSLContext(protocol)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_REQUIRED
            context.verify_flags |= _NO_CHECK_TIME
            context.set_ciphers(_CIPHERS)
            context.options |= ssl.OP_NO_TICKET | getattr(ssl, "OP_NO_RENEGOTIATION", 0)
            if hasattr(context, "num_tickets") and protocol == ssl.PROTOCOL_TLS_SERVER:
                context.num_tickets = 0  # novm
            context.load_cert_chain(path, password=lambda: "")
            context.load_verify_locations(path)  # of all authorities this one alone
            self._contexts.append(context)
        with open(path, encoding="ascii") as file:
            text = file.read()
        certificate = text[text.index("-----BEGIN CERTIFICATE-----") :]
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
        letters = base64.b32encode(digest).decode("ascii").lower()
        self.fingerprint = f"{letters[:4]}-{letters[4:8]}"

    def wrap(self, incoming: Any, outgoing: Any, *, opener: bool) -> Any:
        """Return TLS over two buffers."""
        return self._contexts[not opener].wrap_bio(incoming, outgoing, server_side=not opener)


class SecretStream(Stream):
    """A stream that only the holders of a secret can read, forge or open: a `Stream` in every other respect."""

    def __init__(self, node: Node, session: Session, secret: Secret) -> None:
        super().__init__(node, session)
        self.connected = False  # until the other end has proved itself
        own, peer = node.address, session.peer
        self._channel = Channel(secret, opener=session.opener, own=own, peer=peer, port=self.port)
        self._unread = bytearray()
        self._early = b""  # written before the other end has proved itself
        self._out = b""  # encrypted, not taken by the stream under it
        self._written = 0
        self._is_finishing = False
        self._has_taken_end = False
        self._is_let_go = False  # unproven, with its reason on the way
        if session.opener:
            self._pump()

    # What Stream says of bytes and ends is so of what is inside

    def read(self, size: int = -1) -> Optional[bytes]:
        """Return at least one byte, at most `size` (negative: all until the end); b"" at the end."""
        if size < 0:
            return self.readall()
        self._check_open()
        if not self._unread:
            self._look_for_more()
            if self._blocking and size:
                self._wait(lambda: self._unread or self._channel.at_end)
        with INTERRUPTS:
            data = bytes(self._unread[:size])
            del self._unread[: len(data)]
            self._channel.on_taken(len(data))
            self._pump()
        if self._channel.owed >= c.SECRET_FRAME_BYTES:
            self._acknowledge()
        if data or not size or (self._channel.at_end and not self._unread):
            return data
        if self.error is not None:
            raise self.error
        if self.ended:
            return b""
        self.has_news = bool(self._unread)
        return None

    def _look_for_more(self) -> None:
        """Take what has come; if that is nothing, say what was taken before: else an answer may have carried it."""
        with INTERRUPTS:
            self._pump()
        if not self._unread and self._channel.owed:
            self._acknowledge()

    def _acknowledge(self) -> None:
        with INTERRUPTS:
            self._channel.acknowledge()
            self._push()
        self._step()

    def _put(self, data: memoryview) -> int:
        taken = 0
        while taken < len(data) and self._has_room(1):
            piece = bytes(data[taken : taken + c.SECRET_FRAME_BYTES])
            if self._channel.is_verified:
                self._channel.write(piece)
                self._push()
            else:
                self._early = piece
            taken += len(piece)
            self._written += len(piece)
        return taken

    def _has_room(self, _: int) -> bool:
        waits = self._out if self._channel.is_verified else self._early
        return not (waits or self._is_finishing or self._channel.fault)

    def finish(self) -> None:
        """Say that nothing more will be written; reading goes on. Does nothing the second time."""
        self._is_finishing = True
        with INTERRUPTS:
            self._pump()
        self._step()

    @property
    def written(self) -> int:
        """How many bytes `write` has taken."""
        return self._written

    @property
    def delivered(self) -> int:
        """How many of them the peer's program has taken."""
        return min(self._channel.delivered, self._written)

    @property
    def drained(self) -> bool:
        """Whether the peer has taken everything that was written, and knows of the end if there is one."""
        channel = self._channel
        is_sent = self._is_finishing == channel.finished and not self._early
        return is_sent and channel.delivered == channel.written and not channel.fault

    @property
    def ended(self) -> bool:
        """Whether nothing more will arrive or be delivered."""
        return bool(self._channel.fault) or super().ended

    @property
    def restarted(self) -> bool:
        """Whether the stream has ended because another program has the peer's address now."""
        return not self._channel.fault and super().restarted

    @property
    def error(self) -> Optional[OSError]:
        """Why the stream has ended; None while it is open, and after both sides have finished."""
        if self._channel.fault:
            return NotAHolderError(f"{format_address(self.peer)} {self._channel.fault}")
        return super().error

    @property
    def _deserted(self) -> bool:
        return self.drained and bool(self._unread) and not self.ended

    def on_event(self, event: Any) -> None:
        """Look at the session again; for the node."""
        self._pump()
        super().on_event(event)
        self.connected = self._channel.is_verified

    def _pump(self) -> None:
        """Move what has come into the channel, and what is to go out of it."""
        channel, session = self._channel, self._session
        while not channel.fault and len(self._unread) < c.SECRET_UNREAD_BYTES:
            data = session.read(c.SECRET_FRAME_BYTES)
            self._unread += channel.receive(data)
            if not data:
                break
        if session.receiver.finished and not session.readable and not channel.at_end:
            channel.fault = channel.fault or "was cut off before its end"
        if channel.is_verified and not channel.fault:
            if self._early:
                channel.write(self._early)
                self._early = b""
            if channel.at_end and not self._unread and not self._has_taken_end:
                self._has_taken_end = True
                channel.on_taken(1)
                channel.acknowledge()
            if self._is_finishing and not channel.finished and not self._out:
                channel.finish()
        self._push()
        if channel.fault:
            self._fail()
        elif channel.is_over and not self._out:
            session.finish()

    def _push(self) -> None:
        """Give the stream under it what it takes."""
        self._out += self._channel.take()
        if self._out and self._session.sender.fin_at is None:
            self._out = self._out[self._session.send(self._out) :]

    def _fail(self) -> None:
        """Reset the stream under it; one that is not proved yet ends, so that the other end learns why."""
        if self._channel.is_verified:
            self._session.abort()
        elif self._session.sender.fin_at is None:
            self._is_let_go = True
            self._session.finish()
            if not self._session.opener:
                self.node.refuse(self.peer, self._channel.fault)

    def abort(self) -> None:
        """End the stream in both directions at once; but let the reason arrive why this end will not have it."""
        if self._is_let_go:
            self._is_let_go = False
            self._step()
        else:
            super().abort()


def use_secret(
    node: Node, path: Optional[str], *, is_quiet: bool, tell: Callable[[str], object] = tell_on_stderr
) -> None:
    """Make all streams of the node secret, if a file is given, and say which; raise SetupError where it is none.

    After privileges are dropped: the file is the user's. Refused callers are told where nobody takes the node's events.
    """
    if path is None:
        return
    secret = _read_secret(path)
    node.make_stream = functools.partial(SecretStream, secret=secret)
    node.port_bit = c.PORT_SECRET
    if not node.shows_texts and node.on_event is None:
        node.on_event = functools.partial(_tell_refusal, tell)
    if not is_quiet:
        tell(f"alexmesh: secret: only holders of {printable(path)} (fingerprint {secret.fingerprint})")


def _tell_refusal(tell: Callable[[str], object], event: NodeEvent) -> None:
    if isinstance(event, StrangerRefused):
        tell(describe_event(event))


def _read_secret(path: str) -> Secret:
    """Return the secret in a file; raise SetupError."""
    shown = quoted(path)
    try:
        status = os.stat(path)
    except OSError as error:
        hint = f"; to make one: {OPENSSL.format(shown)}" if error.errno == errno.ENOENT else ""
        raise SetupError(f"--secret {shown}: {error.strerror}{hint}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > c.SECRET_FILE_BYTES:
        raise SetupError(f"--secret {shown}: not a key and a certificate; to make one: {OPENSSL.format('FILE')}")
    if status.st_mode & 0o077:
        raise SetupError(f"--secret {shown}: others may read it: chmod 600 {shown}")
    try:
        return Secret(path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        hint = f"not a key without passphrase and its certificate ({why}); to make one: {OPENSSL.format('FILE')}"
        raise SetupError(f"--secret {shown}: {hint}") from None


# --- Files ----------------------------------------------------------------------------------------------------------
#
# A node fetches an offered file by a stream to PORT_FILE of the sender's node. It writes one line of JSON,
# {"type": "get", "id": token, "offset": n}; back come the file's bytes from there on, then the end; and when size and
# SHA-256 are right and the file is on the disk, the last word is {"type": "got", "ok": true}.


class Offer(NamedTuple):
    """A file that may be fetched at the sender's node."""

    token: str  # 16 hex digits, to ask for it with
    file: str
    size: int
    sha256: str


class Decline(NamedTuple):
    """The file with this token is not wanted."""

    token: str


class Withdrawn(NamedTuple):
    """The file with this token is offered no more."""

    token: str


class Queued(NamedTuple):
    """The fetch of the file with this token waits until so many others are served."""

    token: str
    before: int


class Outgoing(NamedTuple):
    """A file of ours that others may fetch."""

    path: str
    descriptor: int
    size: int
    sha256: str = ""  # in hex, once it is known


def open_file(path: str) -> Outgoing:
    """Open a file of ours, without its digest; raise OSError, or ValueError for what is no file of a known size."""
    path = os.path.expanduser(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    is_file = stat.S_ISREG(status.st_mode)
    if not is_file or (status.st_size == 0 and os.pread(descriptor, 1, 0)):  # as those in /proc
        os.close(descriptor)
        raise ValueError(f"{path} is not a file{' of a known size' * is_file}")
    return Outgoing(path, descriptor, status.st_size)


def unquoted(path: str) -> str:
    """Return a path that may be quoted for a shell, as it is dragged into a terminal; one that is there stays."""
    if not os.path.lexists(os.path.expanduser(path)):
        with contextlib.suppress(ValueError):
            words = shlex.split(path)
            return words[0] if len(words) == 1 else path
    return path


def complete_path(begun: str) -> List[str]:
    """Return what a path so begun may become; directories end in /, and what no key types is left out."""
    start = begun.rpartition("/")[2]
    folder = begun[: len(begun) - len(start)]
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            return [
                folder + entry.name + "/" * os.path.isdir(entry.path)  # of a link that loops `is_dir` raises
                for entry in entries
                if (start or entry.name[0] != ".") and entry.name.startswith(start) and all(map(is_typable, entry.name))
            ]
    except OSError:
        return []


def hash_file(descriptor: int, size: int, *, to_disk: bool = False) -> str:
    """Return SHA-256 in hex of the first `size` bytes of an open file, which is closed; raise OSError. May take long.

    `to_disk`: bring it to the disk too. How far it is shows the position of the open file (`hash_progress`).
    """
    digest, offset = hashlib.sha256(), 0
    try:
        while offset < size:
            piece = read_piece(descriptor, offset, min(c.HASH_BYTES, size - offset))
            offset = os.lseek(descriptor, offset + len(piece), os.SEEK_SET)
            digest.update(piece)
        if to_disk:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def hash_progress(descriptor: int, size: int) -> str:
    """Return how much of an open file, of which a duplicate is being hashed, has been read."""
    return f"{100 * os.lseek(descriptor, 0, os.SEEK_CUR) // max(size, 1)} %"


def read_piece(descriptor: int, offset: int, count: int) -> bytes:
    """Return up to `count` bytes of an open file, at least one if any are asked for; raise OSError at its end."""
    piece = os.pread(descriptor, count, offset)
    if count and not piece:
        raise OSError(errno.ESPIPE, "the file has become shorter")
    return piece


class Upload:
    """One node that fetches a file: one line from it, the file to it, one line from it."""

    def __init__(self, stream: Stream, *, now: float) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.is_over = False
        self.is_held = False  # the other node has all of it
        self.token = ""  # of the file that is asked for
        self.before = 0  # so many are served first, as the other side was told
        self.file: Optional[Outgoing] = None
        self.offset = 0
        self.deadline = now + c.REQUEST_SECONDS  # for the next sign of life
        self._splitter = LineSplitter(c.REQUEST_BYTES)
        self._piece = b""
        self.is_broken = False  # the file is not what it was
        self.began_at = self.progress_at = now
        self._began_from = 0

    def turn(self, shared: Dict[str, Outgoing], *, now: float, may_send: bool = True) -> str:
        """Go on as far as the stream lets, if it `may_send` already; return what to tell the person. Never raises."""
        try:
            ended = self.stream.ended  # looked at before, or the last word could come in between
            data = self.stream.read(c.REQUEST_BYTES)
            for line in self._splitter.feed(data or b""):
                fields, _ = decode_json(line or b"")
                if self.file is None:
                    self._begin(fields, shared, now)
                else:
                    self.is_over = True
                    self.is_held = bool(fields.get("ok")) and self.offset == self.file.size
                    self.stream.close() if self.is_held else self.stream.abort()
                    return "holds all of {}, SHA-256 checked" if self.is_held else "got {} damaged"
            if self.file is not None and may_send:
                self._send(self.file, now)
            elif self.file is not None:  # waits in line
                self.deadline = now + c.UPLOAD_SECONDS
                self.began_at = self.progress_at = now
            if data == b"" or ended or now >= self.deadline:
                raise ConnectionAbortedError("nothing more is wanted")
        except OSError:  # of the stream, or of the file
            self.is_over = True
            self.stream.abort()
            if self.is_broken:
                return "could not have {}, which has become shorter"
            return "stopped taking {} at " + self.percent if self.file else ""
        return ""

    @property
    def percent(self) -> str:
        """How much of the file the stream has taken."""
        return f"{100 * self.offset // max(self.file.size, 1)} %" if self.file else ""

    def progress(self, *, now: float) -> str:
        """Return how far it is, how fast it goes and how long it will take."""
        size = self.file.size if self.file else 0
        return f"{self.percent}{format_rate(self.offset - self._began_from, now - self.began_at, size - self.offset)}"

    def _begin(self, fields: Dict[str, Any], shared: Dict[str, Outgoing], now: float) -> None:
        token, offset = fields.get("id"), fields.get("offset")
        file = shared.get(token) if isinstance(token, str) else None
        if file is None or type(offset) is not int or not 0 <= offset <= file.size:
            raise ConnectionRefusedError("no such file")
        self.token = str(token)
        self.file, self.offset, self.deadline = file, offset, now + c.UPLOAD_SECONDS
        self.began_at = self.progress_at = now
        self._began_from = offset

    def _send(self, file: Outgoing, now: float) -> None:
        for _ in range(c.PIECES_PER_TURN):
            if not self._piece:
                count = min(c.FILE_PIECE_BYTES, file.size - self.offset)
                try:
                    self._piece = read_piece(file.descriptor, self.offset, count)
                except OSError:
                    self.is_broken = True
                    raise
            if not self._piece:
                self.stream.finish()
                return
            taken = self.stream.write(self._piece)
            if not taken:
                return
            self.deadline, self.progress_at = now + c.UPLOAD_SECONDS, now
            self.offset += taken
            self._piece = self._piece[taken:]


# --- The program ----------------------------------------------------------------------------------------------------


def send(node: Node, arguments: argparse.Namespace) -> None:
    """Send everything; raise OSError that says what is missing."""
    text = None if arguments.text == "-" else os.fsencode(arguments.text)
    is_seen = os.isatty(2) and not os.isatty(0) and os.environ.get("TERM") != "dumb"
    shows_progress = text is None and is_seen and not arguments.quiet and not arguments.json
    peer, started, failure = peer_address(arguments.node, node), node.now(), None
    with open_stream(node, peer, c.PORT_PIPE, "alexstream_server.py") as stream:
        try:
            Transfer(node, stream, text, shows_progress=shows_progress).run()
        except OSError:
            failure = stream.error
            if failure is None:
                raise  # not the stream's: stdin or stdout
        if arguments.json:
            fields = {"address": peer, "bytes": stream.written, "held": stream.delivered}
            fields.update({"reason": str(failure)} if failure else {"seconds": node.now() - started})
            print(json_line(node, "not delivered" if failure else "delivered", fields), file=sys.stderr)
        if failure:
            held = f"{stream.delivered} of the {stream.written} bytes sent"
            raise OSError(f"NOT delivered: {failure}; its node holds {held}") from None


def main() -> int:
    """Send everything, or say what is missing."""
    parser = argument_parser(
        "alexstream_client.py",
        "Send a text or stdin over one AlexStream to alexstream_server.py.",
        EXAMPLES,
        has_streams=True,
    )
    parser.add_argument("node", metavar="NODE", help="the server's address or name")
    parser.add_argument("text", metavar="TEXT", nargs="?", default="-", help="what to send; without it, or -: stdin")
    arguments = parser.parse_args()
    check_peer(arguments.node)
    widen_pipes()
    with open_node(arguments, tell=tell_on_stderr) as node:
        use_secret(node, arguments.secret, is_quiet=arguments.quiet)
        send(node, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
