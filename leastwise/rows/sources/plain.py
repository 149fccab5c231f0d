"""The one form every source is brought into: a text, its expected answer where there is one, and where it stood.

It reads nothing and chooses no column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import Field

from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.stores.tables import table_values

if TYPE_CHECKING:
    import pandas as pd

TEXT, LABEL, SPLIT, GROUP, TIME, AT = "text", "label", "split", "group", "time", "at"
JOIN = "+"  # of columns whose texts are put together
# Names that people give the text and the expected answer, likeliest first; compared without case, blanks and marks.
TEXT_NAMES = (
    *("text", "sentence", "utterance", "query", "question", "input", "prompt", "message", "body", "content"),
    *("description", "request", "review", "comment", "document", "passage", "title", "subject"),
)
LABEL_NAMES = (
    *("label", "intent", "category", "class", "target", "expectedoutput", "expected", "expectedresponse", "ideal"),
    *("answer", "output", "completion", "response", "gold", "reference", "record", "labels", "answers", "topic", "tag"),
    *("team", "queue", "route", "department", "sentiment", "tactic", "type"),
)
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "answer",
    "gpt": "answer",
}


class Columns(Part):
    """Which fields of a source hold what; empty: found by name, then by content."""

    text_column: str = Field("", description="Field with the input; several joined by +.")
    label_column: str = Field("", description="Field with the expected answer.")
    split_by: str = Field("", description="Field whose groups (customers, documents) must not be in two splits.")
    time_column: str = Field("", description="Field with the time of a request, for traffic.")


@dataclass(frozen=True)
class Plain:
    """The rows of one source: columns text, label (None where there is none), split (empty: not said), group, time, at.

    `at` says where a row stands. `chosen` says which field each column was taken from.
    """

    shape: str
    rows: pd.DataFrame
    chosen: Mapping[str, str]
    notes: tuple[str, ...] = ()
    instruction: str = ""  # a system message that every chat has
    settings: Mapping[str, str] = field(default_factory=dict)


def plain_rows(
    texts: Sequence[object],
    labels: Sequence[object],
    at: Sequence[str],
    splits: Sequence[object] | None = None,
    groups: Sequence[object] | None = None,
    times: Sequence[object] | None = None,
) -> pd.DataFrame:
    """A frame of these columns, everything text."""
    import pandas as pd

    count = len(texts)
    empty: list[object] = [None] * count
    return pd.DataFrame(
        {
            TEXT: pd.Series([written(text) for text in texts], dtype=object),
            LABEL: pd.Series([answer_text(label) for label in labels], dtype=object),
            SPLIT: pd.Series([str(each or "") for each in splits or empty], dtype=object),
            GROUP: pd.Series([named(each) for each in groups or empty], dtype=object),
            TIME: pd.Series([written(each) for each in times or empty], dtype=object),
            AT: pd.Series(list(at), dtype=object),
        }
    )


def written(value: object) -> str | None:
    """A value as text, None where it is missing; a list or record as its JSON."""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    try:
        return table_values.as_text(value)
    except ValueError:
        return "\0"  # no text that can be written: cleaning puts it aside with this as the reason


def named(value: object) -> str | None:
    """A value that names something: 7.0 of a column of floats is 7."""
    return written(int(value) if isinstance(value, float) and value.is_integer() else value)


def answer_text(value: object) -> str | None:
    """An expected answer as one string: a list of one is that one, of several their JSON, a record its JSON."""
    if isinstance(value, dict) and set(value) == {"text", "answer_start"}:  # as SQuAD writes several right answers
        value = list(dict.fromkeys(value["text"])) if isinstance(value["text"], list) else value["text"]
    if isinstance(value, list):
        value = [each for each in value if not table_values.is_missing(each)]
        if len(value) < 2:
            return answer_text(value[0]) if value else None
    text = named(value)
    return text if text is not None and text.strip() else None


def as_value(value: object) -> object:
    """What JSON in a text says, where it is a list or a record; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            parsed: object = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return parsed
    return value


def key_of(name: object) -> str:
    """A field's name without case, blanks and marks."""
    return "".join(char for char in str(name).casefold() if char.isalnum())


def asked(value: object, wanted: str, where: str, remedy: str) -> object:
    """The input in a nested value: the last thing a chat's user says, a record's only text or the one named like one.

    BadInput where a record has several fields and none is known.
    """
    value = as_value(value)
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return last_said(value, "user")
    if not isinstance(value, dict):
        return value
    if wanted:
        return joined(value, wanted, where)
    if "messages" in value:
        return asked(value["messages"], "", where, remedy)
    if len(value) == 1:
        return asked(next(iter(value.values())), "", where, remedy)
    known = sorted((TEXT_NAMES.index(key_of(name)), name) for name in value if key_of(name) in TEXT_NAMES)
    if not known:
        raise BadInput(f"{where}: has the fields {', '.join(map(str, value))}; name the one that is asked by {remedy}")
    return value[known[0][1]]


def joined(record: Mapping[str, object], names: str, where: str) -> object:
    """The value of a field, or the texts of several (`subject+body`) a line each; BadInput where one is not there."""
    if names in record:
        return record[names]
    parts = names.split(JOIN)
    if missing := [name for name in parts if name not in record]:
        raise BadInput(f"{where}: has no field {missing[0]!r} (it has {', '.join(map(str, record))})")
    return "\n".join(text for name in parts if (text := written(record[name])))


def last_said(messages: Sequence[Mapping[str, object]], who: str) -> str | None:
    """What the last message of this role says; its parts put together where it has several."""
    said = [each for each in messages if ROLES.get(str(each.get("role"))) == who]
    return message_text(said[-1].get("content")) if said else None


def message_text(content: object) -> str | None:
    """The text of a message's content, which may be a list of parts."""
    if isinstance(content, list):
        parts = [str(part.get("text", "")) for part in content if isinstance(part, dict)]
        return "\n".join(filter(None, parts)) or None
    return written(content)
