"""promptfoo's tests: YAML (`tests: [{vars, assert}]`) and CSV (a column a variable, `__expected` beside them).

An assertion that names the right answer (equals, contains) gives the expected answer; code, rubrics and other checks
give none, and are counted. No prompt is sent and no assertion is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows.sources.plain import Columns, Plain, as_value, asked, joined, plain_rows
from leastwise.rows.sources.promptfoo_files import FILE, tests_of
from leastwise.rows.sources.tables import from_table

if TYPE_CHECKING:
    import pandas as pd

EXACT = ("equals", "contains", "icontains", "similar", "is-exactly")
SEVERAL = ("contains-any", "icontains-any")
EXPECTED = "__expected"


def is_csv(columns: Sequence[str]) -> bool:
    """Whether a table has promptfoo's columns of expected answers."""
    return any(str(name).startswith(EXPECTED) for name in columns)


def from_yaml(record: Mapping[str, object], columns: Columns, source: str) -> Plain:
    """The tests of a configuration and of files that it names; BadInput where there are none, or a test is none."""
    default = record.get("defaultTest")
    if isinstance(default, str):
        raise BadInput(f"{source}: defaultTest lies in another file ({default!r:.80}); write it out here")
    tests, places = tests_of(record, source, _of_row)
    shared = _mapping(default, "vars")
    asserted = _list(default, "assert")
    texts, labels, unread = [], [], Counter[str]()
    for place, test in zip(places, tests, strict=True):
        variables = {**shared, **_mapping(test, "vars")}
        texts.append(_input(variables, columns, place))
        labels.append(_named(variables, columns) or _answer([*_list(test, "assert"), *asserted], unread))
    groups = [_mapping(test, "vars").get(columns.split_by) for test in tests] if columns.split_by else None
    rows = plain_rows(texts, labels, places, groups=groups)
    chosen = {"text": columns.text_column or "vars", "label": columns.label_column or "assert"}
    return Plain("promptfoo YAML", rows, chosen, _notes(unread))


def from_csv(table: pd.DataFrame, columns: Columns, source: str) -> Plain:
    """The tests of a table: what its columns of expectations say, beside its variables."""
    import pandas as pd

    marked = [str(name) for name in table.columns if str(name).startswith("__")]
    unread, labels = Counter[str](), []
    for record in table[[name for name in marked if name.startswith(EXPECTED)]].to_dict("records"):
        labels.append(_answer([_parsed(str(value)) for value in record.values() if value is not None], unread))
    held = table.drop(columns=marked)
    held["__label"] = pd.Series(labels, dtype=object, index=held.index)
    plain = from_table(held, columns.model_copy(update={"label_column": columns.label_column or "__label"}), source)
    chosen = {**plain.chosen, "label": columns.label_column or EXPECTED}
    return Plain("promptfoo CSV", plain.rows, chosen, _notes(unread))


def _of_row(record: Mapping[str, object]) -> Mapping[str, object]:
    """A row of a table of tests as a test."""
    said = [value for name, value in record.items() if name.startswith(EXPECTED) and value is not None]
    variables = {name: value for name, value in record.items() if not name.startswith("__")}
    return {"vars": variables, "assert": [_parsed(str(value)) for value in said]}


def _mapping(value: object, name: str) -> dict[str, object]:
    held = value.get(name) if isinstance(value, dict) else None
    return held if isinstance(held, dict) else {}


def _list(value: object, name: str) -> list[object]:
    held = value.get(name) if isinstance(value, dict) else None
    return held if isinstance(held, list) else []


def _input(variables: Mapping[str, object], columns: Columns, where: str) -> object:
    if columns.text_column:
        return joined(variables, columns.text_column, where)
    own = {name: value for name, value in variables.items() if name not in (columns.split_by, columns.label_column)}
    return asked(own, "", where, "--text-column")


def _named(variables: Mapping[str, object], columns: Columns) -> object:
    return variables.get(columns.label_column) if columns.label_column else None


def _parsed(text: str) -> dict[str, object]:
    """A cell of `__expected`: `contains: Paris`, or the text that is wanted."""
    kind, colon, value = text.partition(":")
    kind = kind.strip()
    if colon and (kind in (*EXACT, *SEVERAL) or kind in ("fn", "eval", "grade", "javascript", "python", "llm-rubric")):
        parts = [part.strip() for part in value.split(",")] if kind in SEVERAL else value.strip()
        return {"type": kind, "value": parts}
    is_other = not colon and kind.startswith("is-")
    return {"type": kind} if is_other else {"type": "equals", "value": text}


def _answer(assertions: Sequence[object], unread: Counter[str]) -> object:
    """The right answer that the first assertion to name one gives."""
    answer: object = None
    for each in assertions:
        kind = str(each.get("type")) if isinstance(each, dict) else "(no record)"
        value = each.get("value") if isinstance(each, dict) else None
        if kind not in (*EXACT, *SEVERAL) or value is None:
            unread[kind] += 1
        elif isinstance(value, str) and value.startswith(FILE):
            unread[f"{kind} in a file"] += 1
        elif answer is None:
            answer = as_value(value)
    return answer


def _notes(unread: Counter[str]) -> tuple[str, ...]:
    if not unread:
        return ()
    said = ", ".join(f"{kind} {count:,}" for kind, count in sorted(unread.items()))
    return (f"assertions that name no right answer are left out: {said}",)
