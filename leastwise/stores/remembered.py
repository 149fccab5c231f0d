"""Small facts a machine has found out and need not find out again: one JSON file each, for people to read or delete.

It does not know what is remembered; a file that cannot be read is as good as none.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Remembered:
    """A folder of facts by key."""

    folder: Path

    def path(self, key: str) -> Path:
        """Where the fact under a key is kept; the key is a hash or a name that is safe in a path."""
        return self.folder / f"{key}.json"

    def get(self, key: str) -> dict[str, object]:
        """What is remembered under the key; empty where nothing is."""
        try:
            found = json.loads(self.path(key).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def put(self, key: str, fact: Mapping[str, object]) -> None:
        """Remember it in place of what was there, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{key}.{uuid.uuid4().hex[:8]}.unfinished"  # containers have equal process ids
        unfinished.write_text(json.dumps(dict(fact), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        unfinished.replace(self.path(key))
