"""Where a model answers. It starts nothing (see `leastwise.engines`)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """Where a served model answers. `base_url` ends in `/v1` for a causal model; `pid` is None if it is not ours."""

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    pid: int | None = None
