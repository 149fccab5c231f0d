"""Headroom before an instruction is rewritten, and the test a new one has to pass: their errors by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leastwise.evidence.choosing.headroom import ALPHA, FORM_SHARE, SurelyBetter, headroom, least_gain
from leastwise.evidence.examples_needed import LOOK

LABELS = [f"l{number}" for number in range(8)]
RUNS = 300
NOISE = 3 * (ALPHA * (1 - ALPHA) / RUNS) ** 0.5  # three standard errors of a rate that is estimated by so many runs


def answered(rng: np.random.Generator, rows: int, known: float, elsewhere: float) -> tuple[list[str], list[list[str]]]:
    """Expected labels of uneven shares, and what five variants say: rows all of them know, rows that each but the first
    knows with probability `elsewhere`, and else a guess, each with a liking of its own.
    """
    shares = rng.dirichlet(np.ones(len(LABELS)) * 2)
    expected = [LABELS[at] for at in rng.choice(len(LABELS), rows, p=shares)]
    is_known = rng.random(rows) < known
    said = []
    for variant in range(5):
        liking = rng.dirichlet(np.ones(len(LABELS)))
        guesses = [LABELS[at] for at in rng.choice(len(LABELS), rows, p=liking)]
        knows = is_known | ((rng.random(rows) < elsewhere) & (variant > 0))
        said.append([right if each else guess for right, each, guess in zip(expected, knows, guesses, strict=True)])
    return expected, said


def begun(expected: list[str], said: list[list[str]], best: int) -> bool:
    others = [each for at, each in enumerate(said) if at != best]
    elsewhere = [frozenset(each[at] for each in others) for at in range(len(expected))]
    return headroom(said[best], elsewhere, expected).room > 0


@pytest.mark.parametrize("known", [0.2, 0.6])
@pytest.mark.parametrize("chosen", ["first", "best"])
def test_without_anything_known_elsewhere_it_is_begun_at_most_as_often_as_alpha(known: float, chosen: str) -> None:
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(RUNS):
        expected, said = answered(rng, 60, known, 0.0)
        right = [np.mean([one == other for one, other in zip(each, expected, strict=True)]) for each in said]
        wrong += begun(expected, said, int(np.argmax(right)) if chosen == "best" else 0)
    assert wrong / RUNS <= ALPHA + NOISE


def test_what_other_variants_know_is_found() -> None:
    rng = np.random.default_rng(4)
    found = [begun(*answered(rng, 100, 0.4, 0.3), 0) for _ in range(100)]
    assert np.mean(found) > 0.9


def test_answers_in_no_form_are_found_and_as_many_as_are_let_pass_are_not() -> None:
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(RUNS):
        said = [None if out else "l0" for out in rng.random(100) < FORM_SHARE]
        wrong += headroom(said, [frozenset()] * 100, ["l0"] * 100).room > 0
    assert wrong / RUNS <= ALPHA + NOISE
    half = headroom([None, "l0"] * 50, [frozenset()] * 100, ["l0"] * 100)
    assert half.room == pytest.approx(0.5) and not half.why_not(0.1, None)


def test_a_bound_no_words_can_reach_and_a_gain_too_small_to_be_told_are_reasons_not_to_begin() -> None:
    rng = np.random.default_rng(6)
    expected, said = answered(rng, 100, 0.3, 0.3)
    elsewhere = [frozenset(each[at] for each in said[1:]) for at in range(100)]
    found = headroom(said[0], elsewhere, expected)
    assert found.why_not(0.05, 0.5) == ""
    assert "reach at most" in found.why_not(0.05, 0.999)
    assert "can be told" in found.why_not(0.95, 0.5)


@given(st.lists(st.sampled_from([None, *LABELS[:3]]), min_size=0, max_size=30), st.integers(0, 5))
def test_room_is_a_share_and_no_more_than_what_is_wrong(said: list[str | None], seed: int) -> None:
    rng = np.random.default_rng(seed)
    expected = [LABELS[at] for at in rng.integers(0, 3, len(said))]
    elsewhere = [frozenset({LABELS[at]}) for at in rng.integers(0, 3, len(said))]
    found = headroom(said, elsewhere, expected)
    assert 0 <= found.room <= (found.wrong / found.rows if found.rows else 0)
    assert 0 < found.p_form <= 1 and 0 < found.p_elsewhere <= 1 and found.out_of_form <= found.wrong


def looked_at(rng: np.random.Generator, rows: int, won: float, lost: float) -> SurelyBetter:
    drawn, test = rng.random(rows), SurelyBetter()
    new, old = (drawn < won).astype(float), ((drawn >= won) & (drawn < won + lost)).astype(float)
    for at in range(0, rows, LOOK):
        test.add(new[at : at + LOOK].tolist(), old[at : at + LOOK].tolist())
        if test.is_over:
            break
    return test


@pytest.mark.parametrize("apart", [0.02, 0.1, 0.3])
def test_an_instruction_that_is_no_better_is_adopted_at_most_as_often_as_alpha_looking_again_and_again(
    apart: float,
) -> None:
    rng = np.random.default_rng(7)
    adopted = [looked_at(rng, 200, apart, apart).is_better for _ in range(RUNS)]
    assert np.mean(adopted) <= ALPHA + NOISE


def test_one_that_is_much_better_is_mostly_adopted_and_a_worse_one_ends_it_early() -> None:
    rng = np.random.default_rng(8)
    better = [looked_at(rng, 200, 0.2, 0.05) for _ in range(60)]
    worse = [looked_at(rng, 200, 0.02, 0.25) for _ in range(60)]
    assert np.mean([each.is_better for each in better]) > 0.8
    assert not any(each.is_better for each in worse) and np.mean([each.rows for each in worse]) < 120


def test_what_was_lost_is_no_pair_and_nothing_is_no_evidence() -> None:
    test = SurelyBetter()
    test.add([float("nan")] * 20, [0.0] * 20)
    assert (test.rows, test.is_better, test.is_over, test.bounds) == (0, False, False, (-1.0, 1.0))


@pytest.mark.parametrize("rows", [40, 100, 200])
def test_the_least_gain_is_just_enough(rows: int) -> None:
    wins = round(rows * least_gain(rows))
    enough, short = SurelyBetter(), SurelyBetter()
    enough.add([1.0] * wins, [0.0] * wins)
    short.add([1.0] * (wins - 1), [0.0] * (wins - 1))
    assert enough.is_better and not short.is_better and least_gain(3) > 1
