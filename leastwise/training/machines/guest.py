"""Another machine at the meeting of a training: it comes, says that it is ready, and hears how the training ends.

It fetches nothing and starts no process.
"""

from __future__ import annotations

import platform
import socket
import threading
from collections.abc import Iterator, Mapping

from leastwise.errors import BadInput
from leastwise.training.machines.line import SILENT_S, Line, Place
from leastwise.training.machines.published import Call

_LOOK_S = 0.2
_CONNECT_S = 5.0


class Guest:
    """On another machine: its connection to the first, until the training ends."""

    def __init__(self, line: Line) -> None:
        self._line, self._said, self._place = line, threading.Event(), Place("", 0, "")
        self.ended: str | None = None  # why it is over, empty where it ended well; None: it is not

    def place(self) -> Place:
        """Says that this machine is ready, and waits until all are. RuntimeError where it is over before."""
        self._line.send(ready=True)
        while not self._said.wait(_LOOK_S):
            pass
        if self.ended is not None:
            raise RuntimeError(self.ended or "the training ended before it began")
        return self._place

    def done(self) -> None:
        """Says that this machine's part is done."""
        self._line.send(done=True)

    def failed(self, why: str) -> None:
        """Says that this machine's part failed."""
        self._line.send(failed=why[-2000:])

    def close(self) -> None:
        """Leaves."""
        self._line.close()

    def listen(self, heard: Iterator[Mapping[str, object]]) -> None:
        """Takes in what the first machine says, in a thread of its own."""

        def hear() -> None:
            for words in heard:
                if "port" in words:
                    self._place = Place(str(words["host"]), int(str(words["port"])), self._line.interface)
                    self._said.set()
                if "ended" in words:
                    self.ended = str(words["ended"])
                    break
            if self.ended is None:
                self.ended = f"the first machine is gone, or was not heard of for {SILENT_S:g} s"
            self._said.set()

        self._line.beating()
        threading.Thread(target=hear, daemon=True).start()


def arrive(call: Call, number: int) -> Guest | str:
    """This machine's place at the meeting, or why it has none (yet): nobody listens there, or for another training.

    BadInput where there is none of this number.
    """
    host, _, port = call.launch.meet_at.rpartition(":")
    try:
        line = Line(socket.create_connection((host, int(port)), timeout=_CONNECT_S))
    except OSError as error:
        return f"{call.launch.meet_at}: {error.strerror or error}"
    line.send(machine=number, name=platform.node(), word=call.word)
    heard = line.heard()
    answer = next(heard, {"taken": f"{call.launch.meet_at}: another training meets there"})
    if "welcome" in answer:
        guest = Guest(line)
        guest.listen(heard)
        return guest
    line.close()
    if "refused" in answer:
        raise BadInput(str(answer["refused"]))
    return str(answer.get("taken"))
