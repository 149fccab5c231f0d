"""Keys of content: what is made once is kept under a hash of everything that determines it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def content_key(*parts: str) -> str:
    """A short hash of everything that determines something."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:24]
