"""Parquet, CSV and JSON lines as data frames whose values are exactly what the file says; BadInput names the line.

Each is read a block of rows at a time, so that a long one need never be held whole (an array of JSON objects is).
Nothing is guessed: `007` and `NA` stay text, 0.1 is 0.1, an integer stays one beside a missing value. What a column
should hold is said by who uses it (`leastwise.stores.tables.table_values`).
"""

from __future__ import annotations

import csv
import json
import sys
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from leastwise.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    _Short = Callable[[float], object] | list["_Short"] | dict[str, "_Short"]

ROWS_AT_A_TIME = 50_000  # read as objects before they are kept as columns
BYTES_AT_A_TIME = 1 << 20
_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
_BOM = b"\xef\xbb\xbf"


class _Record(NamedTuple):
    """A record and the line of the file it begins in."""

    line: int
    fields: dict[str, object]


def csv_blocks(file: IO[bytes]) -> Iterator[pd.DataFrame]:
    """Every column as text, empty cells missing; separated by commas, or by semicolons or tabs where the header is."""
    _check_utf8(file)
    separator = max(_SEPARATORS, key=lambda each: len(_first(file, each)))  # a comma among equals
    lines = _lines(file, separator)
    header = next(lines, _EMPTY).cells
    if not header:
        raise BadInput("is empty. Write a header with the names of the columns, and rows.")
    _check_names(header)
    return _framed((_record(line, header, separator) for line in lines), header)


class _Line(NamedTuple):
    """A row of a CSV and the line of the file it ends in."""

    number: int
    cells: list[str]


_EMPTY = _Line(0, [])


def _rows_of(file: IO[bytes], separator: str, strict: bool = False) -> Iterator[_Line]:
    csv.field_size_limit(sys.maxsize)
    file.seek(0)
    text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        reader = csv.reader(text, delimiter=separator, strict=strict)
        try:
            yield from (_Line(reader.line_num, cells) for cells in reader)
        except csv.Error as error:
            raise BadInput(
                f"line {reader.line_num}: {error}. Put a text with a quote in it in quotes, that quote written twice "
                '("").'
            ) from None
    finally:
        if not file.closed:
            text.detach()  # the file is not ours to close


def _first(file: IO[bytes], separator: str) -> list[str]:
    return next((row.cells for row in _rows_of(file, separator) if row.cells), [])


def _lines(file: IO[bytes], separator: str) -> Iterator[_Line]:
    return (row for row in _rows_of(file, separator, strict=True) if row.cells)


def _record(line: _Line, header: Sequence[str], separator: str) -> _Record:
    if len(line.cells) != len(header):
        raise BadInput(
            f"line {line.number}: {len(line.cells)} cells, but the header has {len(header)}. Put a text with "
            f"{_SEPARATORS[separator]} in it in double quotes, or complete the row."
        )
    fields = zip(header, line.cells, strict=True)
    return _Record(line.number, {name: cell or None for name, cell in fields if name})


def json_lines_blocks(file: IO[bytes]) -> Iterator[pd.DataFrame]:
    """One object a line (or one array of them): each value as JSON has it, a field that is absent or null missing."""
    _check_utf8(file)
    if _begins_with(file).lstrip()[:1] == b"[":
        return _framed(_listed(file.read()), ())
    file.seek(0)
    is_long = len(list(islice(file, ROWS_AT_A_TIME + 1))) > ROWS_AT_A_TIME
    names = dict.fromkeys(name for record in _objects(file) for name in record.fields) if is_long else {}
    return _framed(_objects(file), list(names))  # a field may appear first in a later block


def _begins_with(file: IO[bytes]) -> bytes:
    """What follows byte-order mark and blanks, which the file is left at."""
    at = 0
    file.seek(at)
    for line in file:
        said = line.removeprefix(_BOM) if not at else line
        if said.strip():
            file.seek(at + len(line) - len(said))
            return said
        at += len(line)
    return b""


def _objects(file: IO[bytes]) -> Iterator[_Record]:
    file.seek(0)
    lines = (line.removeprefix(_BOM) if at == 1 else line for at, line in enumerate(file, 1))
    return (_object(line, at) for at, line in enumerate(lines, 1) if line.strip())


def _listed(body: bytes) -> Iterator[_Record]:
    for at, each in enumerate(_parsed(body, "the array"), 1):
        if not isinstance(each, dict):
            raise BadInput(
                f"row {at}: is no object ({str(each)[:40]}). Write an object with the columns as its fields."
            )
        yield _Record(at, each)


def _object(line: bytes, at: int) -> _Record:
    value = _parsed(line, f"line {at}")
    if not isinstance(value, dict):
        raise BadInput(
            f"line {at}: is no object ({str(value)[:40]}). Write one object a line, a field for each column."
        )
    return _Record(at, value)


def _parsed(text: bytes, place: str) -> list[object] | dict[str, object]:
    try:
        value: list[object] | dict[str, object] = strict_json(text.decode())
    except RecursionError:
        raise BadInput(f"{place}: is nested too deep. Make the record flatter.") from None
    except ValueError as error:
        raise BadInput(f"{place}: is no JSON ({error}). Write one object a line, or correct it.") from None
    return value


def strict_json(text: bytes | str) -> Any:
    """What a JSON text says; ValueError where it is none, a field stands twice, or a number is none (NaN)."""
    return json.loads(text, object_pairs_hook=unrepeated, parse_constant=_refused)


def unrepeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The fields of a JSON object; ValueError where one stands twice: which of them is right?"""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the field {twice!r} stands twice")
    return fields


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no value of JSON, write null")


def parquet_blocks(file: IO[bytes]) -> Iterator[pd.DataFrame]:
    """Every column in its own type: text as text (dictionaries decoded), integers exact beside missing values.

    A float of 32 or 16 bits is the shortest number that is meant by it: 0.1, not 0.10000000149011612.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Without a buffer of so many bytes a column of a whole row group is held, which may be the file.
    read = pq.ParquetFile(file, buffer_size=BYTES_AT_A_TIME, pre_buffer=False)
    names = read.schema_arrow.names
    _check_names(names)
    has_rows = False
    for batch in read.iter_batches(batch_size=ROWS_AT_A_TIME):
        has_rows = True
        yield _as_frame(pa.Table.from_batches([batch]))
    if not has_rows:
        yield _as_frame(read.schema_arrow.empty_table())


def _as_frame(table: pa.Table) -> pd.DataFrame:
    import pandas as pd

    table.validate(full=True)
    return pd.DataFrame({name: _series(column) for name, column in zip(table.column_names, table.columns, strict=True)})


def _series(column: pa.ChunkedArray) -> pd.Series:
    import pandas as pd
    import pyarrow as pa

    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pd.Series(column.cast(pa.large_string()).to_pandas(), dtype="str")
    if short := _short_floats(kind):
        return pd.Series([_as_meant(value, short) for value in column.to_pylist(maps_as_pydicts="strict")])
    is_number = types.is_integer(kind) or types.is_boolean(kind)
    if types.is_floating(kind) or types.is_timestamp(kind) or (is_number and not column.null_count):
        return pd.Series(column.to_pandas())
    return pd.Series(column.to_pylist(maps_as_pydicts="strict"), dtype=object)


def _short_floats(kind: pa.DataType) -> _Short | None:
    """Where a type has floats of less than 64 bits, at any depth; None where it has none."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return np.float32 if pa.types.is_float32(kind) else np.float16
    if pa.types.is_map(kind):
        return {"": inner} if (inner := _short_floats(kind.item_type)) else None
    if pa.types.is_struct(kind):
        fields = {field.name: inner for field in kind if (inner := _short_floats(field.type))}
        return fields or None
    if any(is_list(kind) for is_list in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        return [inner] if (inner := _short_floats(kind.value_type)) else None
    return None


def _as_meant(value: object, short: _Short) -> object:
    if isinstance(value, float) and not isinstance(short, (dict, list)):
        return float(str(short(value)))
    if isinstance(value, list) and isinstance(short, list):
        return [_as_meant(each, short[0]) for each in value]
    if isinstance(value, dict) and isinstance(short, dict):
        kept = {name: short.get(name, short.get("")) for name in value}
        return {name: _as_meant(each, inner) if (inner := kept[name]) else each for name, each in value.items()}
    return value


def _framed(records: Iterator[_Record], columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The records as tables, each of a block of rows; `columns`: those of every block, whatever a block's rows have."""
    import pandas as pd

    block: list[_Record] = list(islice(records, ROWS_AT_A_TIME))
    named = dict.fromkeys(filter(None, columns))
    if not block:
        yield pd.DataFrame(columns=list(named))
    while block:
        names = list(named or dict.fromkeys(name for record in block for name in record.fields))
        yield pd.DataFrame({name: _column([record.fields.get(name) for record in block]) for name in names})
        block = list(islice(records, ROWS_AT_A_TIME))


def _column(values: list[object]) -> pd.Series:
    import pandas as pd

    is_text = all(value is None or isinstance(value, str) for value in values) and any(values)
    try:
        return pd.Series(values, dtype="str" if is_text else object)
    except UnicodeEncodeError:  # half a character, of a surrogate pair: refused where the text is used
        return pd.Series(values, dtype=object)


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise BadInput(f"two columns are named {twice[0]!r}. Rename or drop one.")


def _check_utf8(file: IO[bytes]) -> None:
    decoder, before, lines = getincrementaldecoder("utf-8")(), 0, 1
    file.seek(0)
    while True:
        part = file.read(BYTES_AT_A_TIME)
        held = len(decoder.getstate()[0])  # of a character that the part before broke off
        try:
            decoder.decode(part, final=not part)
        except UnicodeDecodeError as error:
            at = error.start - held
            line = lines + part.count(b"\n", 0, max(at, 0))
            raise BadInput(
                f"line {line}: byte {before + at:,} of the file is no UTF-8. Save it as UTF-8 (it may be Windows-1252)."
            ) from None
        if not part:
            break
        before, lines = before + len(part), lines + part.count(b"\n")
    file.seek(0)
