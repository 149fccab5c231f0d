"""A pinned version answers until somebody moves the champion, and never again after that, whoever looks and when."""

from collections.abc import Callable
from pathlib import Path

import pytest

from leastwise.record.registry import Registry
from leastwise.serving.deployed.starting import pinned
from leastwise.serving.worker import registered
from tests.serving.endpoints import three_versions

MOVES: dict[str, Callable[[Registry], object]] = {
    "promote 2": lambda registry: registry.promote("2", "the pinned one"),
    "promote 3": lambda registry: registry.promote("3", "another"),
    "roll back": lambda registry: registry.rollback("not so good"),
    "challenge 3": lambda registry: registry.challenge("3", "a retraining"),
    "by hand 3": lambda registry: registry.client.set_registered_model_alias("toy", "champion", "3"),
}


@pytest.fixture
def registry(home: Path) -> Registry:
    return three_versions()


@pytest.mark.parametrize(
    ("before", "after", "served"),
    [
        ("", "", "2"),
        ("", "challenge 3", "2"),
        ("", "promote 3", "3"),
        ("", "promote 2", "2"),
        ("", "promote 2, promote 3", "3"),
        ("", "by hand 3", "3"),
        ("1", "", "2"),
        ("1", "promote 3", "3"),
        ("1", "promote 3, roll back", "1"),
        ("1", "promote 2, roll back", "1"),
        ("2", "promote 3, roll back", "2"),
    ],
)
def test_a_pinned_version_answers_until_the_champion_is_moved(
    registry: Registry, before: str, after: str, served: str
) -> None:
    if before:
        registry.promote(before, "first")
    pin = pinned(registry, "2")
    seen = registered("toy", pin)
    assert seen.aliases()["champion"] == "2"
    for move in filter(None, after.split(", ")):
        MOVES[move](registry)
    assert seen.aliases()["champion"] == served
    assert registered("toy", pin).aliases() == seen.aliases(), "a process that is started only now says the same"


def test_a_move_that_a_crash_cut_short_has_moved_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.promote("1", "first")
    pin = pinned(registry, "2")
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "_apply", lambda *_: None)
        registry.promote("3", "cut short")
    assert registered("toy", pin).aliases()["champion"] == "2"
    registry.finish_interrupted()
    assert registered("toy", pin).aliases()["champion"] == "3"


def test_where_the_first_champion_since_does_not_start_the_pinned_version_goes_on(registry: Registry) -> None:
    registry.promote("1", "first")
    pin = pinned(registry, "2")
    registry.promote("3", "does not start")
    assert registered("toy", pin).predecessor() == "2"
    registry.promote("1", "as it was")
    assert registered("toy", pin).predecessor() == "3"
