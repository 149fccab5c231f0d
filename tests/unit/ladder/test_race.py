"""Whose turn it is among the tries of a stage: in which order they are left and gone on with, what that saves, and that
it errs no more often. Figures: `benchmarks/race.py`.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.race import ALPHA, GATES, MIXES, drawn, errors, grid, known, one_after_another, raced, share_paid
from leastwise.evidence.examples_needed import LOOK
from leastwise.ladder.race.schedule import ShareTest, Standing, Turn, examples_for_pass, next_turn, turn_length

TEST = ShareTest(bound=0.9, margin=0.05, alpha_pass=0.005, alpha_fail=0.0125, size=2000)


def standing(share: float, n: int, **changes: float) -> Standing:
    return replace(Standing((replace(TEST, n=n, right=share * n),), n), **changes)  # type: ignore[arg-type]  # of a test


FRESH = Standing()


def test_tries_begin_in_the_order_they_are_listed():
    assert next_turn([FRESH, FRESH, FRESH]).entrant == 0
    assert next_turn([standing(0.87, 400), FRESH, FRESH], last=0).entrant == 1


def test_one_that_is_alone_goes_on_to_its_end():
    assert next_turn([standing(0.87, 400)]).until((TEST,)) == math.inf
    assert not next_turn([standing(0.87, 400)]).is_over(standing(0.87, 10**9))


def test_one_that_is_on_its_way_to_pass_is_not_left_for_one_of_which_nothing_is_known():
    assert next_turn([standing(0.93, 175), FRESH], last=0).entrant == 0
    assert next_turn([standing(0.87, 175), FRESH], last=0).entrant == 1


def test_what_has_failed_a_requirement_is_parked_at_once_and_comes_last():
    failed = standing(0.97, 50, can_pass=False)
    assert Turn(0, 25).is_over(failed), "before its look budget is used up"
    assert next_turn([failed, standing(0.86, 600)], last=0).entrant == 1
    assert next_turn([failed, failed], last=1).until((TEST,)) == math.inf, "none can pass: nothing is gained by turns"


def test_of_parked_tries_the_one_that_is_likelier_to_pass_soon_is_gone_on_with_first():
    assert next_turn([standing(0.87, 300), standing(0.9, 300), standing(0.88, 300)]).entrant == 1


def test_examples_count_by_what_they_cost():
    parked = [standing(0.88, 300, usd=0.001), standing(0.89, 300, usd=0.05)]
    assert next_turn([replace(each, usd=0.0) for each in parked]).entrant == 1
    assert next_turn(parked).entrant == 0
    assert next_turn([parked[0], replace(parked[1], usd=0.0)]).entrant == 1, "a price that is not known weighs nothing"


def test_a_try_that_is_all_but_decided_is_not_parked():
    decided = replace(standing(0.97, 400), shares=(replace(TEST, n=400, right=388.0, is_open=False),))
    assert not Turn(0, 0).is_over(decided) and examples_for_pass(decided) == 0.0


@given(at_bound=st.floats(0, 1e6) | st.just(math.inf), had=st.integers(0, 5000).map(lambda looks: looks * LOOK))
def test_a_turn_is_of_whole_looks_and_grows_with_what_a_try_has_had(at_bound: float, had: int):
    length = turn_length(at_bound, had)
    assert length >= max(2 * LOOK, had / 2) and (length == math.inf or length % LOOK == 0)


@settings(max_examples=60)
@given(
    bound=st.floats(0.05, 1.0),
    margin=st.floats(0.0, 0.9),
    alpha=st.floats(1e-6, 0.4),
    counts=st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 1), st.booleans()), min_size=1, max_size=6),
    data=st.data(),
)
def test_whatever_the_requirement_somebody_has_a_turn_that_ends(
    bound: float, margin: float, alpha: float, counts: list[tuple[int, float, bool]], data: st.DataObject
):
    shares = ShareTest(bound, min(margin, bound - 0.01), alpha, alpha, 3000)
    standings = [
        Standing((replace(shares, n=n, right=share * n),) if n else (), n, can_pass=can_pass)
        for n, share, can_pass in counts
    ]
    last = data.draw(st.none() | st.sampled_from(range(len(standings))))
    turn = next_turn(standings, last)
    assert 0 <= turn.entrant < len(standings)
    assert turn.until((shares,)) > standings[turn.entrant].examples
    fresh = [at for at, each in enumerate(standings) if not each.examples]
    assert standings[turn.entrant].examples or turn.entrant == fresh[0], "those not begun wait for their turn"


# -- what it saves, and what it errs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", MIXES)
def test_raced_or_one_after_another_a_stage_finds_a_pass_in_the_same_tries_and_pays_no_less_than_who_knows(mix: str):
    rng, gate = np.random.default_rng(1), GATES[1]
    for _ in range(40):
        tries = drawn(gate, MIXES[mix](gate, 4, rng), rng)
        both = raced(gate, tries), one_after_another(tries)
        assert both[0].verdict == both[1].verdict
        assert all(known(tries) <= each.calls for each in both)
        if both[0].verdict != "pass":
            assert both[0].calls == both[1].calls, "where none passes each is measured to its end, and nothing is saved"


def test_a_middling_try_before_one_that_is_over_costs_half_of_what_it_did_and_no_likely_mix_a_tenth_more():
    (cells,) = grid(60, gates=GATES[:1]).values()
    by_mix = {mix: share_paid([each for each in cells if each.mix == mix]) for mix in MIXES}
    assert by_mix["middling, then over"] < 0.65 and by_mix["one over among middling"] < 0.75
    assert by_mix["models in pairs, rising"] < 0.9
    assert share_paid(cells) < 0.9
    adverse = {mix for mix in MIXES if mix.startswith("first")}
    assert max(share for mix, share in by_mix.items() if mix not in adverse) <= 1.1


@pytest.mark.parametrize("tries", [2, 5])
def test_a_false_pass_over_the_ladder_and_a_false_fail_stay_within_alpha(tries: int):
    got = errors(tries, 600)
    two_standard_errors = 2 * math.sqrt(ALPHA * (1 - ALPHA) / 600)
    for ours, _ in (got.false_pass, got.false_fail, got.failed_tries):
        assert ours <= ALPHA + two_standard_errors
    assert got.false_pass[0] == got.false_pass[1], "where none passes, the same tries are measured to the same end"
