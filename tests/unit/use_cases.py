"""A use case with everything at hand, what it costs and what it wants: advice and costs are tested on changes of it."""

from typing import Any

from leastwise.money.asked import Asked, Lengths
from leastwise.use_case import UseCase
from leastwise.use_case.price import Price

CHEAP = Price(input=0.1, output=0.4, illustrative=True)


LISTED = Price(input=2.5, cached=1.25, output=10)


PLENTY = {"train": 8000, "dev": 500, "gate": 2000, "test": 2000, "documents": 600, "unlabelled": 9000, "traffic": 2500}


QUALITY = {"quality": {"bound": 0.8, "margin": 0.05}}


ALL = QUALITY | {
    "adherence": {"bound": 0.98, "margin": 0.03},
    "p95_latency_ms": {"bound": 2000, "margin": 500},
    "usd_per_1k_requests": {"bound": 5.0, "margin": 0.5},
}


def asked(rows: dict[str, int], text: int = 150) -> Asked:
    """That many rows of texts of that many bytes each."""
    kinds = ("gate", "out_of_scope", "shifted", "paraphrases", "traffic", "unlabelled", "graded", "test")
    lengths = {name: Lengths.of([text] * rows.get(name, 0)) for name in kinds}
    dev = {"cascade_dev": min(rows.get("dev", 0), 200), "guard_dev": 2 * min(rows.get("dev", 0), 300)}
    drawn = {name: Lengths.of([text] * count) for name, count in dev.items()}
    return Asked(**lengths, **drawn, prompt=1200, rag=2500, trained=150, judge=600)


def use_case(**changes: Any) -> UseCase:
    """A use case with everything at hand; `changes` replace fields or, for a mapping, update them."""
    tables = ("train", "dev", "gate", "test", "documents", "unlabelled", "traffic")
    package = {"uri": "package://small"}
    fields: dict[str, Any] = {
        "name": "triage",
        "task": {"instruction": "Name it.", "labels": ["a", "b"]},
        "data": {name: f"{name}.csv" for name in tables},
        "requirements": ALL,
        "search": {"rows": 0},
        "traffic": {"requests_per_month": 500_000},
        "models": {
            "candidates": [{"uri": "openai:big"}],
            "base": package | {"venue": "managed"},
            "embedder": package["uri"],
            "student": package["uri"],
        },
    }
    for name, value in changes.items():
        merge = isinstance(fields.get(name), dict) and name != "requirements"
        fields[name] = fields[name] | value if merge else value
    return UseCase.model_validate(fields)
