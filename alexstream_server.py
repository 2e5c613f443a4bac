"""Take any number of streams and write down what arrives: as safe text, as raw bytes, or as a file for each."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import contextlib
import itertools
import os
import sys
from typing import List, Optional

from constants import BUFFER_BYTES, PORT_PIPE
from node import Listener, Node, SetupError, Stream, argument_parser, open_node, run
from utils import format_address, printable

SHOWN_BYTES = 4096  # of a line that does not end; more of it is shown as further lines
EXAMPLES = """\
Into a pipe or a file go the raw bytes, exactly; a terminal shows safe text behind the sender's address.
examples:
  sudo python3 alexstream_server.py eth0 --once > file
  sudo python3 alexstream_server.py eth0 --output incoming    # incoming/ADDRESS-NUMBER for each stream
exits with 1 if --once did not get a whole stream, or if stdout takes no more.
"""


class Raw:
    """Stdout, or another open file, as it is."""

    def __init__(self, descriptor: int = 1, name: str = "") -> None:
        self.name = name
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def finish(self) -> None:
        """The stream is complete: make sure of it."""

    def close(self) -> None:
        """Let go, complete or not."""


class Shown(Raw):
    """Stdout on a terminal: each line behind the address that it came from."""

    def __init__(self, peer: str) -> None:
        super().__init__()
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

    def __init__(self, directory: str, peer: str) -> None:
        for number in itertools.count(1):
            path = os.path.join(directory, f"{peer.replace(':', '-')}-{number}")
            with contextlib.suppress(FileExistsError):
                super().__init__(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), path)
                return

    def finish(self) -> None:
        """Bring it to the disk: only then the sender learns that the stream is complete."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Arrival:
    """A stream, and what it is written to."""

    def __init__(self, stream: Stream, output: Optional[str]) -> None:
        stream.setblocking(False)
        self.stream = stream
        self.peer = format_address(stream.peer)
        self.count = 0  # bytes written down
        self.is_complete: Optional[bool] = None  # None: more to come
        if output is not None:
            self.sink: Raw = File(output, self.peer)
        else:
            self.sink = Shown(self.peer) if os.isatty(1) else Raw()

    def take(self) -> bool:
        """Write down what has arrived; return whether there may be more. Raises OSError if stream or sink fails."""
        data = self.stream.read(BUFFER_BYTES)
        if data:
            self.sink.write(data)
            self.count += len(data)
        elif data is not None:
            self.sink.finish()
            self.is_complete = True
        return bool(data)

    def close(self) -> None:
        """Let go of both; the sender of an incomplete stream sees a reset."""
        if not self.is_complete:
            self.stream.abort()
        self.stream.close()
        self.sink.close()


class Server:
    """All streams that are arriving."""

    def __init__(self, node: Node, listener: Listener, *, output: Optional[str], once: bool) -> None:
        self._node = node
        self._listener = listener
        self._output = output
        self._once = once
        self._arrivals: List[Arrival] = []

    def run(self) -> int:
        """Serve until interrupted, with `once` until one stream is over; return the exit status."""
        while True:
            for stream in iter(lambda: self._listener.accept(timeout=0), None):
                self._begin(stream)
            busy = [self._serve(arrival) for arrival in self._arrivals]
            over = [arrival for arrival in self._arrivals if arrival.is_complete is not None]
            if over and self._once:
                return 0 if over[0].is_complete else 1
            self._arrivals = [arrival for arrival in self._arrivals if arrival.is_complete is None]
            self._node.wait(timeout=0 if any(busy) else None)

    def _begin(self, stream: Stream) -> None:
        if self._once:
            self._listener.close()
        try:
            arrival = Arrival(stream, self._output)
        except OSError as error:  # no file for it
            stream.abort()
            print(f"{format_address(stream.peer)} is refused: {error.strerror}", file=sys.stderr)
            return
        print(f"{arrival.peer} sends {arrival.sink.name}".rstrip(), file=sys.stderr)
        self._arrivals.append(arrival)

    def _serve(self, arrival: Arrival) -> bool:
        """Take what has arrived, and take leave of a stream that is over; return whether there may be more."""
        failure = None
        try:
            busy = arrival.take()
        except OSError as error:
            failure, busy = error, False
            arrival.is_complete = False
        if arrival.is_complete is not None:
            of_sink = failure is not None and arrival.stream.error is None
            arrival.close()
            outcome = (
                "complete" if arrival.is_complete else f"INCOMPLETE: {getattr(failure, 'strerror', None) or failure}"
            )
            print(f"{arrival.peer} sent {arrival.count} bytes, {outcome}", file=sys.stderr)
            if failure is not None and of_sink and self._output is None:
                raise failure  # stdout: nobody's stream can be written any more
        return busy


def main() -> int:
    """Receive."""
    parser = argument_parser("alexstream_server.py", "Write down what alexstream_client.py sends.", EXAMPLES)
    parser.add_argument("--output", metavar="DIR", help="a new file in this directory for every stream")
    parser.add_argument("--once", action="store_true", help="end after one stream")
    arguments = parser.parse_args()
    if arguments.output is not None and not os.path.isdir(arguments.output):
        raise SetupError(f"there is no directory {arguments.output}: mkdir -p {arguments.output}")
    with open_node(arguments, client="alexstream_client.py") as node, node.listen(PORT_PIPE) as listener:
        return Server(node, listener, output=arguments.output, once=arguments.once).run()


if __name__ == "__main__":
    sys.exit(run(main))
