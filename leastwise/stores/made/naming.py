"""The name of a thing that was made: its kind, the key of all that determines it, and the digest of its files.

It is what travels between processes and machines in place of a path. It finds nothing (see `kept.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from leastwise.content import MADE
from leastwise.errors import BadInput

ADAPTERS, BASES, STUDENTS, REFERENCES = "adapters", "bases", "students", "references"
TRIALS, LABELS, EXAMPLES, REQUESTS = "adapters/trials", "labels", "retraining", "requests"
STATE = "${LEASTWISE_HOME}"  # of whichever machine reads it
BUNDLES = "bundles"  # a candidate with all it answers with, held to safe formats when it was packed
KINDS = (ADAPTERS, TRIALS, BASES, STUDENTS, REFERENCES, BUNDLES, LABELS, EXAMPLES, REQUESTS)  # of the state directory
TABLES = (LABELS, EXAMPLES, REQUESTS)  # of which one thing is one file
_NAME = re.compile(
    rf"^{MADE}(?P<kind>[a-z]+(?:/[a-z]+)?)/(?P<key>[A-Za-z0-9][A-Za-z0-9._-]*)\?sha256=(?P<sha256>[0-9a-f]{{64}})$"
)


@dataclass(frozen=True)
class Made:
    """A thing that was made: a folder of weights, or the file of a table. `sha256`: as `stores.storage` computes it."""

    kind: str
    key: str
    sha256: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """What a `made://` URI names; BadInput for one that nobody wrote so."""
        parts = _NAME.match(uri)
        if parts is None or parts["kind"] not in KINDS:
            raise BadInput(f"{uri}: names nothing that was made; take a made:// URI as a run has it in candidate.json")
        return cls(parts["kind"], parts["key"], parts["sha256"])

    @property
    def uri(self) -> str:
        """The name as it is written."""
        return f"{MADE}{self.kind}/{self.key}?sha256={self.sha256}"

    def place(self, home: Path) -> Path:
        """Where a machine with this state directory makes it."""
        return home / self.kind / self.key


def is_made(uri: str) -> bool:
    """Whether a URI names something that was made."""
    return uri.startswith(MADE)


def name_of_table(path: str, home: Path) -> str:
    """What a table is, where it was made in this state directory; whatever else lies there by `${LEASTWISE_HOME}`, as a
    use case names it; any other path or URI as it is.
    """
    kind = next((each for each in TABLES if Path(path).parent == home / each), None)
    if kind:
        return f"{MADE}{kind}/{Path(path).name}"
    return f"{STATE}/{Path(path).relative_to(home).as_posix()}" if Path(path).is_relative_to(home) else path


def place_before(uri: str, home: Path) -> str:
    """The URI that this thing had while paths were handed on; any other URI as it is."""
    return Made.parse(uri).place(home).as_uri() if is_made(uri) else uri
