"""What every frozen model of the pure rooms is made of. It checks nothing beyond the fields' own types and bounds."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of something described as data: immutable, and a field it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Result(Part):
    """A part that holds what was measured or computed, which may come to no number: that is evidence of nothing."""

    model_config = ConfigDict(allow_inf_nan=True)


def written_but_for(written: Mapping[str, object], **defaults: object) -> dict[str, object]:
    """What is written of a part, without the fields that have these values.

    So a field that was added later leaves older content keys as they were.
    """
    return {name: value for name, value in written.items() if name not in defaults or defaults[name] != value}
