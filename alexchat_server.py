"""AlexChat's server: one room for everybody who connects; what one says, all the others hear."""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C while modules load is no traceback

import sys

from alexchat_client import (
    QUEUE_BYTES,
    SLOW_SECONDS,
    TYPING,
    Chat,
    Console,
    Room,
    Say,
    chat_parser,
    encode_record,
    open_console,
)
from constants import CHAT_LINE_BYTES, PORT_CHAT
from node import INFINITY, Listener, Node, open_node, run


class ServerRoom(Room):
    """A room that others enter and leave, and which passes on what each of them says."""

    def __init__(
        self, node: Node, console: Console, listener: Listener, *, name: str, is_verbose: bool = False
    ) -> None:
        super().__init__(node, console, name=name, is_verbose=is_verbose)
        self._listener = listener

    def is_over(self) -> bool:
        """Only its own person, or a signal, closes the room."""
        return self.leave_at < INFINITY and super().is_over()

    def has_failed(self) -> bool:
        """Clients come and get lost; that is no failure of the server."""
        return False

    def may_listen(self) -> bool:
        """Nobody is listened to while somebody else does not take what was said before."""
        return not self.is_congested()

    def next_deadline(self) -> float:
        """Return when somebody will have held up the others for too long."""
        return min([self.leave_at, *(chat.moved + SLOW_SECONDS for chat in self.chats if chat.queued > QUEUE_BYTES)])

    def turn(self) -> None:
        """Let in who has come, then serve all."""
        for stream in iter(lambda: self._listener.accept(timeout=0), None):
            self.join(stream)
        super().turn()

    def hear(self, chat: Chat, message: Say) -> None:
        """Show a message and pass it on to all the others."""
        super().hear(chat, message._replace(sender=""))
        passed_on = Say(message.text, message.ident, chat.name)
        if len(encode_record(passed_on)) > CHAT_LINE_BYTES:
            self.console.note(f"{chat.name}'s message is too long to pass on")
            return
        for other in self.chats:
            if other is not chat:
                other.put(passed_on)

    def serve(self, chat: Chat) -> None:
        """Drop who holds up the others; finish where nobody is left who could say anything to this one."""
        if chat.queued > QUEUE_BYTES and self.node.now() >= chat.moved + SLOW_SECONDS:
            self.console.note(f"{chat.name} takes nothing any more: dropped")
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
--json: line, joined, left, lost, message, delivered, not delivered as objects on stdout.
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
    with open_node(arguments, client="alexchat_client.py") as node, node.listen(PORT_CHAT) as listener, open_console(
        arguments
    ) as console:
        return ServerRoom(node, console, listener, name=arguments.name, is_verbose=arguments.verbose).run()


if __name__ == "__main__":
    sys.exit(run(main))
