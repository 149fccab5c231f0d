"""Asking a person: leave for a stage, or how to go on when the gate is not sure. Pauses the flow where a server is
there.

It decides nothing: the answer is logged and handed to the ladder.
"""

from __future__ import annotations

import os
from typing import Literal

from prefect import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from leastwise.ladder.needs import StageAnswer
from leastwise.run_id import RunId
from leastwise.use_case import Stage
from tasks import climb as climbing

Question = Literal["leave", "undecided"]
WAIT_S = 7 * 24 * 3600


class Leave(RunInput):
    """What a person answers in the Prefect UI."""

    answer: Literal["granted", "rejected"] = Field("rejected", description="granted lets the stage run.")
    who: str = Field("", description="Who decided; logged in MLflow.")
    why: str = Field("", description="Why; logged in MLflow.")


def can_ask() -> bool:
    """Whether a person can answer: only where a Prefect server outlives this process."""
    return bool(os.environ.get("PREFECT_API_URL"))


def ask(climb: RunId, stage: Stage, reason: str, question: Question = "leave") -> StageAnswer:
    """Pause until somebody answers, log who said what and why, and give back the answer."""
    leave = pause_flow_run(
        wait_for_input=Leave.with_initial_data(description=f"**{stage}**: {reason}", answer="rejected"),
        timeout=WAIT_S,
        key=pause_key(stage, question),
    )
    climbing.log_answer(climb, stage, leave.answer, leave.who, leave.why)
    return leave.answer


def pause_key(stage: Stage, question: Question) -> str:
    """Prefect's name of a pause: one a question, for the answer to one it knows already is given without asking.

    The same question after a crash, in the same flow run, keeps its answer.
    """
    return f"{question}-{stage.replace('_', '-')}"  # Prefect takes no underscore
