"""Take any number of streams and write down what arrives: as safe text, as raw bytes, or as a file for each.

And the receiving side of files that are fetched, and all files of a chat.
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
import itertools
import re
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

import constants as c
from alexstream_client import (
    PROGRESS_SECONDS,
    SECRECY,
    Decline,
    Offer,
    Outgoing,
    Queued,
    Upload,
    hash_file,
    hash_progress,
    open_file,
    unquoted,
    use_secret,
    widen_pipes,
)
from node import (
    INFINITY,
    Aside,
    Listener,
    Node,
    Output,
    SetupError,
    StandardOutputs,
    Stream,
    argument_parser,
    check_folder,
    describe_node,
    emphasis,
    json_line,
    open_node,
    run,
)
from utils import encode_json, format_address, format_rate, format_size, printable, safe_file_name

SHOWN_BYTES = 4096  # of a line that does not end; more of it is shown as further lines
EXAMPLES = f"""\
Into a pipe or a file go the raw bytes, exactly; a terminal shows safe text behind the sender's address.
--json: begun, complete, incomplete or refused, of each stream; with --output on stdout, else on stderr, as stdout is
  the stream's.
{SECRECY}\
examples:
  sudo python3 alexstream_server.py eth0 --once > file
  sudo python3 alexstream_server.py eth0 --output incoming --json > log
  sudo python3 alexstream_server.py eth0 --output incoming    # incoming/ADDRESS-NUMBER for each stream
exits with 1 if --once did not get a whole stream, or if stdout takes no more.
"""


def arrivals(listener: Listener) -> Iterator[Stream]:
    """Yield the streams that have come, each when it is asked for: the listener may be closed between two."""
    return iter(lambda: listener.accept(timeout=0), None)


def create_file(folder: str, name: str, numbers: Iterable[int]) -> Tuple[int, str]:
    """Return a new file, open for writing, and its path: the name with the first free number (0: the name alone)."""
    stem, ending = os.path.splitext(os.path.join(folder, name))
    for number in numbers:
        path = f"{stem}-{number}{ending}" if number else stem + ending
        with contextlib.suppress(FileExistsError):  # also where a link leads nowhere: O_EXCL follows none
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), path
    raise FileExistsError(errno.EEXIST, f"{c.NAMES_TRIED} files are called {name}")


class Raw:
    """Stdout, or another open file, as it is."""

    is_on_disk = False

    def __init__(self, output: Output, name: str = "") -> None:
        self.output = output
        self.name = name

    def write(self, data: bytes) -> None:
        """Take `data`; raise OSError."""
        self.output.write(data)

    def finish(self) -> None:
        """The stream is complete: write down what is left of it."""

    def sync(self) -> None:
        """Bring it to the disk, if it has one; may take long. Raise OSError."""

    def close(self) -> None:
        """Let go, complete or not."""


class Shown(Raw):
    """Stdout on a terminal: each line behind the address that it came from."""

    def __init__(self, output: Output, peer: str) -> None:
        """`peer` stands before each line."""
        super().__init__(output)
        self._peer = peer
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Show the lines that are complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > SHOWN_BYTES:
            lines.append(self._rest[:SHOWN_BYTES])
            self._rest = self._rest[SHOWN_BYTES:]
        shown = (f"{self._peer}: {printable(line)}\n" for line in lines)
        super().write("".join(shown).encode(sys.stdout.encoding, "backslashreplace"))

    def finish(self) -> None:
        """Show the last line, if it did not end."""
        if self._rest:
            self.write(b"\n")


class File(Raw):
    """A new file in a directory; raises OSError if there can be none."""

    is_on_disk = True

    def __init__(self, directory: str, peer: str) -> None:
        self._descriptor, path = create_file(directory, peer.replace(":", "-"), itertools.count(1))
        super().__init__(Output(self._descriptor), path)

    def sync(self) -> None:
        """Bring it to the disk: only then the sender learns that the stream is complete."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Arrival:
    """A stream, and what it is written to."""

    def __init__(self, stream: Stream, arguments: argparse.Namespace, stdout: Output) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.count = 0  # bytes written down
        self._has_ended = False  # all has been read
        self._end: Optional[Aside] = None  # its way to the disk
        self.is_complete: Optional[bool] = None  # None: more to come
        address = format_address(stream.peer)
        if arguments.output is not None:
            self.sink: Raw = File(arguments.output, address)
        else:
            self.sink = Shown(stdout, emphasis(arguments, sys.stdout)(address)) if os.isatty(1) else Raw(stdout)

    @property
    def may_go_on(self) -> bool:
        """Whether there is something to do: news of the stream, or its last bytes have found their place."""
        if self._end is not None:
            return self._end.done
        return self.stream.has_news or self._has_ended or self.sink.output.waiting > 0

    def take(self, node: Node) -> bool:
        """Write down what has arrived; return whether there may be more. Raises OSError if stream or sink fails."""
        self.sink.output.flush()
        if self._end is not None:
            self._end.result()
            self.is_complete = True
        elif self._has_ended:
            self._finish(node)
        elif not self.sink.output.is_full:
            data = self.stream.read(c.BUFFER_BYTES)
            if data:
                self.sink.write(data)
                self.count += len(data)
            elif data is not None:
                self._has_ended = True
                self.sink.finish()
                self._finish(node)
            return bool(data)
        return False

    def _finish(self, node: Node) -> None:
        """Wait for the disk, or until the reader of stdout has taken all: only then the stream is complete."""
        if self.sink.output.waiting:
            return
        if self.sink.is_on_disk:
            self._end = node.aside(self.sink.sync)
        else:
            self.is_complete = True

    def close(self) -> None:
        """Let go of both; the sender of an incomplete stream sees a reset."""
        if not self.is_complete:
            self.stream.abort()
        self.stream.close()
        self.sink.close()


# --- Files that are fetched: alexstream_client.py has the other side ------------------------------------------------


class Incoming(NamedTuple):
    """A file that `sender` offers at the node `address`; its name is a safe one."""

    sender: str
    address: bytes
    name: str
    offer: Offer


def is_sound(offer: Offer) -> bool:
    """Return whether an offer can be meant."""
    named = re.fullmatch("[0-9a-f]{16}", offer.token) and re.fullmatch("[0-9a-f]{64}", offer.sha256)
    return named is not None and 0 <= offer.size < 1 << 63


def part_path(folder: str, offer: Offer) -> str:
    """Return the name of the hidden file that an offered file is until it is whole."""
    return os.path.join(folder, f".{offer.sha256[:32]}.alexchat-part")


class Download:
    """A file on its way here: fetched from where the last try stopped, checked, and given a name that was free.

    Until then it is a hidden file named by its SHA-256, so that any later offer of the same file goes on with it.
    """

    def __init__(self, node: Node, incoming: Incoming, folder: str) -> None:
        """Open the part that is there; raise OSError where that, or so large a file, is impossible."""
        self.incoming = incoming
        self.is_over = False
        self.path = ""  # of the file, once it is whole
        self.call_at = 0.0  # when to open the next stream
        self.before = 0  # so many are served first, as the sender says
        self._node = node
        self._folder = folder
        self._size = incoming.offer.size
        self._stream: Optional[Stream] = None
        self._hasher: Optional[Aside] = None
        self._may_have_more = False  # there may be more to read
        self._lost_at = INFINITY
        self._part = part_path(folder, incoming.offer)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = os.open(self._part, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.offset = os.fstat(self._descriptor).st_size
            if self.offset > self._size:
                self._restart()
            self._is_resumed = self.offset > 0  # perhaps with what another node sent
            self._began_from, self._began_at = self.offset, node.now()
            disk = os.statvfs(folder)
            if disk.f_bavail * disk.f_frsize < self._size - self.offset:
                raise OSError(errno.ENOSPC, "not enough room on the disk")
        except OSError:
            os.close(self._descriptor)
            raise

    @property
    def percent(self) -> str:
        """How much of the file is here."""
        return f"{100 * self.offset // max(self._size, 1)} %"

    @property
    def progress(self) -> str:
        """How far it is, how fast it goes and how long it will take."""
        if self._hasher is not None:
            return f"is checked, {hash_progress(self._descriptor, self._size)}"
        if self.before:
            return f"waits, {self.before} before you"
        seconds = self._node.now() - self._began_at
        return f"{self.percent}{format_rate(self.offset - self._began_from, seconds, self._size - self.offset)}"

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do without the network."""
        return self._may_have_more and not self.is_over

    @property
    def is_checked(self) -> bool:
        """Whether it is all here, and its SHA-256 is being found out."""
        return self._hasher is not None

    @property
    def waits_to_call(self) -> bool:
        """Whether it opens a stream at `call_at`."""
        return self._stream is None and self._hasher is None

    def turn(self) -> str:
        """Go on as far as possible; return what to tell the person. Never raises."""
        try:
            if self._hasher is not None:
                return self._check(self._hasher)
            if self._stream is None:
                self._call()
            else:
                self._receive(self._stream)
        except ValueError as error:
            self._stop()
            return str(error)
        except OSError as error:
            return self._pause(error)
        return ""

    def close(self) -> None:
        """Let go; the part stays."""
        if not self.is_over:
            self._stop()

    def discard(self) -> None:
        """Remove the part."""
        with contextlib.suppress(OSError):
            os.unlink(self._part)

    def _call(self) -> None:
        if self._node.now() >= self.call_at:
            self._stream = self._node.open(self.incoming.address, c.PORT_FILE)
            self._stream.setblocking(False)
            request = {"type": "get", "id": self.incoming.offer.token, "offset": self.offset}
            self._stream.write(encode_json(request))

    def _receive(self, stream: Stream) -> None:
        self._may_have_more = False
        for _ in range(c.PIECES_PER_TURN):
            data = stream.read(c.FILE_PIECE_BYTES)
            if data is None:
                return
            if not data:
                break
            if self.offset + len(data) > self._size:
                raise ValueError("refused: it is longer than it was said to be")
            self._lost_at = INFINITY
            while data:
                written = os.pwrite(self._descriptor, data, self.offset)
                self.offset += written
                data = data[written:]
        else:
            self._may_have_more = True
            return
        if self.offset < self._size:
            raise ConnectionAbortedError("it ended early")
        check = functools.partial(hash_file, os.dup(self._descriptor), self._size, to_disk=True)
        self._hasher = self._node.aside(check)

    def _pause(self, error: OSError) -> str:
        """Try again for a while where it was the network, at once give up where it was the disk."""
        now = self._node.now()
        if not isinstance(error, (ConnectionError, TimeoutError)) or now >= self._lost_at:
            self._stop()
            return f"stopped at {self.percent}: {error.strerror or error}; /accept goes on there"
        self._lost_at = min(self._lost_at, now + c.RESUME_SECONDS)
        self.call_at = now + c.RETRY_SECONDS
        if self._stream is not None:
            self._stream.abort()
            self._stream = None
        return ""

    def _check(self, hasher: Aside) -> str:
        if not hasher.done:
            return ""
        if hasher.result() != self.incoming.offer.sha256:
            self._say_goodbye(ok=False)
            self._restart()
            if self._is_resumed:  # the beginning may be another node's fault: once again, from here alone
                self._is_resumed, self._hasher, self._stream = False, None, None
                self.call_at, self._began_from, self._began_at = self._node.now(), 0, self._node.now()
                return "its beginning, from an earlier try, was damaged: once more from the start"
            self.discard()
            raise ValueError("refused: its SHA-256 is not the one that was said")
        self.path = self._place()
        self._say_goodbye(ok=True)
        self._stop()
        return f"received, {format_size(self._size)}, SHA-256 checked: {self.path}"

    def _place(self) -> str:
        """Give the file its name, or that with a number where something is there."""
        claim, path = create_file(self._folder, self.incoming.name, range(c.NAMES_TRIED))
        try:
            with open(claim, "wb"):
                os.fchmod(self._descriptor, os.fstat(claim).st_mode & 0o777)
            os.rename(self._part, path)
        except OSError:
            os.unlink(path)  # still the empty one
            raise
        return path

    def _say_goodbye(self, *, ok: bool) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # the file is here all the same
                self._stream.write(encode_json({"type": "got", "ok": ok}))
                self._stream.finish()

    def _restart(self) -> None:
        os.ftruncate(self._descriptor, 0)
        self.offset = 0

    def _stop(self) -> None:
        self.is_over = True
        if self._stream is not None and not self._hasher:
            self._stream.abort()
        with contextlib.suppress(OSError):  # of a write before (NFS, quota), which has told so itself
            os.close(self._descriptor)


class Audience:
    """Whom the files tell what happens: the chat's `Console`."""

    def note(self, text: str, *, is_error: bool = False) -> None:
        """Say what is not part of the talk."""
        raise NotImplementedError

    def announce(self, text: str) -> None:
        """Say what somebody wants of the person."""
        raise NotImplementedError

    def reply(self, text: str) -> None:
        """Say what the person has asked for."""
        raise NotImplementedError


def shown_name(file: Outgoing) -> str:
    """Return how to show the name of a file of ours, in one row."""
    return printable(os.path.basename(file.path)).replace("\n", " ")


class Files:
    """The files that this person offers, was offered, sends and receives."""

    def __init__(
        self,
        node: Node,
        console: Audience,
        folder: str,
        *,
        tell: Callable[..., None],
        send_to: Callable[[bytes, Queued], None],
    ) -> None:
        """`tell`: the room's, for programs; `send_to`: the room's, for members."""
        self._tell = tell
        self._send_to = send_to
        self.incoming: Dict[int, Incoming] = {}  # offers, by the number that /accept takes
        self._node = node
        self._console = console
        self._folder = folder
        self._numbers = itertools.count(1)
        self._hashing: Deque[Tuple[Outgoing, Aside]] = deque()  # to be offered when their digest is known
        self._shared: Dict[str, Outgoing] = {}  # by token
        self._wanted_by: Dict[str, Set[bytes]] = {}  # who was offered it, and has neither declined nor got it, nor left
        self._listener: Optional[Listener] = None
        self._uploads: List[Upload] = []
        self._downloads: Dict[int, Download] = {}
        self._is_full = False  # and said so

    # -- ours

    def send(self, path: str) -> None:
        """Open a file, to be offered once it is hashed; raise OSError, ValueError."""
        if len(self._shared) + len(self._hashing) >= c.OFFERS_MAX:
            raise ValueError(f"{c.OFFERS_MAX} files are offered already")
        file = open_file(unquoted(path))
        digest = self._node.aside(functools.partial(hash_file, os.dup(file.descriptor), file.size))
        self._hashing.append((file, digest))

    def next_offer(self) -> Optional[Offer]:
        """Return an offer whose digest is known by now, if any."""
        if not self._hashing or not self._hashing[0][1].done:
            return None
        file, hasher = self._hashing.popleft()
        try:
            digest = hasher.result()
            if self._listener is None:
                self._listener = self._node.listen(c.PORT_FILE)
        except OSError as error:
            self._console.note(f"{printable(file.path)}: {error.strerror}", is_error=True)
            self._tell("file failed", path=file.path, reason=error.strerror)
            os.close(file.descriptor)
            return None
        token = os.urandom(8).hex()
        self._shared[token] = file._replace(sha256=digest)
        return Offer(token, os.path.basename(file.path), file.size, digest)

    def offered(self, token: str, addresses: Iterable[bytes]) -> str:
        """Note who was offered a file of ours; return where it is."""
        self._wanted_by[token] = set(addresses)
        return self._shared[token].path

    def forget(self, token: str) -> None:
        """Offer a file no more."""
        self._wanted_by.pop(token, None)
        os.close(self._shared.pop(token).descriptor)

    def own_token(self, which: str) -> Optional[str]:
        """Return the token of the file of ours meant by its name or, if there is only one, nothing."""
        tokens = [t for t, file in self._shared.items() if which in ("", os.path.basename(file.path), file.path)]
        return tokens[0] if len(tokens) == 1 else None

    def unsend(self, token: str) -> str:
        """Offer a file of ours no more, also to those that are fetching it; return its name."""
        name = shown_name(self._shared[token])
        for upload in self._uploads:
            if upload.token == token:
                upload.stream.abort()
                upload.is_over = True
        self.forget(token)
        return name

    def withdraw(self, address: bytes, token: str = "") -> Optional[Incoming]:
        """Forget what a node that has left offered, or one offer that it takes back; not what is on its way here."""
        found = None
        for number, incoming in list(self.incoming.items()):
            is_meant = token in ("", incoming.offer.token)
            if incoming.address == address and is_meant and number not in self._downloads:
                found = self.incoming.pop(number)
        for wanting in self._wanted_by.values() if not token else ():
            wanting.discard(address)
        return found

    def declined(self, token: str, name: str, address: bytes) -> None:
        """Say that a member does not want a file of ours."""
        if address in self._wanted_by.get(token, ()):
            self._wanted_by[token].discard(address)
            file = self._shared[token]
            self._console.note(f"{name} does not want {shown_name(file)}")
            self._tell("file declined", name=name, path=file.path, sha256=file.sha256)

    # -- others'

    def take_offer(self, offer: Offer, sender: str, address: bytes) -> None:
        """Show an offer, if it can be meant, and is not one too many."""
        if not is_sound(offer):
            self._console.note(f"{sender} offers a file in a way that makes no sense: ignored")
            return
        if any((known.address, known.offer.token) == (address, offer.token) for known in self.incoming.values()):
            return
        same = [incoming.address for incoming in self.incoming.values()].count(address)
        if same >= c.OFFERS_PER_NODE or len(self.incoming) >= c.OFFERS_MAX:
            if not self._is_full:
                self._console.note(f"{sender} offers more files than are shown: /accept or /decline some")
            self._is_full = True
            return
        number, name = next(self._numbers), safe_file_name(offer.file)
        self.incoming[number] = Incoming(sender, address, name, offer)
        self._console.announce(
            f"{sender} offers {name} ({format_size(offer.size)}): /accept {number} or /decline {number}"
        )
        self._tell_of("file offered", self.incoming[number], number=number, size=offer.size)

    def queued(self, address: bytes, queued: Queued) -> None:
        """Note how many are served before us."""
        for download in self._downloads.values():
            if (download.incoming.address, download.incoming.offer.token) == (address, queued.token):
                download.before = max(queued.before, 0)

    def choose(self, which: str) -> Optional[int]:
        """Return the number of the offer meant by a number, a sender or, if there is only one, nothing."""
        if which.isdigit() and int(which) in self.incoming:
            return int(which)
        numbers = [n for n, incoming in self.incoming.items() if which in ("", incoming.sender)]
        if len(numbers) == 1:
            return numbers[0]
        lines = [f"  {n}  {self.incoming[n].name} from {self.incoming[n].sender}" for n in numbers or self.incoming]
        self._console.reply("\n".join(["which file? Give its number:", *lines] if lines else ["no file is offered"]))
        return None

    def accept(self, number: int) -> None:
        """Begin, or go on, to fetch a file."""
        incoming = self.incoming[number]
        if number in self._downloads:
            self._console.reply(f"{incoming.name} is under way already")
            return
        try:
            self._downloads[number] = Download(self._node, incoming, self._folder)
        except OSError as error:
            reason = f"{error.strerror} in {self._folder}"
            self._console.note(f"NOT accepted: {incoming.name}: {reason}", is_error=True)
            self._tell_of("file failed", incoming, number=number, reason=reason)
        else:
            self._tell_of("file accepted", incoming, number=number)

    def decline(self, number: int) -> Tuple[bytes, Decline]:
        """Forget an offer; return what to tell whom."""
        self._is_full = False
        if number in self._downloads:
            self._downloads.pop(number).close()
        incoming = self.incoming.pop(number)
        with contextlib.suppress(OSError):
            os.unlink(part_path(self._folder, incoming.offer))
        return incoming.address, Decline(incoming.offer.token)

    # -- both

    @property
    def is_active(self) -> bool:
        """Whether a file is on its way."""
        return bool(self._downloads) or any(upload.file for upload in self._uploads)

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do without the network."""
        return any(download.is_busy for download in self._downloads.values())

    def next_deadline(self) -> float:
        """Return when to look again even if nothing happens."""
        waiting = [one.call_at for one in self._downloads.values() if one.waits_to_call]
        if self._hashing or any(one.is_checked for one in self._downloads.values()):
            waiting.append(self._node.now() + PROGRESS_SECONDS)
        return min([INFINITY, *waiting, *(one.deadline for one in self._uploads)])

    def progress(self) -> str:
        """Return how far the files have come, for the prompt."""
        doing = {"is read": "is read, "}
        return ", ".join(f"{name} {doing.get(state, '')}{how}" for state, name, how, _ in self._under_way())

    def _under_way(self) -> Iterator[Tuple[str, str, str, str]]:
        """Yield the rows of what comes, goes and waits."""
        for one in self._downloads.values():
            yield "comes", one.incoming.name, one.progress, f"from {one.incoming.sender}"
        for number, upload in enumerate(self._uploads):
            if upload.file is not None:
                state, to = "goes" if number < c.UPLOADS_MAX else "waits", f"to {format_address(upload.stream.peer)}"
                yield state, shown_name(upload.file), upload.progress(now=self._node.now()), to
        for file, _ in self._hashing:
            yield "is read", shown_name(file), hash_progress(file.descriptor, file.size), "by you"

    def rows(self) -> List[Tuple[str, str, str, str]]:
        """Return a row of each file: its state, name, how far or how large it is, and who offers or takes it."""
        rows = [*self._under_way()]
        for number, incoming in self.incoming.items():
            if number not in self._downloads:
                how = f"by {incoming.sender}: /accept {number}"
                rows.append(("offered", incoming.name, format_size(incoming.offer.size), how))
        ours = [("offered", shown_name(file), format_size(file.size), "by you") for file in self._shared.values()]
        return rows + ours

    def turn(self, name_of: Callable[[bytes], str]) -> None:
        """Let every file go on."""
        self._take_fetchers()
        for number, upload in enumerate(self._uploads):
            before = max(number - c.UPLOADS_MAX + 1, 0)
            if upload.file is not None and upload.before != before:
                upload.before = before
                self._send_to(upload.stream.peer, Queued(upload.token, before))
            told = upload.turn(self._shared, now=self._node.now(), may_send=number < c.UPLOADS_MAX)
            if told and upload.file is not None and upload.token in self._shared:
                self._tell_of_upload(upload, upload.file, name_of(upload.stream.peer), told)
        self._uploads = [upload for upload in self._uploads if not upload.is_over]
        taken = {upload.token for upload in self._uploads}
        for token, wanting in list(self._wanted_by.items()):
            if not wanting and token not in taken:
                self.forget(token)
        for number, download in list(self._downloads.items()):
            told = download.turn()
            if told:
                self._tell_of_download(number, download, told)
            if download.is_over:
                del self._downloads[number]
            if download.path:
                del self.incoming[number]
                self._is_full = False

    def _take_fetchers(self) -> None:
        """Take the streams of those that fetch a file; a few at once, the others wait in line."""
        now = self._node.now()
        for stream in arrivals(self._listener) if self._listener else ():
            same = sum(upload.stream.peer == stream.peer for upload in self._uploads)
            if same < c.UPLOADS_PER_NODE and len(self._uploads) < c.UPLOADS_IN_LINE:
                self._uploads.append(Upload(stream, now=now))
            else:
                stream.abort()
        if len(self._uploads) > c.UPLOADS_MAX:  # who takes nothing goes behind those that wait
            self._uploads.sort(key=lambda upload: now >= upload.progress_at + c.UPLOAD_STALL_SECONDS)

    def _tell_of_upload(self, upload: Upload, file: Outgoing, name: str, told: str) -> None:
        what = told.format(shown_name(file))
        self._console.note(f"{name} {what}", is_error=not upload.is_held)
        if upload.is_broken:
            self.forget(upload.token)
        elif upload.is_held:
            self._wanted_by[upload.token].discard(upload.stream.peer)
        kind = "file finished" if upload.is_held else "file failed"
        reason = {} if upload.is_held else {"reason": what}
        self._tell(kind, name=name, address=upload.stream.peer, path=file.path, sha256=file.sha256, **reason)

    def _tell_of_download(self, number: int, download: Download, told: str) -> None:
        incoming = download.incoming
        self._console.note(f"{incoming.name} from {incoming.sender}: {told}", is_error=not download.path)
        if download.path:
            self._tell_of("file finished", incoming, number=number, path=download.path)
        elif download.is_over:
            self._tell_of("file failed", incoming, number=number, reason=told)

    def _tell_of(self, kind: str, incoming: Incoming, **fields: object) -> None:
        sender, address, sha256 = incoming.sender, incoming.address, incoming.offer.sha256
        self._tell(kind, name=sender, address=address, file=incoming.name, sha256=sha256, **fields)

    def close(self) -> None:
        """Stop everything; what was received in part stays, to be resumed."""
        for download in self._downloads.values():
            download.close()
        for upload in self._uploads:
            upload.stream.abort()
        for file in [*self._shared.values(), *(file for file, _ in self._hashing)]:
            os.close(file.descriptor)
        self._downloads, self._uploads, self._shared, self._wanted_by = {}, [], {}, {}
        self._hashing.clear()
        if self._listener is not None:
            self._listener.close()


# --- The program ----------------------------------------------------------------------------------------------------


class Server:
    """All streams that are arriving."""

    def __init__(self, node: Node, listener: Listener, told: StandardOutputs, arguments: argparse.Namespace) -> None:
        self._node = node
        self._listener = listener
        self._told = told
        self._arguments = arguments
        self._stdout = Output(1)
        self._arrivals: List[Arrival] = []

    def run(self) -> int:
        """Serve until interrupted, with `once` until one stream is over; return the exit status."""
        while True:
            for stream in [] if self._told.is_full else arrivals(self._listener):
                self._begin(stream)
            busy = [self._serve(arrival) for arrival in self._arrivals if arrival.may_go_on]
            over = [arrival for arrival in self._arrivals if arrival.is_complete is not None]
            if self._arguments.once and self._listener.closed and (over or not self._arrivals):
                self._told.drain()
                return 0 if over and over[0].is_complete else 1
            self._arrivals = [arrival for arrival in self._arrivals if arrival.is_complete is None]
            waiting = {arrival.sink.output.file for arrival in self._arrivals if arrival.sink.output.waiting}
            self._node.wait(writing=[*waiting, *self._told.waiting], timeout=0 if any(busy) else None)
            self._told.flush()

    def _begin(self, stream: Stream) -> None:
        if self._arguments.once:
            self._listener.close()
        try:
            arrival = Arrival(stream, self._arguments, self._stdout)
        except OSError as error:  # no file for it
            stream.abort()
            self._tell("refused", stream, f"is refused: {error.strerror}", is_error=True, reason=error.strerror)
            return
        self._tell("begun", stream, f"sends {arrival.sink.name}".rstrip(), file=arrival.sink.name)
        self._arrivals.append(arrival)

    def _serve(self, arrival: Arrival) -> bool:
        """Take what has arrived, and take leave of a stream that is over; return whether there may be more."""
        failure = None
        try:
            busy = arrival.take(self._node)
        except OSError as error:
            failure, busy = error, False
            arrival.is_complete = False
        if arrival.is_complete is not None:
            of_sink = failure is not None and arrival.stream.error is None
            arrival.close()
            self._tell_end(arrival, getattr(failure, "strerror", None) or str(failure or ""))
            if failure is not None and of_sink and self._arguments.output is None:
                raise failure  # stdout: nobody's stream can be written any more
        return busy

    def _tell_end(self, arrival: Arrival, reason: str) -> None:
        fields: Dict[str, Any] = {"bytes": arrival.count, "file": arrival.sink.name}
        text = f"sent {arrival.count} bytes, "
        if arrival.is_complete:
            self._tell("complete", arrival.stream, text + "complete", **fields)
        else:
            text += f"INCOMPLETE: {reason}"
            self._tell("incomplete", arrival.stream, text, is_error=True, reason=reason, **fields)

    def _tell(self, kind: str, stream: Stream, text: str, *, is_error: bool = False, **fields: Any) -> None:
        """Say what happens to a stream: in words on stderr, or as an object where it cannot mix with the bytes."""
        if self._arguments.json:
            descriptor = 2 if self._arguments.output is None else 1
            self._told.write_line(descriptor, json_line(self._node, kind, {"address": stream.peer, **fields}))
        elif is_error or not self._arguments.quiet:
            self._told.write_line(2, f"{describe_node(self._node, stream.peer)} {text}")


def main() -> int:
    """Receive."""
    what = "Write down what alexstream_client.py sends."
    parser = argument_parser("alexstream_server.py", what, EXAMPLES, has_streams=True)
    parser.add_argument("--output", metavar="DIR", help="a new file in this directory for every stream")
    parser.add_argument("--once", action="store_true", help="end after one stream")
    arguments = parser.parse_args()
    directory = arguments.output
    if directory is not None:
        check_folder("--output", directory)
    told = StandardOutputs()
    widen_pipes()
    with open_node(arguments, client="alexstream_client.py", tell=functools.partial(told.write_line, 2)) as node:
        if directory is not None and not os.access(directory, os.W_OK | os.X_OK):  # root could, its user cannot
            raise SetupError(f"no permission to write in {directory}: choose another --output, or --keep-root")
        use_secret(node, arguments.secret, is_quiet=arguments.quiet, tell=functools.partial(told.write_line, 2))
        with node.listen(c.PORT_PIPE) as listener:
            return Server(node, listener, told, arguments).run()


if __name__ == "__main__":
    sys.exit(run(main))
