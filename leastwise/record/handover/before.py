"""Candidates as they were named while paths were handed on, so that what was measured then is found and reused.

Nothing new is named so. A key that has been given out stays.
"""

from __future__ import annotations

from pathlib import Path

from leastwise.ladder.candidate import Candidate
from leastwise.models import weights
from leastwise.stores.made.naming import is_made, place_before


def as_before(candidate: Candidate, home: Path) -> Candidate:
    """The candidate with the paths of this machine in place of names; itself where it never had one."""
    placed = candidate.placed(lambda uri: place_before(uri, home))
    is_causal_student = placed.stage == "distill" and placed.weights is not None and placed.weights.kind != "student"
    if is_causal_student and not is_made(candidate.model):  # a whole base was named by where it was converted to
        directory = weights.materialize(candidate.model, home)
        revision = weights.directory_hash(directory)
        return placed.model_copy(update={"model": directory.as_uri(), "revision": revision})
    return placed
