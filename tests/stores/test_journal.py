"""Rows kept off the path of whoever brings them: nothing lost on kill -9 beyond the last second, nothing twice."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.stores import storage
from leastwise.stores.tables import journal as journals
from leastwise.stores.tables import table_files
from leastwise.stores.tables.journal import Journal, Row

ROOT = Path(__file__).parents[2]
COLUMNS = {"time": "float64", "id": "string", "text": "string", "tokens": "int64"}
DAY = 1_764_158_400.0  # 2025-11-26 12:00 UTC
WRITER = """
import sys, time
from pathlib import Path
from leastwise.stores.tables.journal import Journal
columns = {"time": "float64", "id": "string", "text": "string", "tokens": "int64"}
journal = Journal(Path(sys.argv[1]), sys.argv[2], columns, 3600, lambda row: row)
for number in range(1_000_000):
    journal.add({"time": time.time(), "id": str(number), "text": f"text {number}", "tokens": number})
    print(number, time.time(), flush=True)
    time.sleep(0.002)
"""


def row(number: int, at: float = DAY, **more: object) -> Row:
    return {"time": at, "id": str(number), "text": f"text {number}", "tokens": number} | more


@contextlib.contextmanager
def journal(
    folder: Path, part_every_s: float = 3600, prepared: Callable[[Row], Row] = dict, target: str = ""
) -> Iterator[Journal]:
    made = Journal(folder / "journal", target or str(folder / "log"), COLUMNS, part_every_s, prepared)
    yield made
    made.close()


def ids(folder: Path) -> list[str]:
    kept = folder / "log"
    return list(table_files.read_table(kept)["id"]) if list(kept.glob("date=*/[!.]*.parquet")) else []


def wait_for(is_so: Callable[[], object]) -> None:
    latest = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < latest
        time.sleep(0.02)


def test_rows_become_parts_by_day_with_the_same_columns_whatever_is_missing(tmp_path: Path) -> None:
    with journal(tmp_path) as kept:
        for number, at in enumerate((DAY, DAY + 86_400, DAY + 1)):
            kept.add(row(number, at))
        kept.add({"time": DAY + 2, "id": "3", "text": None})
    days = sorted(path.parent.name for path in (tmp_path / "log").rglob("*.parquet"))
    assert days == ["date=2025-11-26", "date=2025-11-27"]
    assert ids(tmp_path) == ["0", "2", "3", "1"]
    read = pd.read_parquet(tmp_path / "log" / "date=2025-11-26")
    assert list(read["tokens"])[:2] == [0, 2] and pd.isna(read["tokens"][2])
    assert not list((tmp_path / "journal").iterdir())
    assert (kept.rows, kept.dropped) == (4, 0)


def test_kill_9_loses_nothing_older_than_a_second_and_the_next_process_takes_it_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "journal"), str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(600)]
        writer.send_signal(signal.SIGKILL)
        killed = time.time()
        lines += writer.stdout.read().splitlines()
    given = [(number, float(at)) for number, at in (line.split() for line in lines if " " in line)]
    with journal(tmp_path):
        wait_for(lambda: ids(tmp_path))
    older = [number for number, at in given if at < killed - 1]
    assert len(older) > 50 and set(older) <= set(ids(tmp_path))
    assert len(ids(tmp_path)) == len(set(ids(tmp_path)))


def test_a_line_cut_short_by_a_kill_is_left_out_and_the_others_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    whole = "".join(json.dumps(row(number)) + "\n" for number in range(3))
    (folder / "0-dead.jsonl").write_text(whole + '{"time": 1764158400.0, "id": "3", "te')
    with journal(tmp_path):
        pass
    assert ids(tmp_path) == ["0", "1", "2"]


def test_a_kill_between_part_and_journal_makes_the_same_part_again_not_a_second_one(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    for _ in range(2):
        folder.mkdir(exist_ok=True)
        (folder / "0-dead.jsonl").write_text(json.dumps(row(1)) + "\n")
        with journal(tmp_path):
            pass
    assert ids(tmp_path) == ["1"]


def test_a_journal_that_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    with journal(tmp_path) as first:
        first.add(row(1))
        wait_for(lambda: first.rows == 1)
        with journal(tmp_path) as second:
            second.add(row(2))
        assert ids(tmp_path) == ["2"]
        first.add(row(3))
    assert sorted(ids(tmp_path)) == ["1", "2", "3"]


def test_a_place_that_is_away_keeps_the_rows_here_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_text("a file in the way")
    with journal(tmp_path, part_every_s=0.1) as kept:
        for number in range(3):
            kept.add(row(number))
            wait_for(lambda number=number: kept.rows == number + 1)
        time.sleep(0.5)
        assert list((tmp_path / "journal").glob("*.jsonl"))
        (tmp_path / "log").unlink()
        kept.add(row(3))
        wait_for(lambda: len(ids(tmp_path)) == 4)
    assert ids(tmp_path) == ["0", "1", "2", "3"]


def test_a_place_that_answers_slowly_keeps_no_row_from_the_disk_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_back = threading.Event()
    real = storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", lambda *given: is_back.wait(10) and real(*given))
    with journal(tmp_path, part_every_s=0.1) as kept:
        for number in range(3):
            kept.add(row(number))
            wait_for(lambda number=number: kept.rows == number + 1)
            time.sleep(0.2)
        held = "".join(path.read_text() for path in sorted((tmp_path / "journal").glob("*.jsonl")))
        assert [json.loads(line)["id"] for line in held.splitlines()] == ["0", "1", "2"] and not ids(tmp_path)
        is_back.set()
    assert ids(tmp_path) == ["0", "1", "2"]


def test_a_disk_that_is_full_for_a_while_loses_no_row_and_keeps_no_half_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = os.write, iter([True, True])

    def full(handle: int, data: memoryview) -> int:
        if next(failures, False):
            real(handle, bytes(data)[:7])
            raise OSError(28, "No space left on device")
        return real(handle, data)

    with journal(tmp_path) as kept:
        monkeypatch.setattr(journals.os, "write", full)
        kept.add(row(1))
        kept.add(row(2))
        wait_for(lambda: kept.rows == 2)
    assert ids(tmp_path) == ["1", "2"]


def test_a_disk_that_stays_full_holds_no_more_rows_than_may_wait_and_says_how_many_it_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, is_full = os.write, threading.Event()
    is_full.set()

    def full(handle: int, data: memoryview) -> int:
        if is_full.is_set():
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(journals, "MOST_WAITING_ROWS", 10)
    monkeypatch.setattr(journals, "FLUSH_S", 0.02)
    with journal(tmp_path) as kept:
        monkeypatch.setattr(journals.os, "write", full)
        kept.add(row(0))
        wait_for(lambda: kept._is_troubled)  # it has tried, and said so
        for number in range(1, 60):
            kept.add(row(number))
            time.sleep(0.01)
        assert kept.dropped >= 30
        is_full.clear()
        wait_for(lambda: kept.rows + kept.dropped == 60)
    assert len(ids(tmp_path)) == kept.rows <= 30


def test_rows_that_a_full_disk_took_at_the_end_are_counted_as_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int, _data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    with journal(tmp_path) as kept:
        monkeypatch.setattr(journals.os, "write", full)
        for number in range(3):
            kept.add(row(number))
    assert (kept.rows, kept.dropped) == (0, 3)


def test_a_row_of_another_shape_keeps_no_other_row_from_its_part(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    odd = [row(1, tokens=1e300), row(2, tokens="many"), row(3, at=1e30), row(4, id=7, text=["x"]), row(5, tokens=3.0)]
    lines = [json.dumps(each) for each in (row(0), *odd)] + ["[1]", "7", "null", "\0" * 50]
    (folder / "0-dead.jsonl").write_text("\n".join(lines) + "\n")
    with journal(tmp_path):
        pass
    read = table_files.read_table(tmp_path / "log")
    assert list(read["id"]) == ["0", "1", "2", "7", "5"] and not list(folder.iterdir())
    assert [None if pd.isna(each) else int(each) for each in read["tokens"]] == [0, None, None, 4, 3]


def test_what_cannot_be_kept_stands_in_no_other_rows_way(tmp_path: Path) -> None:
    def prepared(given: Row) -> Row:
        return {**given, "text": str(given["text"]).upper()} if given["id"] != "1" else 1 / 0  # type: ignore[dict-item]  # raises

    with journal(tmp_path, prepared=prepared) as kept:
        for number in range(3):
            kept.add(row(number))
        kept.add(row(3, text="half \ud800 a character"))
    assert ids(tmp_path) == ["0", "2", "3"] and kept.dropped == 1
    assert list(table_files.read_table(tmp_path / "log")["text"]) == ["TEXT 0", "TEXT 2", "HALF ? A CHARACTER"]


def test_a_folder_of_tables_is_one_table_in_the_order_of_names(tmp_path: Path) -> None:
    for name, numbers in {"b/2.csv": [4], "a/1.csv": [1, 2], "b/1.csv": [3], ".part-x/3.csv": [9]}.items():
        storage.write_bytes(tmp_path / name, ("id\n" + "\n".join(map(str, numbers)) + "\n").encode())
    (tmp_path / "notes.txt").write_text("no table")
    read = table_files.read_table(tmp_path)
    assert list(read["id"]) == ["1", "2", "3", "4"] and list(read.index) == [0, 1, 2, 3]


def test_a_folder_without_a_table_and_a_part_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown kind of table"):
        table_files.read_table(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="a folder without a table"):
        table_files.read_table(tmp_path)
    (tmp_path / "notes.txt").write_text("no table")
    with pytest.raises(BadInput, match="a folder without a table"):
        table_files.read_table(tmp_path)
    (tmp_path / "1.parquet").write_bytes(b"no parquet")
    with pytest.raises(BadInput, match=r"1\.parquet: unreadable table"):
        table_files.read_table(tmp_path)
