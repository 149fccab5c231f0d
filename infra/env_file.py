"""The env file of compose and Kubernetes: infra/secrets.env.example with a random secret for each empty one.

`python3 infra/env_file.py > infra/secrets.env` needs the standard library alone. It writes no file itself, and what has
a value keeps it.
"""

import re
import secrets
import sys
from pathlib import Path

EXAMPLE = Path(__file__).with_name("secrets.env.example")
EMPTY = re.compile(r"^([A-Z][A-Z0-9_]*)=$", re.MULTILINE)


def filled(example: str) -> str:
    """The text with 48 hexadecimal digits for every empty secret, after `leastwise:` where it is user and password."""

    def fill(empty: re.Match[str]) -> str:
        user = "leastwise:" if empty[1].endswith("_AUTH_STRING") else ""
        return f"{empty[1]}={user}{secrets.token_hex(24)}"

    return EMPTY.sub(fill, example)


if __name__ == "__main__":
    sys.stdout.write(filled(EXAMPLE.read_text(encoding="utf-8")))
