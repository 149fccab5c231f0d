"""A disk that is full, a real one of a few hundred kilobytes: what was kept stays whole, what is half-written is none.

Where nobody may mount a file system, these are skipped.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.stores import storage
from leastwise.stores.answer_store import ResponseStore, StoredAnswer
from leastwise.stores.caps import Caps
from leastwise.stores.ledger_file import LedgerFile
from leastwise.stores.remembered import Remembered
from leastwise.stores.response_cache import FileCache
from leastwise.stores.tables import table_files
from leastwise.use_case.price import Usage

ROOT = Path(__file__).parents[2]
FULL = r"disk is full|No space left"
CAPS = Caps("climb", 1e6, None)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


def test_a_cache_for_production_is_never_why_there_is_no_answer(disk: Path) -> None:
    cache = FileCache(disk / "cache.db", ttl_s=3600, most_bytes=10**9)
    cache.put("kept", b"before")
    ballast = fill(disk)
    cache.put("lost", b"x" * 200_000)
    assert cache.get("lost") is None and cache.get("kept") in (b"before", None)
    ballast.unlink()
    assert cache.get("kept") == b"before"
    cache.put("after", b"well again")
    assert cache.get("after") == b"well again"
    cache.close()


def answer(text: str) -> StoredAnswer:
    return StoredAnswer(text, "stop", Usage(10, 4, 2, 3), 12.5, 1.0)


def test_answers_bought_before_the_disk_was_full_are_there_and_no_half_one_is(disk: Path) -> None:
    with ResponseStore(disk / "answers.db") as store:
        store.put("before", answer("yes"))
        ballast, put = fill(disk), 0
        with pytest.raises(sqlite3.OperationalError, match=FULL):
            for put in range(1000):
                store.put(f"k{put}", answer("x" * 5000))
    ballast.unlink()
    with ResponseStore(disk / "answers.db") as store:
        kept = store.get_many(["before", *(f"k{at}" for at in range(1000))])
        assert kept == {"before": answer("yes")} | {f"k{at}": answer("x" * 5000) for at in range(put)}
        store.put("after", answer("no"))


def test_a_call_that_cannot_be_reserved_on_a_full_disk_is_none_and_the_caps_hold_afterwards(disk: Path) -> None:
    ledger = LedgerFile(disk / "ledger.db")
    before = ledger.reserve(CAPS, "case", "prompt", 1.0)
    ballast, reserved = fill(disk), 1
    with pytest.raises(sqlite3.OperationalError, match=FULL):
        for _ in range(10_000):
            ledger.reserve(CAPS, "case", "prompt", 1.0)
            reserved += 1
    assert ledger.reserved("climb") == reserved  # what it could not write it does not count
    ballast.unlink()
    ledger.settle(before, 0.25)
    again = LedgerFile(disk / "ledger.db")
    assert (again.spent("climb"), again.reserved("climb")) == (0.25, reserved - 1)


def _table(folder: Path, rows: int) -> None:
    table_files.write_table(pd.DataFrame({"text": [os.urandom(400).hex() for _ in range(rows)]}), folder / "t.parquet")


def _fact(folder: Path, rows: int) -> None:
    Remembered(folder).put("fact", {"rows": [os.urandom(400).hex() for _ in range(rows)]})


def _file(folder: Path, rows: int) -> None:
    storage.write_bytes(folder / "weights.bin", os.urandom(800 * rows))


@pytest.mark.parametrize("write", [_table, _fact, _file])
def test_a_file_that_finds_no_room_leaves_the_one_before_it_whole(disk: Path, write: Callable[..., None]) -> None:
    write(disk, 10)
    before = {path.name: path.read_bytes() for path in disk.iterdir()}
    fill(disk)
    with pytest.raises(OSError, match=FULL):
        write(disk, 100)
    assert {name: (disk / name).read_bytes() for name in before} == before
    left = {path.name for path in disk.iterdir()} - {*before, "ballast"}
    assert all(name.endswith(".unfinished") for name in left)  # under a name that nobody reads


def test_a_state_directory_without_room_is_refused_before_anything_starts(disk: Path, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    (tmp_path / "case.yaml").write_text("name: none\n")
    done = subprocess.run(
        [sys.executable, "-m", "flows.customize", str(tmp_path / "case.yaml")],
        cwd=ROOT,
        env=kept | {"LEASTWISE_HOME": str(disk / "state")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    (line,) = done.stdout.splitlines()
    ending = json.loads(line)
    assert (done.returncode, ending["outcome"]) == (2, "bad_input")
    assert "the disk is full (0." in ending["reason"] and "LEASTWISE_HOME" in ending["reason"]
    assert not any(disk.iterdir())


def test_room_is_looked_for_where_the_state_will_be_made(disk: Path) -> None:
    storage.check_room(disk / "not" / "yet", least_bytes=100_000)
    with pytest.raises(BadInput, match=r"not/yet: the disk is full"):
        storage.check_room(disk / "not" / "yet", least_bytes=1_000_000)
