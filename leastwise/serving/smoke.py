"""Does a registered winner answer as it did when it was judged? Asked of the model as MLflow loads it, in a process of
its own, before anything relies on it.

`python -m leastwise.serving.smoke MODEL_URI` reads `{"texts": […], "at_once": N}` on standard input and writes the
answers as one line of JSON, each `{"answer": …, "usd": …}`. As many are asked at once as were when it was judged: in
what order texts meet a server's prefix cache can change a word of a free answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leastwise.errors import BadInput
from leastwise.metrics.task_metric import agree
from leastwise.record.client import tracking_uri
from leastwise.record.published.candidate_files import load
from leastwise.stores.response_cache import REDIS_VARIABLE
from leastwise.use_case.task import Task

ROWS, LEAST_AGREEING = 50, 0.9  # of the same rows; a hosted model is not quite the same from one day to the next
WITHIN_S = 900.0


@dataclass(frozen=True)
class Said:
    """An answer of the loaded model, and what it cost by its tokens."""

    answer: str
    usd: float


def answers_of(model_uri: str, texts: Sequence[str], at_once: int, log: Path) -> list[Said]:
    """What the model says to each text, so many asked `at_once`; BadInput with the reason where it cannot be loaded or
    does not answer.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop(REDIS_VARIABLE, None)  # what production holds in its cache would answer for the model
    with log.open("wb") as said:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "leastwise.serving.smoke", model_uri],
                input=json.dumps({"texts": list(texts), "at_once": at_once}).encode(),
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                timeout=WITHIN_S,
            )
        except subprocess.TimeoutExpired:
            raise BadInput(
                f"{model_uri} answered fewer than {len(texts)} texts in {WITHIN_S:.0f} s, so it is not served ({log} "
                "says how far it came); the alias stays"
            ) from None
    lines = done.stdout.decode().splitlines()
    if done.returncode or not lines:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise BadInput(f"{model_uri} cannot be served: {last[0]} (the whole of it is in {log}); the alias stays")
    return [Said(**each) for each in json.loads(lines[-1])]


def agreement(task: Task, said: Sequence[str], logged: Sequence[str]) -> float:
    """The share of answers that say what was logged: the same label, the same record, or the same words."""
    if not said:
        return 1.0
    pairs = zip(said, logged, strict=True)
    return sum(agree(task, [now.strip(), before.strip()]) for now, before in pairs) / len(said)


def main() -> None:
    """Load, answer, say."""
    import pandas as pd

    model = load(sys.argv[1])
    asked = json.load(sys.stdin)
    texts, at_once = asked["texts"], asked["at_once"]
    said = list[object]()
    for at in range(0, len(texts), at_once):
        told = model.predict(pd.DataFrame({"text": texts[at : at + at_once]}))
        assert isinstance(told, pd.DataFrame)
        said += told[["answer", "usd"]].to_dict("records")
    print(json.dumps(said), flush=True)
    os._exit(0)  # the servers it started end with it


if __name__ == "__main__":
    main()
