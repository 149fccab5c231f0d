"""Who is the parent of the next stage, who may teach, and how UNDECIDED is resolved (rule 5)."""

import pytest

from leastwise.ladder import Record, best, resolve, teacher
from leastwise.ladder.gate import judge
from tests.unit.ladder.climbs import WANTED, evaluation, record, skipped, use_case


@pytest.mark.parametrize(
    ("policy", "estimate", "resolution"),
    [
        ("estimate", 0.8, "pass"),
        ("estimate", 0.79, "climb"),
        ("climb", 0.9, "climb"),
        ("stop", 0.9, "stop"),
        ("ask", 0.9, "ask"),
    ],
)
def test_undecided_is_resolved_by_policy(policy: str, estimate: float, resolution: str) -> None:
    asked = use_case(on_undecided=policy, requirements={"quality": {"bound": 0.8, "margin": 0.1}})
    got = evaluation(undecided="quality", estimate=estimate)
    verdict = judge(got, asked.gate_requirements)
    assert verdict.outcome == "UNDECIDED"
    assert resolve(verdict, got, asked) == resolution


@pytest.mark.parametrize("policy", ["estimate", "climb", "stop", "ask"])
def test_a_try_that_was_parked_is_resolved_to_nothing(policy: str) -> None:
    got = evaluation(undecided="quality").model_copy(update={"parked": "parked", "measurements": {}})
    asked = use_case(on_undecided=policy)
    assert resolve(judge(got, asked.gate_requirements), got, asked) is None


@pytest.mark.parametrize("fail", ["", "quality"])
def test_a_sure_verdict_is_not_resolved(fail: str) -> None:
    got = evaluation(fail)
    assert resolve(judge(got, WANTED), got, use_case(on_undecided="stop")) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (record("prompt", fail="quality"), record("rag", fail="adherence usd_per_1k_requests")),
        (record("prompt", fail="usd_per_1k_requests", lower=0.8), record("rag", fail="usd_per_1k_requests", lower=0.7)),
        (record("prompt", fail="quality", usd_per_1k=1.0), record("rag", fail="quality", usd_per_1k=2.0)),
    ],
)
def test_the_parent_fails_least_then_is_surest_of_quality_then_cheapest(one: Record, other: Record) -> None:
    assert best([one, other]) == best([other, one]) == one


def test_a_stage_that_comes_out_worse_does_not_become_the_parent() -> None:
    history = [record("prompt", fail="p95_latency_ms"), record("rag", fail="quality adherence p95_latency_ms")]
    assert best(history) == history[0]


def test_neither_a_skip_nor_the_reference_is_a_parent() -> None:
    kept = record("rag", fail="quality")
    assert best([record("reference"), *skipped("prompt"), kept]) == kept


def test_only_a_sure_pass_of_quality_teaches_and_the_surest_does() -> None:
    unsure = record("prompt", fail="p95_latency_ms", undecided="quality", lower=0.69)
    fair, good = (record(s, fail="p95_latency_ms", lower=q) for s, q in (("rag", 0.75), ("fine_tune", 0.8)))
    assert teacher([unsure]) is None
    assert teacher([unsure, fair, good]) == teacher([good, fair]) == good


def test_a_cache_does_not_teach_for_its_quality_was_measured_on_repeated_traffic() -> None:
    behind, cached = (record(s, fail="p95_latency_ms", lower=q) for s, q in (("rag", 0.75), ("cache", 0.9)))
    assert teacher([behind, cached]) == behind
    assert teacher([cached]) is None
