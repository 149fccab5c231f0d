"""What a climb begins with, done while Prefect's temporary server starts: MLflow reached, rows held to their suites,
packaged weights made ready for the server that will have them.

All of it is kept and found again. Nothing is refused here: what is wrong is said where it is checked, in one report.
"""

from __future__ import annotations

import contextlib

from leastwise.engines.gguf import ahead
from leastwise.engines.vllm import settings as vllm_settings
from leastwise.errors import BadInput
from leastwise.record.client import connect
from leastwise.rows.use_case_file import load
from leastwise.stores import storage
from leastwise.use_case import UseCase
from tasks.session.checks import hold
from tasks.session.workspace import prospect_of


def get_ready(use_case: str) -> None:
    """What a climb of this use case will find done."""
    with contextlib.suppress(BadInput):
        case = load(use_case)
        ahead.begin(_packaged(case), storage.home())
        connect()  # which sets up a local database that is not there yet
        hold(prospect_of(case))


def _packaged(case: UseCase) -> list[str]:
    """The packaged weights that llama.cpp serves here as soon as a stage asks them."""
    if vllm_settings.named():
        return []
    allowed = (model for model in case.models.candidates if case.may_be_sent_to(model) and not model.base_url)
    return [model.uri for model in allowed if model.uri.startswith("package://")]
