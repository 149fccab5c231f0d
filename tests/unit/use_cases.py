"""A use case with everything at hand, what it costs and what it wants: advice and costs are tested on changes of it."""

from typing import Any

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


def use_case(**changes: Any) -> UseCase:
    """A use case with everything at hand; `changes` replace fields or, for a mapping, update them."""
    tables = ("train", "dev", "gate", "test", "documents", "unlabelled", "traffic")
    package = {"uri": "package://small"}
    fields: dict[str, Any] = {
        "name": "triage",
        "task": {"instruction": "Name it.", "labels": ["a", "b"]},
        "data": {name: f"{name}.csv" for name in tables},
        "requirements": ALL,
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
