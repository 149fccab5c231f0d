"""Is a label the right one, exactly? The metric of classification. It does not aggregate."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache

from leastwise.metrics.score import Score
from leastwise.text_forms import one_form
from leastwise.use_case.task import Classification

_PAIRS = {"**": "**", "__": "__", "*": "*", "_": "_", "`": "`", '"': '"', "'": "'", "«": "»", "»": "«", "「": "」"}
_PAIRS |= {"『": "』", "《": "》", "(": ")", "[": "]", "{": "}", "<": ">", "【": "】"}
_MARKS = ".,;:!?…。、؟۔।"  # end a sentence; one_form has made full width ones plain
_QUOTES = "\"'`()[]{}«»「」『』《》【】"
_LEAD = re.compile(r"(?:[-*•]|#{1,6}) (?![\d.])")  # of a list or a heading; "- 1" may be a number


def exact_label(task: Classification, answer: str, expected: str | None) -> Score:
    """Exact label: `quality` for the label an answer means, `adherence` only for the demanded label as it is.

    `declined` is 1 where the answer is the decline label. `expected` None (an out-of-scope input) scores quality 0.
    """
    label = normalize(task, answer)
    return Score(
        quality=float(expected is not None and label == expected),
        adherence=float(_plain(answer) in map(_plain, task.answers)),
        declined=float(task.decline_label is not None and label == task.decline_label),
    )


def normalize(task: Classification, answer: str) -> str | None:
    """The label an answer means, or None.

    A label as it stands is that label. Else what wraps the answer is taken off, a layer at a time (quotes, brackets,
    marks that end a sentence), until what is left is one; then the same regardless of case; then both sides are folded
    alike. Wherever not exactly one label fits, none is meant: + - # < > are part of a label, not of its wrapping.
    """
    answer = answer if answer in task.answers else answer.strip()
    return _meant(task.answers, answer) if len(answer) <= _longest(task.answers) else None


def _plain(text: str) -> str:
    """Without what no reader of an answer can see: blanks around it, and which way a character is composed."""
    return unicodedata.normalize("NFC", text).strip()


@lru_cache(maxsize=4096)
def _meant(labels: tuple[str, ...], answer: str) -> str | None:
    if answer in labels:
        return answer
    layers = list(_layers(one_form(answer)))
    for fold in (one_form, _cased):
        for layer in layers:
            if found := _only(labels, fold, fold(layer)):
                return found
    return _only(labels, _bare, _bare(answer))


def _only(labels: tuple[str, ...], fold: Callable[[str], str], wanted: str) -> str | None:
    found = [label for label in labels if wanted and fold(label) == wanted]
    return found[0] if len(found) == 1 else None


def _cased(text: str) -> str:
    return one_form(text).casefold()


def _bare(text: str) -> str:
    """The innermost layer: symmetric, so that a label with a mark of its own is met by an answer without it."""
    return "".join(list(_layers(_cased(text)))[-1:]).strip(_MARKS + _QUOTES + " ")


def _layers(text: str) -> Iterator[str]:
    """The text, and what is left of it each time a pair around it, a mark behind or a bullet before it is taken off."""
    while text:
        yield text
        inner = _unwrapped(text)
        if inner == text:
            return
        text = inner.strip()


def _unwrapped(text: str) -> str:
    for opening, closing in _PAIRS.items():
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening) + len(closing):
            return text[len(opening) : -len(closing)]
    if text[-1] in _MARKS:
        return text[:-1]
    if lead := _LEAD.match(text):
        return text[lead.end() :]
    return text


@lru_cache(maxsize=64)
def _longest(labels: tuple[str, ...]) -> int:
    """Characters beyond which an answer means no label however it is wrapped."""
    return 4 * max(map(len, labels)) + 1000
