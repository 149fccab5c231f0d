"""The bill of a job at a host: whatever it is said to cost meanwhile, nothing stays reserved, what it came to is spent,
and no cap is passed by what is reserved.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.answering.asked import asked_of
from leastwise.money.machine_cost import most_hosted_training_usd
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.ledger import Meter
from leastwise.stores.ledger_file import LedgerFile
from leastwise.training.hosted.bill import JobBill
from leastwise.training.hosted.examples import examples_of, training_key
from leastwise.use_case import UseCase

USD = st.floats(0, 50, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(USD, min_size=1, max_size=6), USD, st.sampled_from(["settled", "at worst", "released"]))
def test_whatever_a_job_says_it_costs_the_cap_holds_and_nothing_stays_reserved(
    said: list[float], actual: float, how: str
) -> None:
    with TemporaryDirectory() as folder, LedgerFile(Path(folder) / "ledger.db") as ledger:
        meter = Meter(ledger, Caps("c", 60.0, None), "u", "fine_tune", "training")
        bill = JobBill.opened(meter, said[0])
        for usd in said[1:]:
            bill.cover(usd)
        assert ledger.reserved("c") == pytest.approx(max(said), abs=1e-6) and ledger.calls("c") == 0
        with pytest.raises(BudgetExceeded):
            bill.cover(61.0)
        if how == "settled":
            bill.settle(actual)
        else:
            (bill.settle_at_worst if how == "at worst" else bill.release)()
        assert ledger.reserved("c") == 0
        came_to = {"settled": actual, "at worst": max(said), "released": 0.0}[how]
        assert ledger.spent("c") == pytest.approx(came_to, abs=1e-6)
        assert ledger.spent_by("c", "fine_tune") == pytest.approx(came_to, abs=1e-6), "it is the stage's"


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60).filter(str.strip)


def case(folder: Path, train: pd.DataFrame, **training: Any) -> UseCase:
    for name in ("train", "gate"):
        train.to_parquet(folder / f"{name}.parquet")
    base = {"uri": "fireworks:accounts/fireworks/models/m", "venue": "managed", "price": {"input": 1, "output": 1}}
    price = {"usd_per_million_tokens": 3.0, "source": "s", "as_of": "2026-11-27"}
    return UseCase.model_validate(
        {
            "name": "bound",
            "task": {"instruction": "Say which.", "labels": ["yes", "no"]},
            "data": {name: str(folder / f"{name}.parquet") for name in ("train", "gate")},
            "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
            "traffic": {"requests_per_month": 10},
            "models": {"candidates": [{"uri": "openai:m", "price": {"input": 1, "output": 1}}]},
            "training": {"managed": {"base": base, "account": "a", "price": price}} | training,
            "allow_no_test": True,
        }
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXT, min_size=3, max_size=12, unique=True), st.integers(1, 3), st.integers(2, 20))
def test_what_is_estimated_at_worst_is_no_less_than_what_is_reserved(
    texts: list[str], epochs: int, examples: int
) -> None:
    rows = pd.DataFrame({"id": [f"r{n}" for n in range(len(texts))], "text": texts, "label": "yes"})
    rows.loc[::2, "label"] = "no"
    with TemporaryDirectory() as folder:
        use_case = case(Path(folder), rows, epochs=epochs, max_examples=examples)
        question = Question(use_case, Tables(use_case))
        reserved = examples_of(use_case, question.tables.need("train"))
        managed = use_case.training.managed
        assert managed and managed.price
        usd = managed.price.usd(reserved.most_tokens * epochs)
        assert most_hosted_training_usd(use_case, asked_of(question)) >= usd > 0
        assert len(reserved.each) == min(len(texts), max(1, examples // epochs))
        assert examples_of(use_case, question.tables.need("train")) == reserved, "the draw is seeded"
        assert len(training_key(use_case, managed, reserved)) == 24
