"""Keys of content: what is made once is kept under a hash of everything that determines it (rule 8).

It keeps nothing and reads nothing; what determines a thing is said by who makes it.
"""

from __future__ import annotations

import hashlib
import json


def content_key(*parts: str) -> str:
    """24 hex digits of the SHA-256 of the parts as a JSON list: equal parts in equal order give equal keys."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:24]
