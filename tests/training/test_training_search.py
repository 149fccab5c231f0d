"""A small search finds the better settings, stops bad ones early, repeats nothing and ends where the money does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leastwise.training.settings import TrainingSettings
from leastwise.training.training_rows import Row
from leastwise.training.training_search import as_markdown, distinct, search
from leastwise.use_case.training import Search

START = TrainingSettings(max_examples=64, batch_size=8, upper_blocks_share=1.0, dev_examples=8, threads=2)
WANTED = Search(ranks=(4,), learning_rates=(1e-6, 2e-2), epochs=(1, 2), first_examples=32)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [Row(f"say {word} {n}:", word) for n in range(16) for word in ("up", "down", "left", "right")]


class Payer:
    """Counts the folders it pays for; the `last` one is not affordable."""

    def __init__(self, last: int = 10**9) -> None:
        self.made: list[Path] = []
        self.last = last

    @contextmanager
    def __call__(self, out: Path):  # type: ignore[no-untyped-def]
        if out.exists():
            yield lambda _: None
            return
        if len(self.made) >= self.last:
            raise RuntimeError("the budget is spent")
        self.made.append(out)
        yield lambda _: None


@pytest.fixture(scope="module")
def searched(tiny: Path, rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple]:  # type: ignore[type-arg]
    folder, payer = tmp_path_factory.mktemp("trials"), Payer()
    yield folder, payer, *search(tiny, rows, rows[:8], START, WANTED, folder, payer)


def test_the_rate_that_learns_is_chosen_and_the_one_that_does_not_is_stopped_after_the_first_round(
    searched: tuple,
) -> None:  # type: ignore[type-arg]
    _, payer, chosen, trials = searched
    assert chosen.learning_rate == 2e-2 and chosen.max_examples == START.max_examples
    assert [(trial.examples, trial.goes_on) for trial in trials if trial.settings.learning_rate == 1e-6] == [
        (32, False)
    ] * 2
    assert len(trials) == len(payer.made) == 4 + 2
    assert as_markdown(trials).count("stopped") == 3 and as_markdown(trials).count("goes on") == 3


def test_a_second_search_trains_nothing_again(tiny: Path, rows: list[Row], searched: tuple) -> None:  # type: ignore[type-arg]
    folder, _, chosen, trials = searched
    payer = Payer()
    assert search(tiny, rows, rows[:8], START, WANTED, folder, payer) == (chosen, trials)
    assert not payer.made


def test_a_search_ends_where_the_money_does_and_goes_on_from_there(
    tiny: Path, rows: list[Row], searched: tuple, tmp_path: Path
) -> None:  # type: ignore[type-arg]
    with pytest.raises(RuntimeError, match="budget"):
        search(tiny, rows, rows[:8], START, WANTED, tmp_path, Payer(last=2))
    payer = Payer()
    assert search(tiny, rows, rows[:8], START, WANTED, tmp_path, payer)[0] == searched[2]
    assert len(payer.made) == 4


def test_more_passes_see_fewer_different_rows(rows: list[Row]) -> None:
    twice = distinct(rows, START.model_copy(update={"epochs": 2}))
    assert len(twice) == 32 and len({row.prompt for row in twice}) == 32 and set(twice) <= set(rows)
    assert distinct(rows, START) == rows and len(distinct(rows[:10], START.model_copy(update={"epochs": 3}))) == 10
