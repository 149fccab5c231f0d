"""A registered winner as an MLflow model from code: a table with column `text`, chat `messages`, or plain `input` in;
answer, label, confidence and version out.

MLflow runs this file when it loads the model; nothing is pickled. It needs `leastwise[serve]` and the model's own
files, no repository and no state. A provider's key is read from the environment of whoever serves.
"""

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from leastwise.errors import BadInput
from leastwise.metrics.answer import Answer
from leastwise.serving.live import prediction_of
from leastwise.serving.live_model import Winner, open_winner

COLUMNS = ["answer", "label", "confidence", "usd", "version"]
LOADED_WITHIN_S, ANSWERED_WITHIN_S = 3600.0, 600.0  # what was only measured may be fetched and converted first


class CandidateModel(PythonModel):
    """Serves one bundle."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle: weights are checked and loaded once, so that the first request does not pay for it."""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="leastwise").start()
        opening = open_winner(Path(context.artifacts["bundle"]))
        self._winner: Winner = asyncio.run_coroutine_threadsafe(opening, self._loop).result(LOADED_WITHIN_S)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, object] | None = None
    ) -> pd.DataFrame:
        """Columns answer, label (None where the task has no labels or none was meant), confidence, usd and version, a
        row for each that came in. BadInput for other columns; RuntimeError where an answer was lost.
        """
        texts = texts_of(model_input)
        asked = asyncio.run_coroutine_threadsafe(self._all(texts), self._loop)
        answers = asked.result(ANSWERED_WITHIN_S)
        lost = [answer.error or "lost" for answer in answers if answer.text is None]
        if lost:
            raise RuntimeError(f"{len(lost)} of {len(answers)} answers were lost: {lost[0]}")
        version = self._winner.version or self._winner.key
        return pd.DataFrame([prediction_of(answer, version) for answer in answers], columns=COLUMNS)

    async def _all(self, texts: Sequence[str]) -> list[Answer]:
        return list(await asyncio.gather(*(self._winner.answer(text) for text in texts)))


def texts_of(model_input: Any) -> list[str]:
    """What is asked: a text a row, or a conversation of one user turn. A gate measures one text with the winner's own
    words around it, so what is said before it would be another question: BadInput.
    """
    frame = pd.DataFrame([model_input]) if isinstance(model_input, Mapping) else model_input
    if not isinstance(frame, pd.DataFrame):
        return [_text(each) for each in model_input]
    columns = [name for name in ("text", "messages", "input") if name in frame and frame[name].notna().any()]
    if len(columns) != 1:
        raise BadInput(
            f"give one of the columns text, messages, input (there are {', '.join(map(str, frame.columns))})"
        )
    return [_text(each) for each in frame[columns[0]]]


def _text(asked: Any) -> str:
    if isinstance(asked, str):
        return asked
    turns = list(asked) if isinstance(asked, Iterable) else []
    one = turns[0] if len(turns) == 1 and isinstance(turns[0], Mapping) else {}
    if one.get("role", "user") != "user" or not isinstance(one.get("content"), str):
        raise BadInput("one text a request is answered, with the prompt its gate measured: give one user message")
    return str(one["content"])


set_model(CandidateModel())
