"""CSV as people have it: any usual delimiter, quote, encoding and byte-order mark, with or without a header.

It says what it took the file for, so that a wrong guess is seen. Only tables with one line of names or none are read.
"""

from __future__ import annotations

import codecs
import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows.sources.plain import LABEL_NAMES, TEXT_NAMES, key_of
from leastwise.stores.tables.table_values import named_rows

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
BOMS = (  # the longer ones first: that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
OLDER = ["cp1252", "cp1250", "cp1251", "shift_jis", "gb18030", "big5", "euc_kr", "cp1253", "cp1254", "cp1256"]
MOST_WIDE = 0.6  # of every second byte; a table of Latin letters in UTF-16 has nearly all of them
LOOKED_AT = 500  # rows by which the delimiter is told
LEAST_ROWS = 5  # below which nothing is said of a header


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    delimiter: str
    quote: str
    escapes: bool  # a quote in a text has a backslash before it, rather than being written twice

    def rows_of(self, text: str, most: int | None = None) -> list[list[str]]:
        """The cells, a list a row; empty lines are left out."""
        csv.field_size_limit(sys.maxsize)
        escape = "\\" if self.escapes else None
        reader = csv.reader(
            StringIO(text, newline=""),
            delimiter=self.delimiter,
            quotechar=self.quote,
            doublequote=not self.escapes,
            escapechar=escape,
        )
        rows: list[list[str]] = []
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
            if most and len(rows) >= most:
                break
        return rows


@dataclass(frozen=True)
class Written:
    """A table of text and what it was taken for."""

    table: pd.DataFrame
    said: str


def decoded(body: bytes) -> tuple[str, str]:
    """The text and its encoding: by byte-order mark, UTF-8, or the older encoding that fits it best."""
    for mark, encoding in BOMS:
        if body.startswith(mark):
            return _strict(body, encoding), encoding.removesuffix("-sig")
    if wide := _without_mark(body):
        return _strict(body, wide), wide
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError as error:
        _check_not_damaged(body, error.start)
        from charset_normalizer import from_bytes

        best = from_bytes(body[:500_000], cp_isolation=OLDER).best()
        encoding = best.encoding if best else "cp1252"
        return _strict(body, encoding), encoding


def _without_mark(body: bytes) -> str:
    """UTF-16 that no mark tells: of every second byte most are zero; empty where it is none."""
    start = body[:2000]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(start) > 1 and start[first::2].count(0) > MOST_WIDE * len(start[first::2]):
            return encoding
    return ""


def _check_not_damaged(body: bytes, at: int) -> None:
    """BadInput for UTF-8 with a few bytes that are none: read as an older encoding, all its letters would be others."""
    text = body.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    if sum(not char.isascii() for char in text) > 2 * damaged:
        line = body[:at].count(b"\n") + 1
        raise BadInput(f"line {line:,}: byte {at:,} is no UTF-8, and the rest is; correct this line, or leave it out")


def _strict(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadInput(f"byte {error.start:,} is no {encoding}; save the file as UTF-8") from None


def read_csv(body: bytes) -> Written:
    """A table of text, empty cells missing; BadInput names the rows that have not as many cells as the header."""
    import pandas as pd

    text, encoding = decoded(body)
    dialect = dialect_of(text)
    try:
        rows = dialect.rows_of(text)
    except csv.Error as error:
        raise BadInput(f"{error}; write the table again, each text with a quote in it in quotes") from None
    if not rows:
        raise BadInput("is empty; write a header with the names of the columns, and rows")
    names = _names(rows)
    cells = rows if names is None else rows[1:]
    header = names or [f"column{at}" for at in range(1, len(rows[0]) + 1)]
    first = 1 if names is None else 2
    if wrong := [at for at, row in enumerate(cells, first) if len(row) != len(header)]:
        raise BadInput(
            f"{named_rows(wrong)}: not the {len(header)} cells that {', '.join(header)} need; put a text with a "
            f"{DELIMITERS[dialect.delimiter]} in it in quotes, or complete the row"
        )
    columns = {
        name: pd.Series([row[at] if row[at] != "" else None for row in cells], dtype=object)
        for at, name in enumerate(header)
    }
    said = f"{DELIMITERS[dialect.delimiter]}, {encoding}" + ("" if names else ", no header")
    return Written(pd.DataFrame(columns), said)


def dialect_of(text: str) -> Dialect:
    """Which of the usual dialects splits the rows most evenly into most cells."""
    first = text.lstrip("\ufeff").lstrip().split("\n", 1)[0].rstrip("\r")
    quote = "'" if first[:1] == "'" == first[-1:] else '"'
    escapes = f"\\{quote}" in text and not re.search(
        rf"[^,;|\t\n]{quote * 2}[^,;|\t\r\n]", text.replace(f"\\{quote}", "")
    )
    best, score = Dialect(",", quote, escapes), (0.0, 0)
    for delimiter in DELIMITERS:
        dialect = Dialect(delimiter, quote, escapes)
        try:
            widths = [len(row) for row in dialect.rows_of(text, LOOKED_AT)]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            even = round(sum(width == widths[0] for width in widths) / len(widths), 2)
            if (even, widths[0]) > score:
                best, score = dialect, (even, widths[0])
    return best


def _names(rows: Sequence[Sequence[str]]) -> list[str] | None:
    """The names of the columns; None where the first row holds values: one that its column has again."""
    names = [cell.strip().lstrip("\ufeff") for cell in rows[0]]
    again = any(name and len(row) > at and row[at].strip() == name for row in rows[1:] for at, name in enumerate(names))
    is_known = any(key_of(name) in (*TEXT_NAMES, *LABEL_NAMES, "id") for name in names)
    if len(rows) > LEAST_ROWS and again and not is_known:
        return None
    if twice := [name for name in names if names.count(name) > 1 and name]:
        raise BadInput(f"two columns are named {twice[0]!r}; rename or drop one")
    return [name or f"column{at}" for at, name in enumerate(names, 1)]
