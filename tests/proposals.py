"""A use case that candidates are proposed for: an endpoint whose models do as their prompt says, rows, proposals."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from aiohttp import web

from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}
RIGHT = "Odd or even?"
GUESSING = "Always say odd."


@contextmanager
def served_models(asked: list[Mapping[str, Any]]) -> Iterator[str]:
    """A real endpoint: the model `good` tells odd from even unless its prompt says otherwise, `poor` never does,
    `shaky` mostly does; what it was asked is kept.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked.append(body)
        number = int(str(body["messages"][-1]["content"]).split()[-1])
        right = "odd" if number % 2 else "even"
        wrong = "even" if number % 2 else "odd"
        text = {"good": right, "poor": "no idea", "shaky": right if number % 40 < 31 else wrong}[body["model"]]
        if any(GUESSING in str(each["content"]) for each in body["messages"]):
            text = "odd"
        return chat_completion(body["model"], text, 20, 2)

    with served(web.post("/v1/chat/completions", answer)) as address:
        yield f"{address}/v1"


def proposal_case(folder: Path, endpoint: str, **changes: Any) -> str:
    """The use case's file, with 300 gate rows and the models good, poor and shaky."""
    numbers = range(1000, 1300)
    rows = pd.DataFrame({"id": [f"r{n}" for n in numbers], "text": [f"number {n}" for n in numbers]})
    rows.assign(label=["odd" if n % 2 else "even" for n in numbers]).to_parquet(folder / "gate.parquet")
    models = [
        {"uri": f"openai:{name}", "base_url": endpoint, "price": PRICE, "context_tokens": 300}
        for name in ("poor", "good", "shaky")
    ]
    case: dict[str, Any] = {
        "name": "proposed",
        "task": {"instruction": RIGHT, "labels": ["odd", "even"]},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.05}},
        "traffic": {"requests_per_month": 1000, "concurrency": 4, "output_tokens": 8},
        "models": {"candidates": models},
        "retrieval": {"fixed_examples": 0},
        "allow_no_test": True,
    }
    return case_file(folder, case | changes)


def proposal(folder: Path, name: str = "candidate.yaml", **fields: Any) -> str:
    """A file with these fields of a candidate."""
    path = folder / name
    path.write_text(json.dumps(fields) if name.endswith(".json") else yaml.safe_dump(fields))
    return str(path)
