"""How a search varies what is looked up: the mode, the weight of two scores, late interaction, how long documents are.

Where retrieval can be judged without a call, that comes first (`leastwise.answering.retrieval_choice`): by gold
documents it decides; by neighbours' labels it says which one variant is worth asking, for what is shown is as good as
it is read. Where neither is known all are asked. How long documents are changes what is shown, so it is always asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from leastwise.answering.retrieval import looked_up
from leastwise.answering.retrieval_choice import GOLD, Choice, Judged, RetrievalJudge
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating.search.axis import Axis, Variant
from leastwise.evaluating.search.report import RetrievalStep
from leastwise.ladder.candidate import Candidate, Retriever
from leastwise.use_case.settings import LATE_DENSE_SHARE, SearchMode

DENSE_SHARES = (0.9, 0.7, 0.5)  # of fused scores
CHUNKS = (1600, 800, 400)  # characters


def retrieval_mode(work: Workspace, at: Candidate) -> Axis:
    """By meaning, by words, or both with their ranks fused."""
    modes: tuple[SearchMode, ...] = ("dense", "bm25", "hybrid")
    return _ways(work, at, "retrieval", [(mode, None) for mode in modes])


def fusion_weight(work: Workspace, at: Candidate) -> Axis:
    """Both, their scores added by a weight."""
    return _ways(work, at, "fusion", [("hybrid", share) for share in DENSE_SHARES])


def late_interaction(work: Workspace, at: Candidate) -> Axis:
    """By meaning, and token by token."""
    return _ways(work, at, "late interaction", [("late", LATE_DENSE_SHARE)])


def chunk_length(work: Workspace, at: Candidate) -> Axis:
    """Documents whole, or in parts."""
    name, retriever = "documents", at.retriever
    if retriever is None or not retriever.documents:
        return Axis(name, (Variant("as it is", at),))
    longest = max(len(str(text)) for text in work.tables.need("documents")["text"])
    lengths = [each for each in CHUNKS if each < longest]
    if not lengths:
        why = f"no document is longer than {min(CHUNKS)} characters"
        return Axis(name, (Variant("whole", at),), (("in parts", why),))
    cuts = sorted({0, retriever.chunk_characters, *lengths})
    return Axis(name, tuple(_variant(at, retriever.model_copy(update={"chunk_characters": cut})) for cut in cuts))


def _ways(work: Workspace, at: Candidate, name: str, ways: Sequence[tuple[SearchMode, float | None]]) -> Axis:
    """An axis of modes and shares, after what can be told of them without a call."""
    here = at.retriever
    if here is None or not (here.examples or here.documents):
        return Axis(name, (Variant("as it is", at),))
    others = [here.model_copy(update={"mode": mode, "dense_share": share}) for mode, share in ways]
    retrievers = [here, *(each for each in others if each != here)]
    if len(retrievers) == 1:
        return Axis(name, (Variant(here.how, at),))
    choice = RetrievalJudge(work).choose(retrievers)
    if choice is None:
        return _all(work, at, name, retrievers)
    steps = tuple(_step(name, choice, each) for each in choice.judged if not each.why)
    left_out = tuple((each.retriever.how, each.why) for each in choice.judged if each.why)
    taken = _variant(at, choice.taken)
    if choice.figure == GOLD:
        return Axis(name, (taken,), left_out, steps, decided=taken)
    asked = (Variant(here.how, at),) if choice.taken == here else (Variant(here.how, at), taken)
    return Axis(name, asked, left_out, steps)


def _all(work: Workspace, at: Candidate, name: str, retrievers: Sequence[Retriever]) -> Axis:
    """All of them, but for late interaction where its token vectors would take too much."""
    try:
        if any(each.mode == "late" for each in retrievers):
            _check_tokens(work, retrievers[0])
    except BadInput as why:
        asked = [each for each in retrievers if each.mode != "late"]
        return Axis(name, tuple(_variant(at, each) for each in asked), (("late", str(why)),))
    return Axis(name, tuple(_variant(at, each) for each in retrievers))


def _check_tokens(work: Workspace, retriever: Retriever) -> None:
    for each in looked_up(retriever):
        work.index(each.table, each.characters).check_tokens()


def _variant(at: Candidate, retriever: Retriever) -> Variant:
    return Variant(retriever.how, at.model_copy(update={"retriever": retriever}))


def _step(axis: str, choice: Choice, judged: Judged) -> RetrievalStep:
    return RetrievalStep(
        axis=axis,
        variant=judged.retriever.how,
        figure=choice.figure,
        rows=judged.rows,
        value=judged.value,
        gain=judged.gain,
        error=judged.error,
        is_taken=judged.retriever == choice.taken,
    )
