"""Local paths and a real S3 server behave alike; what is wrong is named without its secrets."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.rows.question import Question
from leastwise.rows.reading.log_copies import with_copies
from leastwise.rows.tables import TABLES, Tables
from leastwise.stores import storage
from leastwise.stores.sqlite_file import open_wal, write_ahead
from leastwise.stores.tables import table_files
from leastwise.stores.tables.journal import Columns, Journal
from tests.rows.test_request_log import case, logged, requests
from tests.servers.s3_server import S3, s3_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as s3:
        yield s3


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(params=["local", "file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        return f"s3://{s3.bucket}/{request.node.name}"
    return f"file://{tmp_path}" if request.param == "file" else str(tmp_path)


def test_what_was_written_is_read_back(root: str) -> None:
    uri = f"{root}/folder/a.bin"
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"first")
    storage.write_bytes(uri, b"second")
    assert storage.exists(uri)
    assert storage.exists(f"{root}/folder")
    assert not storage.exists(f"{root}/fold")
    assert storage.read_bytes(uri) == b"second"
    assert storage.sha256(uri) == hashlib.sha256(b"second").hexdigest()


def test_a_folder_is_fetched_whole_and_has_the_hash_of_its_content(root: str, tmp_path: Path) -> None:
    for folder in (tmp_path / "source", f"{root}/copy"):
        storage.write_bytes(f"{folder}/a.txt", b"a")
        storage.write_bytes(f"{folder}/deep/b.txt", b"b")
    fetched = storage.fetch(f"{root}/copy", tmp_path / "fetched")
    assert {file.relative_to(fetched).as_posix() for file in fetched.rglob("*.txt")} == {"a.txt", "deep/b.txt"}
    assert storage.sha256(f"{root}/copy") == storage.sha256(tmp_path / "source") == storage.sha256(fetched)


def test_one_file_is_fetched_by_its_own_name(root: str, tmp_path: Path) -> None:
    storage.write_bytes(f"{root}/x/other.txt", b"one")
    assert storage.fetch(f"{root}/x/other.txt", tmp_path / "down").read_bytes() == b"one"


def test_what_is_missing_is_named_with_a_remedy(root: str, tmp_path: Path) -> None:
    for action in (
        storage.read_bytes,
        storage.sha256,
        table_files.read_table,
        lambda uri: storage.fetch(uri, tmp_path / "d"),
    ):
        with pytest.raises(BadInput, match=r"absent\.csv: (no such|nothing there)"):
            action(f"{root}/absent.csv")


def test_a_writable_place_stays_as_it_was(root: str) -> None:
    storage.check_writable(f"{root}/not/yet/there")
    assert not storage.exists(f"{root}/not")


def test_a_wrong_secret_is_refused_and_not_shown(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(f"s3://{s3.bucket}/guarded", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    for action in (storage.read_bytes, storage.exists, storage.check_writable):
        with pytest.raises(BadInput, match="access refused") as refused:
            action(f"s3://{s3.bucket}/guarded")
        assert "not-the-secret" not in str(refused.value)


def test_a_silent_server_is_an_outage_not_bad_input(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="does not answer"):
        storage.read_bytes(f"s3://{s3.bucket}/a")


def test_credentials_in_a_uri_are_not_repeated() -> None:
    for uri in ("s3://key:hidden@bucket/a", "ftp://me:hidden@host/a", "file://me:hidden@host/a"):
        with pytest.raises(BadInput) as refused:
            storage.read_bytes(uri)
        assert "hidden" not in str(refused.value)


def test_mlflow_artifacts_live_on_s3(s3: S3, tmp_path: Path) -> None:
    code = """
import json, mlflow, sys
mlflow.set_tracking_uri("sqlite:///" + sys.argv[1] + "/mlflow.db")
experiment = mlflow.create_experiment("on-s3", artifact_location=sys.argv[2])
with mlflow.start_run(experiment_id=experiment) as run:
    mlflow.log_text("evidence", "gate/table.txt")
    uri = mlflow.get_artifact_uri("gate/table.txt")
path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=sys.argv[1])
print(json.dumps([uri, open(path).read()]))
"""
    silence = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    environment = {**os.environ, **silence, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tmp_path), f"s3://{s3.bucket}/mlflow"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    uri, text = json.loads(done.stdout.splitlines()[-1])
    assert text == "evidence"
    assert storage.read_bytes(uri) == b"evidence"


def test_rows_a_service_kept_are_read_as_one_table_wherever_they_lie(root: str, tmp_path: Path) -> None:
    columns: Columns = {"time": "float64", "text": "string"}
    for number in range(2):
        kept = Journal(tmp_path / "journal", f"{root}/traffic", columns, 3600, dict)
        kept.add({"time": 1_764_158_400.0 + number, "text": f"text {number}"})
        kept.close()
    assert list(table_files.read_table(f"{root}/traffic")["text"]) == ["text 0", "text 1"]
    assert list(table_files.read_table(f"{root}/traffic/date=2025-11-26")["text"]) == ["text 0", "text 1"]


def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    storage.write_bytes(target, b"old")
    with pytest.raises(TypeError):
        storage.write_bytes(target, "text, not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_in_the_way_is_not_a_writable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="a file stands where a folder is needed"):
        storage.check_writable(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.parquet", lambda frame, path: frame.to_parquet(path)),
        ("t.csv", lambda frame, path: frame.to_csv(path, index=False)),
        ("t.jsonl", lambda frame, path: frame.to_json(path, orient="records", lines=True)),
    ],
)
def test_tables_keep_words_that_look_like_missing_or_numbers(tmp_path: Path, name: str, write: object) -> None:
    frame = pd.DataFrame({"id": ["001", "2"], "text": ["NA", "2024-01-01"], "label": ["null", "x"]})
    write(frame, tmp_path / name)  # type: ignore[operator]
    assert table_files.read_table(tmp_path / name).values.tolist() == frame.values.tolist()


@pytest.mark.parametrize("name", ["broken.parquet", "broken.jsonl", "unknown.xls"])
def test_an_unreadable_table_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{not a table")
    with pytest.raises(BadInput, match=name):
        table_files.read_table(tmp_path / name)


def test_uris_resolve_against_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("BUCKET", "b")
    assert storage.home() == tmp_path / "state"
    assert storage.resolve("data/a.csv", tmp_path) == str(tmp_path / "data" / "a.csv")
    assert storage.resolve("${LEASTWISE_HOME}/a", "/elsewhere") == str(tmp_path / "state" / "a")
    assert storage.resolve("s3://${BUCKET}/a", tmp_path) == "s3://b/a"
    assert storage.resolve("../a.csv", "s3://b/use_cases") == "s3://b/a.csv"
    with pytest.raises(BadInput, match="LEASTWISE_UNSET_X"):
        storage.resolve("${LEASTWISE_UNSET_X}/a", tmp_path)


def test_home_is_below_the_current_folder_unless_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEASTWISE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert storage.home() == tmp_path / ".leastwise"
    assert storage.resolve("${LEASTWISE_HOME}", tmp_path) == str(tmp_path / ".leastwise")


def test_a_written_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "text": ["one", "two"], "label": ["x", "y"]})
    table_files.write_table(table, tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(table_files.read_table(tmp_path / "table.parquet"), table)


def test_a_read_only_file_system_is_named_with_where_the_state_may_move() -> None:
    with pytest.raises(BadInput, match=r"^/state: no permission.*LEASTWISE_HOME"), storage._explained("/state"):
        raise OSError(errno.EROFS, "Read-only file system")


@pytest.mark.parametrize("damage", ["no database at all", "a page in the middle"])
def test_a_damaged_state_file_is_named_with_the_remedy_and_is_left_as_it_is(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "ledger.db"
    if damage == "no database at all":
        file.write_bytes(b"rubbish" * 2000)
    else:
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, words TEXT)")
            connection.executemany("INSERT INTO calls (words) VALUES (?)", [("word " * 40,)] * 400)
        connection.close()
        content = bytearray(file.read_bytes())
        content[8192:12288] = b"\xff" * 4096
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(BadInput, match=r"ledger.db: this state file is damaged .*backup"):
        open_wal(file, "")
    assert file.read_bytes() == before


@pytest.mark.parametrize("begun", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_new_state_file_that_another_is_writing_is_waited_for(tmp_path: Path, begun: str) -> None:
    file = tmp_path / "ledger.db"
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY)")
        other.execute(begun)
        done = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        done.start()
        try:
            with closing(open_wal(file, "CREATE TABLE IF NOT EXISTS totals (id INTEGER)")) as mine:
                assert mine.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        finally:
            done.join()


def test_a_state_file_that_stays_locked_is_an_error_in_the_end(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    with (
        closing(sqlite3.connect(file, isolation_level=None)) as other,
        closing(sqlite3.connect(file, timeout=0.1)) as mine,
    ):
        other.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY)")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write_ahead(mine, within_s=0.1)


def test_an_endpoints_log_in_s3_is_the_table_that_it_is_in_a_folder(s3: S3, tmp_path: Path) -> None:
    log, there = (
        logged(tmp_path, a=requests(10), b=requests(10, 1).drop(columns="trace_id")),
        f"s3://{s3.bucket}/log/toy",
    )
    for part in table_files.parts_of(str(log)):
        storage.write_bytes(f"{there}/{Path(part).relative_to(log)}", Path(part).read_bytes())
    storage.write_bytes(f"s3://{s3.bucket}/log/toy-shadow/date=2026-11-20/s.parquet", b"another log")
    tables = {uri: Tables(case(tmp_path, uri)) for uri in (there, str(log))}
    rows = [each.need("traffic") for each in tables.values()]
    pd.testing.assert_frame_equal(*rows)
    assert tables[there].hashes["traffic"] == tables[str(log)].hashes["traffic"] == storage.sha256(log)
    copies = [with_copies(each.use_case, TABLES, tmp_path / "home") for each in tables.values()]
    assert len({Question(each, Tables(each)).key for each in copies}) == 1
