"""One label decided on: the question as the provider layer's decision models take it, and what they tell as the
log-probability of each label, which is how a completion's likelihoods are kept too.

Limits on how many labels there may be are the interface's, told before anything is asked. It fits no probability: a
temperature of dev does (`leastwise.evidence.choosing.calibration`).
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from leastwise.endpoints.received import log_probabilities
from leastwise.endpoints.request import Request, Target
from leastwise.errors import BadInput, problems_of, refuse
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model
    from pydantic_ai.models.decision import DecisionModel, DecisionModelSettings

QUESTION = "label"
_KINDS = {  # which class of the provider layer says how many options one question may have
    "openai-decisions": ("openai_decisions", "OpenAIDecisionsModel"),
    "google-decisions": ("google_decisions", "GoogleDecisionsModel"),
    "system-one": ("system_one", "SystemOneModel"),
}


async def decide(model: Model, target: Target, request: Request, timeout_s: float) -> ModelResponse:
    """What the model finds likely, by label, as JSON; raises what the provider layer raises of a failed call."""
    from pydantic_ai.messages import ModelResponse, TextPart
    from pydantic_ai.models.decision import ChoiceAnswer, ChoiceQuestion, DecisionRequest

    instructions = "\n\n".join(each.content for each in request.messages if each.role == "system")
    state = "\n\n".join(each.content for each in request.messages if each.role != "system")
    question = ChoiceQuestion(criteria=dict.fromkeys(request.choices or ()), instructions=instructions or None)
    settings: dict[str, Any] = {"timeout": timeout_s}
    if target.habits.extra_body:
        settings["extra_body"] = dict(target.habits.extra_body)
    told = await cast("DecisionModel[Any]", model).decide(
        DecisionRequest(state=state, questions={QUESTION: question}), cast("DecisionModelSettings", settings)
    )
    answer = cast("ChoiceAnswer", told.answers[QUESTION])  # of the question's kind, or the client would have refused it
    text = json.dumps(log_probabilities(answer.probabilities), ensure_ascii=False)
    return ModelResponse(parts=[TextPart(text)], provider_details={"finish_reason": "stop"})


def most_options(provider: str) -> int | None:
    """How many labels one question of this interface may have; None where the model behind it says so itself."""
    from importlib import import_module

    module, kind = _KINDS[provider]
    limit = getattr(import_module(f"pydantic_ai.models.{module}"), kind).max_choice_options
    return cast("int | None", limit)


def check_decisions(use_case: UseCase) -> None:
    """BadInput, before anything is asked, for a decision model where there is nothing to decide among, or more labels
    than its interface takes, or where it would have to write.
    """
    labels = use_case.task.answers

    def check(uri: str) -> None:
        if labels is None:
            raise BadInput(
                f"models.candidates: {uri} is a decision model, which says which of some labels is right, and a task "
                f"of kind {use_case.task.kind} has none to choose from; name a model that writes"
            )
        most = most_options(uri.partition(":")[0])
        if most is not None and len(labels) > most:
            raise BadInput(
                f"models.candidates: {uri} decides among at most {most} labels, and the task has {len(labels)}; name "
                "a model that writes, or split the task"
            )

    candidates = [model.uri for model in use_case.models.candidates if model.decides]
    refuse(problems_of([partial(check, uri) for uri in candidates]))
    judges = [model.uri for model in (use_case.judge.models if use_case.judge else ()) if model.decides]
    if judges:
        raise BadInput(f"judge.models: {judges[0]} is a decision model and writes no grade; name a model that writes")
