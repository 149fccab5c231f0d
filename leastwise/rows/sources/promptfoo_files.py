"""promptfoo's tests that lie in other files (`tests: file://cases.csv`, a list of such, a pattern), read there.

Only files of this machine, at or below the folder of the configuration. Code that makes tests is not run, nothing
is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from leastwise.errors import BadInput, problems_of, refuse
from leastwise.rows.sources import files
from leastwise.stores.uris import is_s3, local_path

FILE = "file://"
READ = (".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)

Test = Mapping[str, object]
Row = Callable[[Mapping[str, object]], Test]  # a row of a table of tests as a test


def tests_of(record: Mapping[str, object], source: str, of_row: Row) -> tuple[list[Test], list[str]]:
    """The tests of a configuration, and where each stands; BadInput with all that cannot be read of them."""
    given = record.get("tests")
    entries: Sequence[object] = given if isinstance(given, list) else [given] if isinstance(given, str) else []
    if not entries or not all(isinstance(each, (dict, str)) for each in entries):
        raise BadInput(f"{source}: has no list `tests` of vars and assert; of YAML files promptfoo's are read")
    tests: list[Test] = []
    places: list[str] = []

    def take(at: int, entry: object) -> None:
        if isinstance(entry, dict):
            tests.append(entry)
            places.append(f"{source}: test {at}")
        for path in _paths(str(entry), source) if isinstance(entry, str) else []:
            held = _held(path, of_row)
            tests.extend(held)
            places.extend(f"{path}: test {number}" for number in range(1, len(held) + 1))

    refuse(problems_of(partial(take, at, entry) for at, entry in enumerate(entries, 1)))
    return tests, places


def _paths(named: str, source: str) -> list[Path]:
    """The files that an entry names; BadInput where they are elsewhere, are no data, or are not there."""
    name, where = named.removeprefix(FILE), f"{source}: tests: {named!r:.200}"
    if is_s3(source) or _SCHEME.match(name):
        raise BadInput(f"{where}: only files beside a configuration on this machine are read; fetch it, and name it")
    folder = local_path(source).parent.resolve()
    try:
        found = sorted(folder.glob(name)) if any(mark in name for mark in "*?[") else [folder / name]
        found = [each.resolve() for each in found]
    except (ValueError, NotImplementedError, OSError):
        raise BadInput(f"{where}: is no path within {folder}; correct it") from None
    if outside := [each for each in found if not each.is_relative_to(folder)]:
        raise BadInput(f"{where}: {outside[0]} lies outside of {folder}; put it there, or name it as a source")
    if not found or not all(each.is_file() for each in found):
        raise BadInput(f"{where}: no such file in {folder}; correct it")
    if code := [each for each in found if each.suffix.lower() not in READ]:
        raise BadInput(
            f"{where}: {code[0].suffix or 'a file without ending'} is not read (code is not run); write its tests into "
            f"one ending in {', '.join(READ)}"
        )
    return found


def _held(path: Path, of_row: Row) -> list[Test]:
    """The tests of one file; of a table each row."""
    raw = files.read_file(str(path))
    if raw.record is None and path.suffix.lower() in (".csv", ".tsv"):
        records = raw.table.to_dict("records")
        return [of_row({str(name): value for name, value in each.items()}) for each in records]
    held: object = raw.record.get("tests") if raw.record is not None else raw.table.to_dict("records")
    if not isinstance(held, list) or not held or not all(isinstance(each, dict) and "vars" in each for each in held):
        raise BadInput(f"{path}: is no list of tests with vars; write them out as promptfoo's documentation has them")
    return held
