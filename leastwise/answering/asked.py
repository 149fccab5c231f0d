"""What a use case's stages may ask, from its own rows, put into the words they would really be asked in.

It counts no call (see `leastwise.money.worst_cost`): a text's tokens are bounded by its bytes, what stands around it by
rendering the prompt with the longest examples and documents.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from leastwise.answering.prompts import longest_of, searched_shots, shot
from leastwise.ladder.candidate import Prompt, Shot
from leastwise.ladder.rendering import render
from leastwise.money.asked import Asked, Lengths
from leastwise.money.capacity import most_loops
from leastwise.money.machine_cost import rows_trained_on
from leastwise.money.search_cost import most_examples
from leastwise.money.token_counts import OPTION_TOKENS, TEMPLATE_TOKENS, most_request_tokens, most_tokens
from leastwise.money.worst_cost import CASCADE_DEV_ROWS
from leastwise.rows.question import Question
from leastwise.use_case import UseCase
from leastwise.use_case.prompts import system_prompt, trained_prompt
from leastwise.use_case.task import completion_of

if TYPE_CHECKING:
    import pandas as pd


def asked_of(question: Question) -> Asked:
    """The rows of a use case as they may be asked."""
    use_case, tables = question.use_case, question.tables
    bounds = use_case.requirements.bounds
    again = use_case.consistency.rows if use_case.consistency else 0
    replayed = None if tables.get("traffic") is None else question.traffic.rows
    gate, traffic = _texts(tables.get("gate")), list(dict.fromkeys(_texts(replayed)))
    dev = _texts(tables.get("dev"))
    guard = (dev, _texts(tables.get("out_of_scope_dev")))
    guarded = [text for texts in guard for text in _longest(texts, use_case.guard.dev_rows)]
    unlabelled = _longest(_texts(tables.get("unlabelled")), use_case.training.teacher_labels)
    test = _texts(question.test_rows())
    return Asked(
        gate=_lengths(gate),
        out_of_scope=_lengths(_texts(tables.get("out_of_scope")) if "ood_decline" in bounds else []),
        shifted=_lengths(_texts(tables.get("shifted")) if "shift_quality" in bounds else []),
        paraphrases=_lengths(_texts(tables.get("paraphrases"))),
        traffic=_lengths(traffic),
        beside_traffic=_lengths([] if question.judged_beside_traffic is None else gate),
        again=_lengths(_longest(gate, again)),
        under_load=_lengths(text for loop in most_loops(len(gate)) for text in _longest(gate, loop)),
        traffic_again=_lengths(_longest(traffic, again)),
        test=_lengths(test),
        cascade_dev=_lengths(dev[:CASCADE_DEV_ROWS]),
        guard_dev=_lengths(guarded),
        unlabelled=_lengths(unlabelled),
        train=_trained_on(question),
        **_around(question),
        **(_as_judged(question, [*gate, *test, *traffic]) if use_case.judge else {}),
    )


def _around(question: Question) -> dict[str, int]:
    """What stands around a text in each form of request, and what holds an answer to its format."""
    use_case, tables = question.use_case, question.tables
    task, retrieval, train = use_case.task, use_case.retrieval, tables.get("train")
    documents = _longest(_texts(tables.get("documents")), retrieval.documents)
    system = system_prompt(task)
    fixed = longest_of(searched_shots(use_case, train))
    schema = task.json_schema if task.kind == "extraction" else None
    return {
        "prompt": _request(use_case, system, fixed, ()),
        "rag": _request(use_case, system, _longest_shots(use_case, train), documents),
        "trained": _request(use_case, trained_prompt(use_case), (), documents),
        "constraint": most_tokens(json.dumps([schema, task.answers], ensure_ascii=False)) + _as_options(use_case),
    }


def _trained_on(question: Question) -> Lengths:
    """What a host is given to train on: each text as the last turn, and its answer as one more."""
    use_case, train = question.use_case, question.tables.get("train")
    if use_case.training.managed is None or train is None:
        return Lengths()
    bare, rows = Prompt(system=""), zip(train["text"], train["label"], strict=True)
    each = (
        most_tokens(render(bare, str(text))[-1].content) + most_tokens(completion_of(use_case.task, str(label)))
        for text, label in rows
    )
    return Lengths.of(heapq.nlargest(rows_trained_on(use_case, len(train)), (at + TEMPLATE_TOKENS[1] for at in each)))


def _as_options(use_case: UseCase) -> int:
    """What stands around labels that are options of a decision, where a model may be asked for one."""
    asked = any(model.decides for model in use_case.models.candidates)
    is_searched = use_case.searches and any(model.is_served_here for model in use_case.models.candidates)
    return OPTION_TOKENS * len(use_case.task.answers or ()) if asked or is_searched else 0


def _request(use_case: UseCase, system: str, shots: Sequence[Shot], documents: Sequence[str]) -> int:
    """A request without its text, in the longer of its two forms."""
    prompt = Prompt(system=system, shots=tuple(shots), constrained=use_case.task.can_be_constrained)
    turns = render(prompt, "", documents=documents, enumerated=use_case.task.answers is not None)
    return most_request_tokens(turn.content for turn in turns)


def _longest_shots(use_case: UseCase, train: pd.DataFrame | None) -> list[Shot]:
    """The examples that make the longest request, whichever the retrieval finds."""
    if train is None:
        return []
    every = (
        shot(use_case.task, str(text), str(label)) for text, label in zip(train["text"], train["label"], strict=True)
    )
    return heapq.nlargest(most_examples(use_case), every, key=lambda each: most_tokens(each.text + each.label))


def _as_judged(question: Question, graded: Iterable[str]) -> dict[str, Lengths | int | float]:
    """What a judge reads: the rubric around an answer, expected answers, and how much texts grow as JSON."""
    use_case, tables = question.use_case, question.tables
    judge, task, people = use_case.judge, use_case.task, tables.get("graded")
    assert judge is not None
    labelled = [frame for name in ("gate", "shifted", "test", "traffic") if (frame := tables.get(name)) is not None]
    references = (
        completion_of(task, label) for frame in labelled for label in frame["label"] if isinstance(label, str)
    )
    texts = [*graded, *_texts(tables.get("shifted"))]
    own = [] if people is None else zip(people["text"], people["answer"], people["label"], strict=True)
    beside = [
        judge.message(str(text), str(answer), completion_of(task, label) if isinstance(label, str) else None)
        for text, answer, label in own
    ]
    constraint = json.dumps([None, judge.choices], ensure_ascii=False)  # as it is reserved: a schema, and choices
    return {
        "judge": most_request_tokens((judge.system(task.instruction), judge.message("", "", "-")), constraint),
        "references": max((_as_json(each) for each in references), default=0),
        "escaped": max((_as_json(text) / max(most_tokens(text), 1) for text in texts), default=1.0),
        "graded": _lengths(beside),
    }


def _as_json(text: str) -> int:
    return max(most_tokens(json.dumps(text, ensure_ascii=False)) - 2, most_tokens(text))


def _texts(frame: pd.DataFrame | None) -> list[str]:
    return [] if frame is None else [str(text) for text in frame["text"]]


def _longest(texts: Sequence[str], count: int) -> list[str]:
    return heapq.nlargest(count, texts, key=most_tokens)


def _lengths(texts: Iterable[str]) -> Lengths:
    """The bytes these texts take as the last turn of a request."""
    bare = Prompt(system="")
    return Lengths.of(most_tokens(render(bare, text)[-1].content) for text in texts)
