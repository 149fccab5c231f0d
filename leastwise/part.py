"""What every frozen model of the core is made of."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of something described as data: immutable, and a field it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
