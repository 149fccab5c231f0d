"""A provider that tells odd from even, and a climb whose stage it answered: what there is to register and to serve."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from aiohttp import web

from leastwise.answering.workspace import Workspace
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.record.stage_run import StageRun
from tests.servers.web_server import chat_completion
from tests.workspaces import case_file, log_stage, opened, quality

PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}
TEXTS = [f"number {n}" for n in range(12)]
RIGHT = ["odd" if n % 2 else "even" for n in range(len(TEXTS))]


class Model:
    """Tells odd from even, the other way round once it has turned; `breaks` are numbers it fails on."""

    def __init__(self) -> None:
        self.has_turned, self.breaks, self.slow_s = False, set[int](), 0.0
        self.texts: Counter[str] = Counter()

    @property
    def asked(self) -> int:
        """How many requests came."""
        return self.texts.total()

    async def answer(self, request: web.Request) -> web.Response:
        text = (await request.json())["messages"][-1]["content"]
        self.texts[text] += 1
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        number = int(text.split()[-1])
        if number in self.breaks:
            return web.Response(status=500)
        return chat_completion("m", "odd" if number % 2 != self.has_turned else "even", 20, 1)


def judged(folder: Path, base_url: str, answers: list[str]) -> tuple[Workspace, StageRun]:
    """A climb, and a stage of it that was answered so."""
    ids = [f"r{n}" for n in range(len(TEXTS))]
    pd.DataFrame({"id": ids, "text": TEXTS, "label": answers}).to_parquet(folder / "gate.parquet")
    case: dict[str, Any] = {
        "name": "registered",
        "task": {"instruction": "Odd or even?", "labels": ["odd", "even"]},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [{"uri": "openai:m", "price": PRICE, "base_url": base_url}]},
        "allow_no_test": True,
    }
    work = opened(case_file(folder, case))
    candidate = Candidate(stage="prompt", model="openai:m", venue="api", prompt=Prompt(system="Odd or even?"))
    rows = [
        {
            "id": each,
            "input": text,
            "expected": answer,
            "answer": answer,
            "score": 1.0,
            "set": "gate",
            "from_store": False,
        }
        for each, text, answer in zip(ids, TEXTS, answers, strict=True)
    ]
    return work, log_stage(work, candidate, quality(0.8, 1.0), rows=rows)
