"""Is the model, set up as it is, fit to answer at all? A few dev rows before any is searched on or judged.

What cuts answers off or empties them is no evidence of the model: it is said with the setting to change.
"""

from __future__ import annotations

from collections.abc import Sequence

from leastwise.endpoints.received import CONTENT_FILTER
from leastwise.endpoints.reply import Reply
from leastwise.evaluating.search.dev_answers import DevAnswers
from leastwise.ladder.candidate import Candidate
from leastwise.use_case import UseCase

FITNESS_ROWS = 8


def unfit(use_case: UseCase, model: str, replies: Sequence[Reply]) -> str:
    """What is wrong with these answers to dev rows, and the setting to change; empty where nothing is.

    Half of them must show the same: one answer may be odd. What was lost shows nothing.
    """
    came = [reply for reply in replies if not reply.error]
    found = {
        "empty": [reply for reply in came if not reply.text.strip() and reply.finish_reason != CONTENT_FILTER],
        "refused": [reply for reply in came if reply.finish_reason == CONTENT_FILTER],
        "cut off": [reply for reply in came if reply.text.strip() and _is_cut(use_case, reply)],
    }
    for what, shown in found.items():
        if came and 2 * len(shown) >= len(came):
            return (
                f"{model}: {len(shown)} of {len(came)} answers to dev rows are {what}; {_remedy(what, shown, use_case)}"
            )
    if "usd_per_1k_requests" in use_case.requirements.bounds and came and not any(each.usage_known for each in came):
        return f"{model}: its answers do not say what they used, so cost cannot be judged; have its endpoint tell usage"
    return ""


def unusable(answers: DevAnswers, axis: str, candidate: Candidate, rows: int) -> str:
    """Why a variant that was asked so many rows is not gone on with, however good its answers are; empty where it is:
    a format nobody keeps to, or an effort with which half of the answers take longer than the slowest may.
    """
    use_case = answers.work.use_case
    is_held = candidate.prompt is not None and candidate.prompt.constrained
    if is_held and (ignored := ignores_format(use_case, answers.ask(candidate, FITNESS_ROWS))):
        return ignored
    limit = use_case.requirements.p95_latency_ms
    if axis != "reasoning" or limit is None:
        return ""
    took, most = answers.median_ms(candidate, rows), limit.bound + limit.margin
    return f"half of its answers take {took:,.0f} ms and more, at most {most:,.0f} ms may" if took > most else ""


def ignores_format(use_case: UseCase, replies: Sequence[Reply]) -> str:
    """Why a constrained answer is none: the endpoint took the schema and dropped it without a word."""
    labels = use_case.task.answers
    came = [reply for reply in replies if not reply.error and reply.finish_reason == "stop"]
    if not labels or not came or 2 * sum(reply.text.strip() in labels for reply in came) >= len(came):
        return ""
    return "the endpoint takes a JSON schema and does not keep to it; set habits.json_schema: false on the model"


def _is_cut(use_case: UseCase, reply: Reply) -> bool:
    """Whether the cap on output cut off what was an answer till then: a model that rambles is none for its cap."""
    if reply.finish_reason != "length":
        return False
    labels = use_case.task.answers
    said = reply.text.strip()
    return labels is None or any(label.startswith(said) and label != said for label in labels)


def _remedy(what: str, shown: Sequence[Reply], use_case: UseCase) -> str:
    cap = use_case.traffic.output_tokens
    if what == "refused":
        return "its provider filters these texts; name another model, or have the filter changed"
    if what == "cut off":
        return f"raise traffic.output_tokens above {cap}"
    if any(reply.finish_reason == "length" for reply in shown):
        return (
            f"its whole cap of {cap} tokens went into what is not shown; set reasoning on the model, or raise "
            "traffic.output_tokens"
        )
    return "it says nothing; check served_name and habits on the model (system_role, extra_body)"
