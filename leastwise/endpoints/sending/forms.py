"""Which form a request is sent in. What a decision model is sent is in `decision.py`, a completion in
`leastwise.endpoints.completion`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from leastwise.endpoints.asking import parameters_of, provider_messages, settings_of
from leastwise.endpoints.completion.asking import complete
from leastwise.endpoints.request import Request, Target
from leastwise.endpoints.sending.decision import decide

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model


async def sent(model: Model, target: Target, request: Request, timeout_s: float) -> tuple[ModelResponse, float]:
    """The provider's response and the milliseconds it took; raises what the provider layer raises of a failed call."""
    from pydantic_ai.direct import model_request

    if request.decides or request.is_completion:
        started = time.perf_counter()
        response = await (decide if request.decides else complete)(model, target, request, timeout_s)
        return response, (time.perf_counter() - started) * 1000
    settings, parameters = settings_of(target, request, timeout_s), parameters_of(request, target)
    messages, started = provider_messages(request.messages, target.habits), time.perf_counter()
    response = await model_request(
        model, messages, model_settings=settings, model_request_parameters=parameters, instrument=False
    )
    return response, (time.perf_counter() - started) * 1000
