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
    """The text with 48 hexadecimal digits for every empty secret."""
    return EMPTY.sub(lambda name: f"{name.group(1)}={secrets.token_hex(24)}", example)


if __name__ == "__main__":
    sys.stdout.write(filled(EXAMPLE.read_text(encoding="utf-8")))
