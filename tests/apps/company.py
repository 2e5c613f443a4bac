"""Several nodes in one process: while one of them waits, the others do their part.

A node has no thread, so a test that waits for one must let its peers go on. `Company` puts itself in the place where
nodes sleep. A test may also wait in several threads at once (`in_thread`): only one of them runs at any moment.
"""

import contextlib
import threading
import time
from typing import Any, Callable, Iterator, List, Optional, Sequence

from node import Node, wait_for_files

SLICE = 0.005  # seconds that a node sleeps at most before it looks whether another thread has moved it on
SECONDS = 20.0  # by which everything in a test has happened

_current: List["Company"] = []


def current() -> "Company":
    """Return the company that was made last."""
    return _current[0]


class Company:
    """All nodes that are made while it is in place; `setattr` is the built-in or that of pytest's monkeypatch."""

    def __init__(self, setattr: Callable[[Any, str, Any], object]) -> None:  # noqa: A002
        _current[:] = [self]
        self._nodes: List[Node] = []
        self._turn = threading.RLock()  # held by whoever runs
        self._is_driving = False
        self._turn.acquire()
        make, self.plain_sleep = Node.__init__, Node._sleep

        def join(node: Node, *arguments: Any, **options: Any) -> None:
            make(node, *arguments, **options)
            self._nodes.append(node)

        setattr(Node, "__init__", join)
        setattr(Node, "_sleep", lambda *arguments: self._sleep(*arguments))
        self._plain_pause = time.sleep
        setattr(time, "sleep", self.pause)

    def pause(self, seconds: float) -> None:
        """Let all nodes go on for a while; in place of `time.sleep`."""
        until = time.monotonic() + seconds
        while True:
            is_mine = self._turn.acquire(blocking=False)  # not by a thread that has nothing to do with nodes
            if is_mine:
                self._drive(None)
                self._turn.release()
            left = until - time.monotonic()
            if left <= 0:
                return
            with self._given_away(is_mine):
                self._plain_pause(min(left, SLICE))

    def until(self, ready: Callable[[], object]) -> None:
        """Let all nodes go on until something has happened."""
        deadline = time.monotonic() + SECONDS
        while not ready():
            assert time.monotonic() < deadline, "did not happen"
            self.pause(SLICE)

    def _drive(self, besides: Optional[Node]) -> None:
        """Let all nodes do what they can at once."""
        self._is_driving = True
        try:
            for node in self._nodes:
                if node is not besides and not node._closing:
                    node._round(node.now())
        finally:
            self._is_driving = False

    @contextlib.contextmanager
    def _given_away(self, is_mine: bool) -> Iterator[None]:
        """Let other threads run inside."""
        if is_mine:
            self._turn.release()
        try:
            yield
        finally:
            if is_mine:
                self._turn.acquire()

    def _sleep(
        self, node: Node, reading: Sequence[int], writing: Sequence[int], now: float, wake_at: float
    ) -> List[int]:
        if self._is_driving:
            return wait_for_files(reading, 0, writing)
        self._drive(node)
        with self._given_away(is_mine=True):
            return wait_for_files(reading, max(0.0, min(wake_at - node.now(), SLICE)), writing)

    def in_thread(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Start a call in a thread of its own; what is returned waits for its result, or raises what it raised."""
        results: List[Any] = []
        errors: List[BaseException] = []

        def call() -> None:
            with self._turn:
                try:
                    results.append(function())
                except Exception as error:  # noqa: BLE001  raised again where the result is wanted
                    errors.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()

        def result() -> Any:
            deadline = time.monotonic() + SECONDS
            while thread.is_alive() and time.monotonic() < deadline:
                self.pause(SLICE)
            assert not thread.is_alive(), "still waiting"
            if errors:
                raise errors[0]
            return results[0]

        return result
