"""Why an answer has no value at all, where that lies in its form: cut off by the cap, refused, or wrapped in something.

It scores nothing and repairs nothing: such an answer is wrong. It says what would help before a dearer stage does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from leastwise.metrics.answer import Answer
from leastwise.metrics.score import Score
from leastwise.use_case.task import Task

Shortfall = Literal["cut_off", "refused", "wrapped"]
MOSTLY = 0.5

_WRAPPER = re.compile(r"\s*(```|<tool_call>|<function|\{\s*\"|\[\s*[\[{\"])")
_HELP: Mapping[Shortfall, str] = {
    "cut_off": "were cut off by the cap of {cap} tokens: raise traffic.output_tokens, or allow for reasoning",
    "refused": "were refused by the provider's content filter: loosen it, or name a model without one",
    "wrapped": "hold the answer in something else (a code fence, JSON, a tool call): ask for the bare answer in "
    "task.instruction",
}


def shortfall_of(task: Task, answer: Answer, score: Score) -> Shortfall | None:
    """What is wrong with the form of an answer that scored nothing; None where its form is right, or merely other."""
    text = answer.text or ""
    if answer.finish_reason == "content_filter":
        return "refused"
    if answer.finish_reason == "length" and (not text.strip() or score.adherence == 0):
        return "cut_off"
    if score.adherence > 0 or task.kind == "free_text":
        return None
    if task.kind == "extraction":
        return "wrapped" if _WRAPPER.match(text) and not text.lstrip().startswith(("{", "[")) else None
    return "wrapped" if _WRAPPER.match(text) else None


def finding(shortfalls: Mapping[Shortfall, int], wrong: int, answers: int, cap: int) -> str:
    """What at least half of the wrong answers have in common and what helps, in a sentence; empty: nothing."""
    name, count = max(shortfalls.items(), key=lambda each: each[1], default=(None, 0))
    if name is None or count < MOSTLY * wrong:
        return ""
    return f"{count} of {answers} answers {_HELP[name].format(cap=cap)}"
