"""Take any number of streams and write down what arrives: as safe text, as raw bytes, or as a file for each."""

import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python3 -I leaves it out
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import argparse
import contextlib
import itertools
from typing import Any, Dict, List, Optional

import constants as c
from node import (
    Aside,
    Listener,
    Node,
    Output,
    SetupError,
    Stream,
    argument_parser,
    describe_node,
    emphasis,
    json_line,
    open_node,
    run,
)
from utils import format_address, printable

SHOWN_BYTES = 4096  # of a line that does not end; more of it is shown as further lines
EXAMPLES = """\
Into a pipe or a file go the raw bytes, exactly; a terminal shows safe text behind the sender's address.
--json: begun, complete, incomplete or refused, of each stream; with --output on stdout, else on stderr, since stdout is the stream's.
examples:
  sudo python3 alexstream_server.py eth0 --once > file
  sudo python3 alexstream_server.py eth0 --output incoming --json > log
  sudo python3 alexstream_server.py eth0 --output incoming    # incoming/ADDRESS-NUMBER for each stream
exits with 1 if --once did not get a whole stream, or if stdout takes no more.
"""


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
        for number in itertools.count(1):
            path = os.path.join(directory, f"{peer.replace(':', '-')}-{number}")
            with contextlib.suppress(FileExistsError):
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                super().__init__(Output(self._descriptor), path)
                return

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


class Server:
    """All streams that are arriving."""

    def __init__(self, node: Node, listener: Listener, arguments: argparse.Namespace) -> None:
        self._node = node
        self._listener = listener
        self._arguments = arguments
        self._stdout = Output(1)
        self._arrivals: List[Arrival] = []

    def run(self) -> int:
        """Serve until interrupted, with `once` until one stream is over; return the exit status."""
        while True:
            for stream in iter(lambda: self._listener.accept(timeout=0), None):
                self._begin(stream)
            busy = [self._serve(arrival) for arrival in self._arrivals if arrival.may_go_on]
            over = [arrival for arrival in self._arrivals if arrival.is_complete is not None]
            if self._arguments.once and self._listener.closed and (over or not self._arrivals):
                return 0 if over and over[0].is_complete else 1
            self._arrivals = [arrival for arrival in self._arrivals if arrival.is_complete is None]
            waiting = {arrival.sink.output.file for arrival in self._arrivals if arrival.sink.output.waiting}
            self._node.wait(writing=[*waiting], timeout=0 if any(busy) else None)

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
            file = sys.stderr if self._arguments.output is None else sys.stdout
            print(json_line(self._node, kind, {"address": stream.peer, **fields}), file=file, flush=True)
        elif is_error or not self._arguments.quiet:
            print(f"{describe_node(self._node, stream.peer)} {text}", file=sys.stderr)


def main() -> int:
    """Receive."""
    parser = argument_parser("alexstream_server.py", "Write down what alexstream_client.py sends.", EXAMPLES)
    parser.add_argument("--output", metavar="DIR", help="a new file in this directory for every stream")
    parser.add_argument("--once", action="store_true", help="end after one stream")
    arguments = parser.parse_args()
    directory = arguments.output
    if directory is not None and not os.path.isdir(directory):
        raise SetupError(f"there is no directory {directory}: mkdir -p {directory}")
    with open_node(arguments, client="alexstream_client.py", tells=True) as node:
        if directory is not None and not os.access(directory, os.W_OK | os.X_OK):  # root could, its user cannot
            raise SetupError(f"no permission to write in {directory}: choose another --output, or --keep-root")
        with node.listen(c.PORT_PIPE) as listener:
            return Server(node, listener, arguments).run()


if __name__ == "__main__":
    sys.exit(run(main))
