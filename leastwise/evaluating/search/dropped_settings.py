"""Settings that an endpoint takes and drops without a word: the cap on output, the temperature, the effort.

Answers to a few dev rows show it. A model that is not asked as the use case says is not the candidate that would be
judged, so it is said with the setting to change. It asks nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from leastwise.endpoints.habits import MAY_THINK
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Target
from leastwise.metrics.task_metric import agree
from leastwise.use_case.model import Model
from leastwise.use_case.task import Task

MARKS_OF_AN_ANSWER = 8  # tokens that end or wrap an answer


def dropped_by(model: Model, target: Target, cap: int, replies: Sequence[Reply]) -> str:
    """What was dropped as far as answers to different rows show it, and the setting to change; empty where nothing."""
    came = [reply for reply in replies if not reply.error]
    longer = [reply for reply in came if _least_tokens(reply) > cap]
    if came and 2 * len(longer) >= len(came):
        most = max(map(_least_tokens, longer))
        return (
            f"{model.uri}: {len(longer)} of {len(came)} answers to dev rows have more than the {cap} tokens of their "
            f"cap (up to {most:,}), so it is dropped; {_of_the_cap(target)}"
        )
    if _may_be_dropped(model, target) and came and not any(map(_may_have_thought, came)):
        return (
            f"{model.uri}: reasoning is {model.reasoning}, and none of {len(came)} answers to dev rows shows any "
            "thought, so it is dropped; remove reasoning from the model, or say in habits.extra_body how its endpoint "
            "is told to think"
        )
    return ""


def _may_be_dropped(model: Model, target: Target) -> bool:
    """Whether it is told to think and that is not sure to be taken: of a name that the provider layer does not know, or
    by an endpoint that refused it; a person who said so of the model knows it.
    """
    is_refused = target.habits.reasoning_effort is False and model.habits.reasoning_effort is not False
    return model.reasoning not in (None, "none") and (is_refused or not MAY_THINK.match(model.uri))


def has_temperature(model: Model, target: Target, task: Task) -> bool:
    """Whether answers to the same request should be the same: it is asked at temperature 0, and says a label."""
    is_told = target.habits.temperature is not False and not target.is_own
    return is_told and model.reasoning in (None, "none") and task.answers is not None


def samples(task: Task, model: Model, first: Sequence[Reply], again: Sequence[Reply]) -> str:
    """Whether the same requests were answered otherwise the second time, and the setting to change; empty where not.

    Half of them must be: some hosts are not quite reproducible at temperature 0.
    """
    pairs = [(one, other) for one, other in zip(first, again, strict=True) if not (one.error or other.error)]
    apart = sum(agree(task, [one.text.strip(), other.text.strip()]) < 1 for one, other in pairs)
    if not pairs or 2 * apart < len(pairs):
        return ""
    return (
        f"{model.uri}: {apart} of {len(pairs)} dev rows were answered otherwise when asked again at temperature 0, so "
        "the temperature is dropped; have its endpoint keep to it, or set habits.temperature: false on the model, and "
        "it is judged as it samples"
    )


def _least_tokens(reply: Reply) -> int:
    """What it has at least: as told, or a token a word."""
    return reply.output_tokens if reply.usage_known else len(reply.text.split())


def _may_have_thought(reply: Reply) -> bool:
    """Whether it used more tokens than its answer can have, or does not say."""
    return not reply.usage_known or reply.output_tokens > len(reply.text.encode()) + MARKS_OF_AN_ANSWER


def _of_the_cap(target: Target) -> str:
    if target.dialect != "openai":
        return "have its endpoint keep to it, or name another model"
    other = "max_tokens" if (target.habits.cap_field or "max_completion_tokens") != "max_tokens" else None
    return f"set habits.cap_field: {other or 'max_completion_tokens'} on the model, the other name of it"
