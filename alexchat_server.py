"""AlexChat's server: one room for everybody who connects; what one says, all the others hear."""

import os
import signal
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # python3 -I leaves it out
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

from typing import Any, Dict, Iterator, List, Optional

import constants as c
from alexchat_client import (
    JSON_EVENTS,
    TYPING,
    Console,
    Conversation,
    Hello,
    Joined,
    Left,
    Notice,
    Room,
    Say,
    chat_parser,
    check_downloads,
    encode_record,
    open_console,
    room_settings,
)
from alexstream_client import Decline, Offer
from alexstream_server import arrivals, is_sound
from node import INFINITY, Listener, Node, Stream, open_node, run
from utils import format_address, format_size, safe_file_name, with_tail


class ServerRoom(Room):
    """A room that others enter and leave, and which passes on what each of them says."""

    def __init__(self, node: Node, console: Console, listener: Listener, **settings: Any) -> None:
        super().__init__(node, console, **settings)
        self._listener = listener
        self._next: Optional[Stream] = None  # will enter when it may be listened to
        self._away: Dict[bytes, Conversation] = {}  # whose program ended without having all that was said; by address

    def is_over(self) -> bool:
        """Only its own person, or a signal, closes the room."""
        return self.leave_at < INFINITY and super().is_over()

    def has_failed(self) -> bool:
        """Clients come and get lost; that is no failure of the server."""
        return False

    def may_listen(self, besides: bytes = b"") -> bool:
        """Return False also while a member, other than the node `besides`, does not take what was said before."""
        return super().may_listen() and not any(
            chat.is_full for chat in self.chats if not chat.stream.ended and chat.stream.peer != besides
        )

    def next_deadline(self) -> float:
        """Return also when a member will have held up the others, or stayed away, for too long."""
        slow = [chat.last_progress_at + c.SLOW_SECONDS for chat in self.chats if chat.is_full]
        return min([super().next_deadline(), *slow, *(chat.lost_at for chat in self._away.values())])

    def run(self) -> int:
        """At the end reject the streams that wait to enter, and list what those who are away will not get."""
        status = super().run()
        for stream in [*([self._next] if self._next else []), *arrivals(self._listener)]:
            self.reject(stream)
        for chat in self._away.values():
            self.give_up(chat)
        return status

    def _timeout(self) -> Optional[float]:
        may_enter = self._next is not None and self.may_listen(besides=self._next.peer)
        return 0.0 if may_enter else super()._timeout()

    def turn(self) -> None:
        """Let newcomers in, give up members that do not come back, then serve all."""
        for stream in self._arrivals():
            self.enter(stream)
        too_many = len(self._away) - c.AWAY_MAX
        for number, chat in enumerate(list(self._away.values())):
            if self.node.now() >= chat.lost_at or number < too_many:
                del self._away[chat.stream.peer]
                self.give_up(chat)
        super().turn()

    def _arrivals(self) -> Iterator[Stream]:
        """Yield newcomers, as long as what their addresses have said before may be listened to."""
        while True:
            stream = self._next = self._next or self._listener.accept(timeout=0)
            if stream is None or not self.may_listen(besides=stream.peer):
                return
            self._next = None
            yield stream

    def enter(self, stream: Stream) -> None:
        """Let a member in; what its last program did not get comes first. One address is one program."""
        for chat in [chat for chat in self.chats if chat.stream.peer == stream.peer]:
            chat.stream.abort()
            self.drain(chat)
            if chat.at_end:
                self.note_leaving(chat)
            self.chats.remove(chat)
            self._away[stream.peer] = chat
            self._tell_left(chat)
        chat, before = self.join(stream), self._away.pop(stream.peer, None)
        if before is not None:
            self.settle_held(before)
            chat.take_over(before)
            chat.is_greeted = False  # it may come by another name

    def greet(self, chat: Conversation, hello: Hello) -> None:
        """Name the newcomer; announce all the others to it, and it to them."""
        is_new = not chat.is_greeted
        super().greet(chat, hello)
        if is_new:
            for other in self.chats:
                if other is not chat and other.is_greeted:
                    other.put(Joined(chat.name, format_address(chat.stream.peer)))
                    chat.put(Joined(other.name, format_address(other.stream.peer)))

    def remove(self, chat: Conversation) -> None:
        """Tell all others that a member left; keep for a while what a program that ended unexpectedly did not get."""
        if chat.stream.restarted and chat.unacked and self.leave_at == INFINITY:
            self.chats.remove(chat)
            self._away[chat.stream.peer] = chat
            chat.lost_at = self.node.now() + c.RETURN_SECONDS
            self.console.note(f"{chat.name}'s program has ended; if it comes back it gets what it missed")
            self.tell("restarted", name=chat.name, address=chat.stream.peer)
        else:
            super().remove(chat)
        self._tell_left(chat)

    def _tell_left(self, chat: Conversation) -> None:
        if chat.is_greeted:
            for other in self.chats:
                other.put(Left(chat.name))

    def audience(self, name: str) -> List[Conversation]:
        """Return the conversation with that member."""
        return [chat for chat in self.chats if chat.name == name]

    def _is_me(self, name: str) -> bool:
        """Return whether a client knows this server by that: its name, with the tail of its address or not, or that."""
        address = format_address(self.node.address)
        return name in (self.own_name, with_tail(self.own_name, address), address)

    def hear(self, chat: Conversation, message: Say) -> None:
        """Show a message and pass it on to all the others, or to the one it is for."""
        passed_on = message._replace(sender=chat.name)
        if not message.to or self._is_me(message.to):
            super().hear(chat, passed_on)
        line = encode_record(passed_on)
        if len(line) > c.CHAT_LINE_BYTES:
            self.console.note(f"{chat.name}'s message is too long to pass on", is_error=True)
            return
        receivers = self.audience(message.to) if message.to else self.chats
        if not receivers and not self._is_me(message.to):
            chat.put(Notice(f"NOT delivered: nobody here is called {message.to}"))
        for other in receivers:
            if other is not chat:
                other.put(passed_on, line)

    def hear_offer(self, chat: Conversation, offer: Offer) -> None:
        """Show an offer and pass it on, with the address where the file is."""
        passed_on = offer._replace(sender=chat.name, address=format_address(chat.stream.peer))
        super().hear_offer(chat, passed_on)
        if not is_sound(passed_on) or len(encode_record(passed_on)) > c.CHAT_LINE_BYTES:
            return
        for other in self.chats:
            if other is not chat:
                self.put_offer(other, passed_on)

    def put_offer(self, chat: Conversation, offer: Offer) -> bool:
        """Pass an offer to one, or to a program that does not know what that is: words about it."""
        if super().put_offer(chat, offer):
            return True
        words = f"(offers {safe_file_name(offer.file)}, {format_size(offer.size)}: this program cannot take it)"
        chat.put(Say(words, 0, offer.sender or self.own_name))
        return False

    def hear_decline(self, chat: Conversation, decline: Decline) -> None:
        """Pass on to its sender that a file is not wanted."""
        if self._is_me(decline.to):
            super().hear_decline(chat, decline)
        for other in self.audience(decline.to):
            other.put(decline._replace(sender=chat.name))

    def serve(self, chat: Conversation) -> None:
        """Drop a member that holds up the others; finish with one to whom no other can say anything more."""
        if chat.is_full and self.node.now() >= chat.last_progress_at + c.SLOW_SECONDS:
            self.console.note(f"{chat.name} takes nothing any more: dropped", is_error=True)
            chat.stream.abort()
        silent = self.console.at_end and all(other.at_end for other in self.chats if other is not chat)
        if chat.at_end and silent:
            chat.finish()
        super().serve(chat)

    def end_typing(self) -> None:
        """Stdin has ended: a person leaves; after the last line of a pipe the room stays open."""
        if self.console.is_interactive:
            self.leave()


EXAMPLES = f"""\
{TYPING}
pipes: every line of stdin goes to all clients (the first waits for one to come); incoming lines go to stdout as
  `name: text`, everything else to stderr. At the end of stdin the server goes on receiving and passing on.
--json: {JSON_EVENTS}
examples:
  sudo python3 alexchat_server.py eth0
  sudo python3 alexchat_server.py eth0 --name kitchen < /dev/null > log
"""


def main() -> int:
    """Hold a room open."""
    parser = chat_parser(
        "alexchat_server.py", "Hold a room where everybody who connects talks to all others.", EXAMPLES
    )
    arguments = parser.parse_args()
    check_downloads(arguments)
    with open_node(arguments, client="alexchat_client.py") as node, node.listen(c.PORT_CHAT) as listener, open_console(
        arguments
    ) as console:
        return ServerRoom(node, console, listener, **room_settings(arguments)).run()


if __name__ == "__main__":
    sys.exit(run(main))
