"""What every frozen model of the core is made of."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of something described as data: immutable, and a field it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def written_but_for(written: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """What is written of a part, without fields that have these values: a field added later leaves older content keys as they were."""
    return {name: value for name, value in written.items() if name not in defaults or defaults[name] != value}
