"""What every frozen model of the pure rooms is made of. It checks nothing beyond the fields' own types and bounds."""

import re
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leastwise.errors import BadInput

P = TypeVar("P", bound="Part")
_PAIR = re.compile(r"\s*([a-z][a-z0-9_]*)\s*=\s*(\"[^\"]*\"|[^\s,]*)\s*(?:,|\s|$)")


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


def changed(part: P, words: str) -> P:
    """A part with changes as a shell gives them: `port=8200, workers=2`; BadInput names the field and what it takes."""
    changes, rest = {}, words
    while rest.strip():
        pair = _PAIR.match(rest)
        if pair is None:
            raise BadInput(f"changes: {rest.strip()!r} is no NAME=VALUE; write them as `port=8200, workers=2`")
        changes[pair[1]] = pair[2].strip('"')
        rest = rest[pair.end() :]
    try:
        return type(part).model_validate(part.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "changes"
        known = f"; known are {', '.join(type(part).model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise BadInput(f"changes: {name}: {first['msg']}{known}") from None
