"""A connection between two machines of a training: lines of JSON both ways and a beat in between; silence tells too.

Like what their processes then send each other it is not encrypted: for a network of your own. It knows nothing of
training.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

BEAT_S = 3.0
SILENT_S = 60.0  # without a beat, after which the other end is given up; one that is killed is known at once
HELLO_S = 10.0  # for the first line
_LONGEST_LINE = 1 << 14


@dataclass(frozen=True)
class Place:
    """Where the processes of all machines meet, and the network interface by which this machine is reached."""

    host: str
    port: int
    interface: str


class Line:
    """A connection on which both ends send lines of JSON, and a beat in between."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(HELLO_S)
        self._connection, self._sending, self._is_open = connection, threading.Lock(), True

    @property
    def interface(self) -> str:
        """The interface of this machine that the connection goes through; empty where it cannot be told."""
        own = self._connection.getsockname()[0].removeprefix("::ffff:")
        return next((name for name, each in psutil.net_if_addrs().items() if own in {at.address for at in each}), "")

    def send(self, **words: object) -> None:
        """Sends a line; where the other end is gone, that is heard of by who listens."""
        with self._sending, suppress(OSError):
            self._connection.sendall(json.dumps(words).encode() + b"\n")

    def heard(self) -> Iterator[Mapping[str, object]]:
        """The other end's lines but its beats, until it closes, says what is no line, or is silent for SILENT_S."""
        rest = b""
        with suppress(OSError, ValueError):
            while received := self._connection.recv(_LONGEST_LINE):
                *lines, rest = (rest + received).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    return
                yield from (line for each in lines if (line := dict(json.loads(each))))

    def beating(self) -> None:
        """Beats until the connection is closed, in a thread of its own."""

        self._connection.settimeout(SILENT_S)

        def beat() -> None:
            while self._is_open:
                self.send()
                time.sleep(BEAT_S)

        threading.Thread(target=beat, daemon=True).start()

    def close(self) -> None:
        """Closes it: the other end hears that."""
        self._is_open = False
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
