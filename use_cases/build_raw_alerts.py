"""A raw table to try `prepare` on, as people have them: `python -m use_cases.build_raw_alerts FILE.csv`.

Sentences of four tactics out of the embedded data's training rows (`make data` builds those), with semicolons, in
Windows-1252, some of them twice, some under two labels, some written otherwise. The same bytes each time; nothing is
downloaded, nothing of the embedded use case changes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from leastwise.errors import BadInput
from leastwise.stores.storage import home, write_bytes
from leastwise.stores.tables.table_files import read_table

TACTICS = ("command-and-control", "credential-access", "discovery", "persistence")
EACH, TWICE, CONTRADICTED = 160, 12, 3


def rows() -> list[tuple[str, str]]:
    """Sentence and tactic, in the order of the sentences' hashes; BadInput where the embedded data is not built."""
    source = home() / "data" / "alert-triage" / "train.parquet"
    if not source.exists():
        raise BadInput(f"{source}: is not there; build it (`make data`)")
    table = read_table(source)
    drawn: list[tuple[str, str]] = []
    for tactic in TACTICS:
        texts = sorted(table[table["label"] == tactic]["text"], key=_order)[:EACH]
        drawn += [(text, tactic) for text in texts]
    drawn.sort(key=lambda row: _order(row[0]))
    again = [(text.upper(), tactic.title()) for text, tactic in drawn[:TWICE]]
    other = [(text, TACTICS[TACTICS.index(tactic) - 1]) for text, tactic in drawn[TWICE : TWICE + CONTRADICTED]]
    return [*drawn, *again, *other]


def table_of(held: Sequence[tuple[str, str]]) -> bytes:
    """The table's bytes."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=";").writerows([("Ticket", "Alert text", "Tactic"), *_numbered(held)])
    return text.getvalue().encode("cp1252", "replace")


def _numbered(held: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(f"T-{number:04d}", *row) for number, row in enumerate(held, 1)]


def _order(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    held = rows()
    write_bytes(parser.parse_args(arguments).file, table_of(held))
    print(f"{len(held)} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
