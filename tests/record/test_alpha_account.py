"""The alpha account follows the rows: into other files, orders and formats, grown sets, through crashes and races."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.evidence.alpha_account import share_of_alpha
from leastwise.record.alpha_account import EXPERIMENT, ROWS, AlphaAccount
from leastwise.record.client import connect, experiment_id
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from tests.toys import use_case

ALPHA = 0.05
REPOSITORY = Path(__file__).parents[2]


def rows(first: int, last: int, word: str = "text") -> pd.DataFrame:
    each = range(first, last)
    return pd.DataFrame(
        {"id": [f"r{n}" for n in each], "text": [f"{word} {n}" for n in each], "label": ["yes"] * len(each)}
    )


def asked_of(file: Path, table: pd.DataFrame, **data: Any) -> Question:
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=False) if file.suffix == ".csv" else table.to_parquet(file)
    paths = {"gate": str(file), "out_of_scope": None, "shifted": None} | data
    asked = use_case({"quality": (0.8, 0.1)}, **paths)
    return Question(asked, Tables(asked))


@pytest.fixture
def account(home: Path) -> AlphaAccount:
    return AlphaAccount(connect())


def drawn(account: AlphaAccount, question: Question, asked: str | None = None) -> float:
    return account.draw(question, asked or question.key, ALPHA)


def share(number: int) -> float:
    return share_of_alpha(ALPHA, number)


def test_a_file_saved_again_as_another_format_in_another_order_or_labelled_anew_goes_on_in_the_same_account(
    account: AlphaAccount, tmp_path: Path
) -> None:
    table = rows(0, 40)
    same_rows = [
        asked_of(tmp_path / "gate.parquet", table),
        asked_of(tmp_path / "gate.csv", table),
        asked_of(tmp_path / "other.parquet", table.sample(frac=1, random_state=0)),
        asked_of(tmp_path / "relabelled.csv", table.assign(label="no", id=[f"n{n}" for n in range(40)])),
        asked_of(tmp_path / "spaced.csv", table.assign(text="  " + table["text"].str.upper() + "\u00a0")),
    ]
    assert len({question.gate_hash for question in same_rows}) == 5
    assert [drawn(account, question) for question in same_rows] == [share(number) for number in range(1, 6)]
    assert drawn(account, same_rows[2]) == share(3)  # the same question keeps its share
    assert drawn(account, asked_of(tmp_path / "fresh.csv", rows(40, 80))) == share(1)


def test_a_set_that_shares_one_row_with_earlier_ones_continues_their_count(
    account: AlphaAccount, tmp_path: Path
) -> None:
    assert drawn(account, asked_of(tmp_path / "a.csv", rows(0, 30))) == share(1)
    assert drawn(account, asked_of(tmp_path / "b.csv", rows(30, 60))) == share(1)  # nothing in common
    assert drawn(account, asked_of(tmp_path / "grown.csv", rows(0, 60))) == share(3)  # of both
    assert drawn(account, asked_of(tmp_path / "changed.csv", rows(59, 99))) == share(3)  # of b and of the grown one
    assert drawn(account, asked_of(tmp_path / "apart.csv", rows(100, 130))) == share(1)


def test_other_rows_a_candidate_is_judged_on_belong_to_the_set(account: AlphaAccount, tmp_path: Path) -> None:
    rows(0, 9, "outside").to_csv(tmp_path / "out.csv", index=False)
    declining = {"ood_decline": (0.8, 0.1), "quality": (0.8, 0.1)}
    numbers = []
    for first in (0, 100):
        file = tmp_path / f"{first}.csv"
        rows(first, first + 30).to_csv(file, index=False)
        asked = use_case(declining, gate=str(file), out_of_scope=str(tmp_path / "out.csv"), shifted=None)
        numbers.append(drawn(account, Question(asked, Tables(asked))))
    assert numbers == [share(1), share(2)]  # fresh gate rows, the same inputs to decline


def old_draw(question: Question, asked: str, alpha: float | None) -> str:
    """A draw as it was written before rows were kept."""
    client = connect()
    tags = {"leastwise.gate_hash": question.gate_hash, "leastwise.question": asked, "leastwise.kind": "alpha"}
    run_id = client.create_run(experiment_id(client, EXPERIMENT), tags=tags).info.run_id
    if alpha is not None:
        client.log_metric(run_id, "alpha", alpha)
        client.set_terminated(run_id, "FINISHED")
    return str(run_id)


def test_an_account_of_before_goes_on_counting_and_follows_its_rows_from_then_on(
    account: AlphaAccount, tmp_path: Path
) -> None:
    question = asked_of(tmp_path / "gate.parquet", rows(0, 40))
    old = [old_draw(question, "first", share(1)), old_draw(question, "second", share(2))]
    assert drawn(account, question, "first") == share(1)
    assert drawn(account, question, "third") == share(3)
    assert drawn(account, asked_of(tmp_path / "again.csv", rows(0, 40))) == share(4)
    assert ROWS in connect().get_run(old[0]).data.tags


def test_what_this_use_case_was_judged_on_before_rows_were_kept_counts_wherever_its_rows_are_now(
    account: AlphaAccount, tmp_path: Path
) -> None:
    question, client = asked_of(tmp_path / "gate.parquet", rows(0, 40)), connect()
    old_draw(question, "first", share(1))
    tags = {"leastwise.gate_hash": question.gate_hash, "leastwise.kind": "stage"}
    client.create_run(experiment_id(client, question.use_case.name), tags=tags)
    (tmp_path / "gate.parquet").unlink()
    assert drawn(account, asked_of(tmp_path / "again.csv", rows(0, 40))) == share(2)
    old_draw(asked_of(tmp_path / "theirs.csv", rows(200, 240)), "theirs", share(1))  # of another use case
    assert drawn(account, asked_of(tmp_path / "fresh.csv", rows(0, 41))) == share(3)


def test_a_draw_that_a_kill_cut_short_is_settled_by_asking_again(account: AlphaAccount, tmp_path: Path) -> None:
    question = asked_of(tmp_path / "gate.parquet", rows(0, 40))
    cut_short = old_draw(question, "first", None)
    assert drawn(account, question, "other") == share(2)  # it may have been drawn: it counts
    assert drawn(account, question, "first") == share(2)  # and counts what came after
    assert connect().get_run(cut_short).data.metrics["alpha"] == share(2)


def test_a_draw_that_was_deleted_stays_drawn(account: AlphaAccount, tmp_path: Path) -> None:
    question, client = asked_of(tmp_path / "gate.parquet", rows(0, 40)), connect()
    drawn(account, question, "first")
    client.delete_run(client.search_runs([experiment_id(client, EXPERIMENT)])[0].info.run_id)
    assert drawn(account, question, "second") == share(2)


def test_of_two_draws_at_the_same_moment_on_two_machines_at_least_one_counts_the_other(
    account: AlphaAccount, tmp_path: Path
) -> None:
    question = asked_of(tmp_path / "gate.parquet", rows(0, 40))
    both = [account._write(question, asked) for asked in ("one", "other")]  # before either is settled
    shares = [account._settle(each, question, ALPHA) for each in both]
    assert shares == [share(2), share(2)] and sum(shares) <= ALPHA
    assert [drawn(account, question, asked) for asked in ("one", "other", "third")] == [share(2), share(2), share(3)]


DRAWING = """
import sys
from leastwise.record.alpha_account import AlphaAccount
from leastwise.record.client import connect
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from tests.toys import use_case
asked = use_case({"quality": (0.8, 0.1)}, gate=sys.argv[1], out_of_scope=None, shifted=None)
account = AlphaAccount(connect())
print([account.draw(Question(asked, Tables(asked)), f"{sys.argv[2]} {n}", 0.05) for n in range(4)])
"""


def test_processes_that_draw_at_once_never_draw_the_same_share(home: Path, tmp_path: Path) -> None:
    rows(0, 40).to_csv(tmp_path / "gate.csv", index=False)
    command = [sys.executable, "-c", DRAWING, str(tmp_path / "gate.csv")]
    both = [
        subprocess.Popen([*command, name], cwd=REPOSITORY, env=dict(os.environ), stdout=subprocess.PIPE, text=True)
        for name in ("one", "other")
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    shares = [float(value) for out in outputs for value in out.strip().splitlines()[-1].strip("[]").split(",")]
    assert sorted(shares, reverse=True) == [share(number) for number in range(1, 9)]
