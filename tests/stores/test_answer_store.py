"""No answer is lost once it was put, whoever writes and however a writer dies."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leastwise.stores.answer_store import ResponseStore, StoredAnswer, answer_key
from leastwise.use_case.price import Usage

ROOT = Path(__file__).parents[2]
ANSWER = StoredAnswer("impact", "stop", Usage(10, 4, 2, 3), 12.5, 1.0, answered_by="gpt-9-2026")
WRITER = """
import sys
from pathlib import Path
from leastwise.use_case.price import Usage
from leastwise.stores.answer_store import ResponseStore, answer_key, stored_now
store = ResponseStore(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    store.put(answer_key(writer=sys.argv[2], i=i), stored_now(str(i), "stop", Usage(1), 1.0))
    print(i, flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_an_answer_comes_back_whole_and_the_first_one_stays(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "answers.db") as store:
        store.put("k", ANSWER)
        store.put("k", StoredAnswer("other", "stop", Usage(), 0.0, 2.0))
        assert store.get_many(["k", "absent"]) == {"k": ANSWER}


def test_a_store_from_before_the_answering_model_was_kept_is_read_and_written(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "answers.db") as store:
        store.put("old", ANSWER)
    with sqlite3.connect(tmp_path / "answers.db") as file:
        file.execute("ALTER TABLE answers DROP COLUMN answered_by")
    with ResponseStore(tmp_path / "answers.db") as store:
        store.put("new", ANSWER)
        found = store.get_many(["old", "new"])
        assert (found["old"].answered_by, found["new"].answered_by) == ("", "gpt-9-2026")
        assert found["old"].text == "impact"


@pytest.mark.parametrize("changed", ["uri", "revision", "messages", "sample"])
def test_anything_that_determines_an_answer_changes_its_key(changed: str) -> None:
    asked = {"uri": "u", "revision": "1", "messages": [["user", "hi"]], "sample": 0}
    assert answer_key(**asked) == answer_key(**dict(reversed(asked.items())))
    assert answer_key(**asked) != answer_key(**{**asked, changed: "else"})


def test_many_keys_are_found_in_one_go(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "answers.db") as store:
        keys = [answer_key(i=i) for i in range(1_200)]
        for key in keys[::2]:
            store.put(key, ANSWER)
        assert list(store.get_many(keys)) and set(store.get_many(keys)) == set(keys[::2])


def test_kill_9_of_a_writer_keeps_every_answer_it_had_put(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    with writer(path, "a", 1_000_000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
        announced = 1 + len([line for line in process.stdout.read().splitlines(keepends=True) if line.strip()])
    with ResponseStore(path) as store:
        assert announced > 10
        assert len(store.get_many([answer_key(writer="a", i=i) for i in range(announced - 1)])) == announced - 1
        store.put("after", ANSWER)


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    for process in [writer(path, name, 300) for name in "abc"]:
        process.communicate()
        assert process.returncode == 0
    assert len(ResponseStore(path)) == 900
