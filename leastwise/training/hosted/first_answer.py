"""Who answers for a model that a host trained: asked one training row before it is judged, so that no base is judged in
its place.

It scores nothing.
"""

from __future__ import annotations

import logging

from leastwise.answering.answerer import Outage, Payer
from leastwise.answering.answerers import open_answerer
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate

log = logging.getLogger(__name__)


def check_answers_itself(work: Workspace, candidate: Candidate) -> None:
    """BadInput where another model than the candidate's says that it answers; Outage where none does. The one call is
    paid as the stage's, and its answer kept.
    """
    own = candidate.model.rpartition("/")[2]
    with open_answerer(work, candidate, Payer(candidate.stage, "evaluation")) as answerer:
        (answer,) = answerer.answer(work.tables.need("train").head(1))
    if answer.text is None:
        raise Outage(f"{candidate.model}: does not answer ({answer.error})")
    if not answer.answered_by:
        log.info(f"{candidate.model}: its answers do not say which model gives them")
    elif own not in answer.answered_by:
        raise BadInput(
            f"{candidate.model}: {answer.answered_by} answers in its place, and is not judged for it; look at "
            "the adapters that are loaded at the host"
        )
