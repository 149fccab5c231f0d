"""A toy use case and toy rows: a row says itself how it is answered, and rows may share a unit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from aiohttp import web

from leastwise.rows.tables import UNIT
from leastwise.use_case import UseCase
from tests.servers.web_server import chat_completion, served

SEED = "00c0ffee00c0ffee"
MODEL = "openai:toy"


def use_case(requirements: dict[str, tuple[float, float]], **data: Any) -> UseCase:
    tables = {"gate": "gate.csv", "out_of_scope": "out.csv", "shifted": "shifted.csv"}
    return UseCase.model_validate(
        {
            "name": "toy",
            "task": {"instruction": "Answer.", "labels": ["yes", "no"], "decline_label": "none"},
            "data": tables | data,
            "requirements": {name: {"bound": b, "margin": m} for name, (b, m) in requirements.items()},
            "traffic": {"requests_per_month": 1000},
            "models": {"candidates": [{"uri": MODEL}]},
            "allow_no_test": True,
        }
    )


def table(rights: Any, per_unit: int = 1, named: str = "r") -> pd.DataFrame:
    """`per_unit` rows for each entry of `rights`, interleaved so that the rows of a unit are not neighbours."""
    units = np.tile(np.arange(len(rights)), per_unit)
    frame = pd.DataFrame({"id": [f"{named}{i}" for i in range(len(units))], "right": np.asarray(rights)[units]})
    frame["text"], frame["label"], frame["ms"], frame["usd"] = (
        "text " + frame["id"],
        "yes",
        10.0 + np.arange(len(units)),
        0.001,
    )
    if per_unit > 1:
        frame[UNIT] = [f"u{unit}" for unit in units]
    return frame


@contextmanager
def served_toy() -> Iterator[str]:
    """A real endpoint whose model knows odd from even, but errs on every eighth number and is down for some."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        number = int(str(asked["messages"][-1]["content"]).split()[-1])
        if number % 200 == 13:
            return web.Response(status=503)
        text = ("odd" if number % 2 else "even") if number % 8 else "no idea"
        return chat_completion(asked["model"], text, 20 + number % 7, 2 + number % 3)

    with served(web.post("/v1/chat/completions", answer)) as address:
        yield f"{address}/v1"
