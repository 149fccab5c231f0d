"""The advice for 47 use cases, pinned: what is ruled out before anything is spent, and where the climb should stop.

Each row differs from a use case with everything at hand (8,000 examples, documents, traffic, open weights, own
machines) whose requirements are quality, adherence, a lax latency and a lax cost.
"""

from typing import Any

import pytest

from leastwise.ladder.advice import Advice, advise
from leastwise.ladder.premises import Premises
from leastwise.use_case import LADDER, UseCase
from tests.unit.use_cases import ALL, CHEAP, LISTED, PLENTY, QUALITY, use_case

TRAINED = "fine_tune pretrain distill"
BEYOND_QUALITY = (
    "cache pretrain distill self_host"  # what remedies neither quality nor adherence, and Level 4 in public domains
)


def wanting(**more: tuple[float, float]) -> dict[str, Any]:
    return QUALITY | {name: {"bound": bound, "margin": margin} for name, (bound, margin) in more.items()}


INSIDE = {"residency": {"venues": ["self_host"]}}
OWN = {"candidates": [{"uri": "package://small", "venue": "self_host"}]}
OWN_BASE = OWN | {"base": {"uri": "package://small", "venue": "self_host"}}
RECORD = {"kind": "extraction", "json_schema": {"type": "object", "properties": {"a": {}}}}
NOTHING = {"train": None, "documents": None, "unlabelled": None, "traffic": None}
DEAR = wanting(usd_per_1k_requests=(0.05, 0.01))  # dollars: below what the api's prompt costs
FAST = wanting(p95_latency_ms=(80, 20))

# what differs | rows that differ | expected stop | ruled out
TABLE: list[tuple[str, dict[str, Any], dict[str, int], str | None, str]] = [
    ("everything at hand", {}, {}, "rag", "pretrain"),
    ("only quality", {"requirements": QUALITY}, {}, "rag", BEYOND_QUALITY),
    (
        "no own data",
        {"requirements": QUALITY, "data": NOTHING},
        {"train": 0, "documents": 0},
        "prompt",
        f"rag fine_tune {BEYOND_QUALITY}",
    ),
    (
        "documents only",
        {"requirements": QUALITY, "data": {"train": None}},
        {"train": 0},
        "rag",
        f"fine_tune {BEYOND_QUALITY}",
    ),
    ("20,000 requests a month", {"traffic": {"requests_per_month": 20_000}}, {}, "rag", "pretrain"),
    (
        "20,000 requests, only quality",
        {"requirements": QUALITY, "traffic": {"requests_per_month": 20_000}},
        {},
        "rag",
        BEYOND_QUALITY,
    ),
    ("50M requests a month", {"traffic": {"requests_per_month": 50_000_000}}, {}, "rag", "pretrain"),
    (
        "50M requests, tight cost",
        {"requirements": DEAR, "traffic": {"requests_per_month": 50_000_000}},
        {},
        "fine_tune",
        "pretrain",
    ),
    (
        "tight cost, dear machines",
        {"requirements": DEAR, "hosting": {"usd_per_month_per_machine": 900}},
        {},
        "fine_tune",
        "pretrain",
    ),
    ("tight cost, no base", {"requirements": DEAR, "models": {"base": None}}, {}, "distill", "fine_tune pretrain"),
    ("a cost that caching meets", {"requirements": wanting(usd_per_1k_requests=(0.5, 0.1))}, {}, "cache", "pretrain"),
    (
        "the same without traffic",
        {"requirements": wanting(usd_per_1k_requests=(0.5, 0.1)), "data": {"traffic": None}},
        {},
        "fine_tune",
        "cache pretrain",
    ),
    ("tight latency", {"requirements": FAST}, {}, "distill", "pretrain"),
    (
        "tight latency, no student",
        {"requirements": FAST, "models": {"student": None}},
        {},
        "self_host",
        "pretrain distill",
    ),
    (
        "tight latency, no student, no machines",
        {"requirements": FAST, "models": {"student": None}, "hosting": {"capacity": False}},
        {},
        None,
        "pretrain distill self_host",
    ),
    ("3 seconds are allowed", {"requirements": wanting(p95_latency_ms=(3000, 500))}, {}, "rag", "pretrain"),
    ("99.5% in format", {"requirements": wanting(adherence=(0.995, 0.004))}, {}, "rag", BEYOND_QUALITY),
    ("90% in format", {"requirements": wanting(adherence=(0.9, 0.05))}, {}, "rag", BEYOND_QUALITY),
    (
        "a task that changes",
        {"requirements": QUALITY, "task": {"stable": False}},
        {},
        "rag",
        f"fine_tune {BEYOND_QUALITY}",
    ),
    ("a task that changes, tight cost", {"requirements": DEAR, "task": {"stable": False}}, {}, "self_host", TRAINED),
    (
        "a unique domain",
        {"requirements": QUALITY, "task": {"domain_is_public": False}},
        {},
        "rag",
        "cache distill self_host",
    ),
    (
        "a unique domain, no corpus",
        {"requirements": QUALITY, "task": {"domain_is_public": False}, "data": {"documents": None}},
        {"documents": 0},
        "rag",
        BEYOND_QUALITY,
    ),
    (
        "a unique domain that changes",
        {"requirements": QUALITY, "task": {"domain_is_public": False, "stable": False}},
        {},
        "rag",
        f"fine_tune {BEYOND_QUALITY}",
    ),
    (
        "a unique domain, pretrain never",
        {"requirements": QUALITY, "task": {"domain_is_public": False}, "approvals": {"pretrain": "never"}},
        {},
        "rag",
        BEYOND_QUALITY,
    ),
    ("data cannot leave", {"requirements": ALL | INSIDE, "models": OWN_BASE}, {}, "rag", "pretrain"),
    (
        "data cannot leave, base at a host",
        {"requirements": ALL | INSIDE, "models": OWN},
        {},
        "rag",
        "fine_tune pretrain",
    ),
    (
        "data cannot leave, no machines",
        {"requirements": ALL | INSIDE, "models": OWN, "hosting": {"capacity": False}},
        {},
        "rag",
        "fine_tune pretrain self_host",
    ),
    (
        "data may go to an api only",
        {"requirements": ALL | {"residency": {"venues": ["api"]}}},
        {},
        "rag",
        f"{TRAINED} self_host",
    ),
    (
        "data may go to api and managed",
        {"requirements": ALL | {"residency": {"venues": ["api", "managed"]}}},
        {},
        "rag",
        "pretrain self_host",
    ),
    ("999 examples", {"requirements": QUALITY}, {"train": 999}, "rag", f"fine_tune {BEYOND_QUALITY}"),
    ("1,000 examples", {"requirements": QUALITY}, {"train": 1000}, "rag", BEYOND_QUALITY),
    ("5,000 examples", {"requirements": QUALITY}, {"train": 5000}, "rag", BEYOND_QUALITY),
    ("no base", {"requirements": QUALITY, "models": {"base": None}}, {}, "rag", f"fine_tune {BEYOND_QUALITY}"),
    ("closed models only", {"models": {"base": None, "student": None}}, {}, "rag", f"{TRAINED} self_host"),
    ("no embedder", {"requirements": QUALITY, "models": {"embedder": None}}, {}, "prompt", f"rag {BEYOND_QUALITY}"),
    ("no unlabelled text", {"data": {"unlabelled": None}}, {}, "rag", "pretrain distill"),
    ("no sample of traffic", {"data": {"traffic": None}}, {}, "rag", "cache pretrain"),
    ("last stage prompt", {"last_stage": "prompt"}, {}, "prompt", "rag cache fine_tune pretrain distill self_host"),
    ("last stage rag", {"last_stage": "rag"}, {}, "rag", "cache fine_tune pretrain distill self_host"),
    ("last stage fine_tune", {"last_stage": "fine_tune"}, {}, "rag", "pretrain distill self_host"),
    (
        "training never",
        {"approvals": {"fine_tune": "never", "pretrain": "never", "distill": "never"}},
        {},
        "rag",
        TRAINED,
    ),
    ("own machines never", {"approvals": {"self_host": "never"}}, {}, "rag", "pretrain self_host"),
    ("60 gate rows", {"requirements": QUALITY}, {"gate": 60}, "rag", BEYOND_QUALITY),
    (
        "an acceptance set",
        {"requirements": {"quality": {"bound": 0.8, "margin": 0.0}}, "data": {"population": "this_set"}},
        {},
        "rag",
        BEYOND_QUALITY,
    ),
    (
        "inputs to decline",
        {
            "requirements": wanting(ood_decline=(0.9, 0.05)),
            "task": {"decline_label": "none"},
            "data": {"out_of_scope": "o.csv"},
        },
        {"out_of_scope": 500},
        "rag",
        "cache pretrain self_host",
    ),
    ("records", {"task": RECORD}, {}, "rag", "pretrain distill"),
    ("free text", {"task": {"kind": "free_text"}, "requirements": QUALITY}, {}, "rag", BEYOND_QUALITY),
]


def advised(changes: dict[str, Any], rows: dict[str, int]) -> Advice:
    kind = changes.get("task", {}).get("kind")
    wanted = use_case(**{name: value for name, value in changes.items() if not (name == "task" and kind)})
    if kind:
        wanted = UseCase.model_validate(
            wanted.model_dump(mode="json", exclude_none=True) | {"task": {"instruction": "Name it."} | changes["task"]}
        )
    premises = Premises(
        rows=PLENTY | rows,
        prices={"openai:big": LISTED, "package://small": CHEAP},
        base_price=CHEAP,
        repeat_share=0.5,
        alpha_pass=0.005,
        alpha_fail=0.0125,
    )
    return advise(wanted, premises)


@pytest.mark.parametrize(("changes", "rows", "stop", "out"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_ruled_out_and_where_it_should_stop(
    changes: dict[str, Any], rows: dict[str, int], stop: str | None, out: str
) -> None:
    given = advised(changes, rows)
    assert set(given.named("ruled_out")) == set(out.split())
    assert given.expected_stop == stop
    assert all(each.reason for each in given.stages) and [each.stage for each in given.stages] == list(LADDER)


def test_the_table_is_as_long_as_promised() -> None:
    assert len(TABLE) >= 40 and len({row[0] for row in TABLE}) == len(TABLE)
    assert {row[3] for row in TABLE} == {"prompt", "rag", "cache", "fine_tune", "distill", "self_host", None}
