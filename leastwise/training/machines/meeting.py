"""Where the machines of one training meet: each says that it is there, and hears at once when another no longer is.

The first listens at `training.launch.meet_at`; the others are let in by a word from the request and hold a connection
to it until the training ends. It starts no process and trains nothing.
"""

from __future__ import annotations

import hmac
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from leastwise.errors import BadInput
from leastwise.training.machines.line import SILENT_S, Line, Place
from leastwise.training.machines.published import Call
from leastwise.use_case.training import Launch

_LOOK_S = 0.2
_LEAVE_S = 10.0  # for the others to leave once they were told that it is over


@dataclass
class _Guest:
    """A machine as the first knows it."""

    line: Line
    name: str
    is_ready: bool = False
    is_done: bool = False
    is_gone: bool = False
    lost: str = ""


@dataclass
class Meeting:
    """On the first machine: who has come. Opened by `meeting`."""

    call: Call
    _guests: dict[int, _Guest] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _is_begun: bool = False

    def gather(self) -> Place:
        """Waits until every machine is there and has what it needs; then all are told where the processes meet.

        BadInput, naming them, for machines that have not come within `join_within_s`; RuntimeError for one that is
        lost again.
        """
        launch, deadline = self.call.launch, time.monotonic() + self.call.launch.join_within_s
        with self._changed:
            while missing := set(range(1, launch.nodes)) - set(self._guests):
                if time.monotonic() > deadline:
                    raise BadInput(_missing(launch, sorted(missing)))
                self._changed.wait(_LOOK_S)
            self._is_begun = True
            while not all(guest.is_ready for guest in self._guests.values()):
                self.check()
                self._changed.wait(_LOOK_S)
        host = launch.meet_at.rpartition(":")[0]
        place = Place(host, _free_port(), self._guests[1].line.interface)
        for guest in self._guests.values():
            guest.line.send(host=place.host, port=place.port)
        return place

    def lost(self, within_s: float = 0.0) -> str:
        """Which machine was lost and why, as far as it is heard of within so many seconds; empty where none was."""
        deadline = time.monotonic() + within_s
        while True:
            found = [guest.lost for guest in self._guests.values() if guest.lost]
            if found or time.monotonic() >= deadline:
                return "; ".join(found)
            time.sleep(_LOOK_S)

    def check(self) -> None:
        """RuntimeError where a machine was lost."""
        if lost := self.lost():
            raise RuntimeError(f"{lost}; the training ends on all machines, and goes on from its last checkpoint")

    def end(self, why: str) -> None:
        """Tells all that it is over; with an empty `why`, well."""
        deadline = time.monotonic() + _LEAVE_S
        with self._changed:
            for guest in self._guests.values():
                guest.line.send(ended=why)
            # What is closed while they still send is reset, and they would not hear that it ended well.
            while not all(guest.is_gone for guest in self._guests.values()) and time.monotonic() < deadline:
                self._changed.wait(_LOOK_S)
            for guest in self._guests.values():
                guest.line.close()

    def receive(self, connection: socket.socket) -> None:
        """Listens to one who came, until it is gone."""
        line = Line(connection)
        try:
            said = line.heard()
            number = self._let_in(line, next(said, {}))
            if number:
                line.beating()
                for words in said:
                    self._note(number, words)
                self._gone(number)
        finally:
            line.close()

    def _let_in(self, line: Line, hello: Mapping[str, object]) -> int:
        """The machine's number; 0 where it is not let in, which it is told but for a wrong word."""
        number, nodes = hello.get("machine"), self.call.launch.nodes
        if not hmac.compare_digest(str(hello.get("word")).encode(), self.call.word.encode()):
            return 0
        if not isinstance(number, int) or not 1 <= number < nodes:
            line.send(refused=f"machine {number} is none of 1 to {nodes - 1}; give --join one of these")
            return 0
        with self._changed:
            if number in self._guests or self._is_begun:
                line.send(taken=f"machine {number} is there already, or they have begun without it")
                return 0
            self._guests[number] = _Guest(line, f"machine {number} ({str(hello.get('name'))[:80]})")
            self._changed.notify_all()
        line.send(welcome=True)
        return number

    def _note(self, number: int, words: Mapping[str, object]) -> None:
        with self._changed:
            guest = self._guests[number]
            guest.is_ready = guest.is_ready or bool(words.get("ready"))
            guest.is_done = guest.is_done or bool(words.get("done"))
            if failed := words.get("failed"):
                guest.lost = f"{guest.name} failed: {str(failed)[-2000:]}"
            self._changed.notify_all()

    def _gone(self, number: int) -> None:
        with self._changed:
            guest = self._guests[number]
            guest.is_gone = True
            if not self._is_begun:  # it may come again
                del self._guests[number]
            elif not guest.is_done and not guest.lost:
                guest.lost = f"{guest.name} is gone, or was not heard of for {SILENT_S:g} s"
            self._changed.notify_all()


@contextmanager
def meeting(call: Call) -> Iterator[Meeting]:
    """Listens at `meet_at` for as long as the block lasts, and tells those who came how it ended.

    BadInput where that port is taken.
    """
    _, _, port = call.launch.meet_at.rpartition(":")
    with _listening(call.launch.meet_at, int(port)) as listener:
        place = Meeting(call)
        threading.Thread(target=_accept, args=(listener, place.receive), daemon=True).start()
        why = "the first machine ended"
        try:
            yield place
            why = ""
        except BaseException as error:
            why = f"the first machine ended: {type(error).__name__}: {str(error)[:500]}"
            raise
        finally:
            place.end(why)
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _listening(meet_at: str, port: int) -> socket.socket:
    host = meet_at.rpartition(":")[0]
    try:
        if host in ("localhost", "127.0.0.1"):
            return socket.create_server(("127.0.0.1", port))
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise BadInput(
            f"training.launch.meet_at: port {port} cannot be listened at ({error.strerror or error}); give another, or "
            "end the training that has it"
        ) from None


def _accept(listener: socket.socket, receive: Callable[[socket.socket], None]) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=receive, args=(connection,), daemon=True).start()


def _missing(launch: Launch, missing: list[int]) -> str:
    named = f"machine {missing[0]}" if len(missing) == 1 else f"machines {', '.join(map(str, missing))}"
    return (
        f"training.launch: {named} of {launch.nodes} did not come to {launch.meet_at} within "
        f"{launch.join_within_s} s; start there what the log says (… --join K), see that the port is reached from "
        "there, or raise training.launch.join_within_s"
    )


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("", 0))
        return int(asked.getsockname()[1])
