"""Keys of content: what is made once is kept under a hash of everything that determines it (rule 8).

It keeps nothing and reads nothing; what determines a thing is said by who makes it.
"""

from __future__ import annotations

import hashlib
import json

MADE = "made://"  # what Leastwise made itself, by what it is and not by where it lies (`leastwise.stores.made`)


def identity(uri: str) -> str:
    """What determines a thing that was made, `made://KIND/KEY`, without the digest that its files came to; any other
    URI as it is.
    """
    return uri.partition("?")[0] if uri.startswith(MADE) else uri


def content_key(*parts: str) -> str:
    """24 hex digits of the SHA-256 of the parts as a JSON list: equal parts in equal order give equal keys."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:24]
