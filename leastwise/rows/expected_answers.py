"""Expected answers as one string each, whatever the kind of task; each is checked. It scores nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from leastwise.errors import BadInput
from leastwise.metrics.schema_adherence import adherence_of, parsed
from leastwise.money.token_counts import ENGLISH_CHARS_PER_TOKEN, likely_tokens
from leastwise.rows import personal_data
from leastwise.stores.tables import table_values
from leastwise.stores.tables.drawn_rows import say_once
from leastwise.stores.tables.table_formats import unrepeated
from leastwise.text_forms import one_form, shows_nothing
from leastwise.use_case import UseCase
from leastwise.use_case.task import MOST_NESTED, Extraction, Task, nests_at_most

if TYPE_CHECKING:
    import pandas as pd

CHARS_PER_TOKEN_AT_MOST = 8.0  # twice English's average: a longer answer surely takes more tokens


def label_texts(allowed: Sequence[str], labels: Iterable[object], source: str) -> list[str | None]:
    """Labels of a table as the use case writes them, whatever the format: 1, 1.0 and true as text, one Unicode form.

    What is none of them stays as it is (`leastwise.rows.row_checks` says which row); BadInput for a list or record.
    """
    if table_values.is_text(labels):  # equal texts are equal labels, which 1, 1.0 and true are not
        codes, distinct = labels.factorize(use_na_sentinel=False)
        each = label_texts(allowed, distinct.tolist(), source)
        return [each[code] for code in codes]
    forms = {one_form(label): label for label in allowed}
    cases = {label.casefold(): label for label in allowed}
    texts: list[str | None] = []
    for value, text in zip(labels, table_values.texts(labels, "label", source), strict=True):
        if text is not None and text not in forms.values():
            whole = text.removesuffix(".0") if isinstance(value, float) else text
            folded = cases.get(text, text) if isinstance(value, (bool, np.bool_)) else whole
            text = forms.get(one_form(folded), folded)
        texts.append(text)
    return texts


def expected_texts(task: Task, labels: Iterable[object], source: str, mask: tuple[str, ...] = ()) -> list[str]:
    """Every expected answer as one string; BadInput names the row whose answer the task does not allow.

    Extraction: a record or its JSON, which must keep to the schema. Free text: one text, or a list (or its JSON) any of
    which is right. `mask`: kinds of personal data masked in each of them, as in the texts they answer.
    """
    if task.kind == "classification":
        return [str(label) for _, label in table_values.numbered(labels)]
    write = _written_record(task, mask) if task.kind == "extraction" else partial(_written_texts, mask)
    return table_values.each_row(labels, write, f"{source}: row")


def are_known(use_case: UseCase, rows: pd.DataFrame) -> bool:
    """Whether the answers to these rows can be scored: each has its expected answer, or a judge needs none."""
    return use_case.is_graded or bool(rows["label"].notna().all())


def say_unlabelled(lacking: int, of: int, source: str) -> None:
    """Say what traffic is judged on where not every request has its expected answer."""
    some = "" if lacking == of else ", so those of the others are not used"
    say_once(
        f"{source}: {lacking:,} of {of:,} requests have no expected answer{some}: it is replayed for cost, latency and "
        "format, and what an expected answer is needed for is judged on data.gate"
    )


def check_room(use_case: UseCase, table: Callable[[str], pd.DataFrame | None]) -> None:
    """BadInput where so many right answers are cut off by `traffic.output_tokens` that the requirements cannot be met.

    A label, a record or an exact text that is cut off is wrong. Tokens are counted low, at CHARS_PER_TOKEN_AT_MOST.
    """
    task, gate, cap = use_case.task, table("gate"), use_case.traffic.output_tokens
    wanted = [limit for limit in (use_case.requirements.quality, use_case.requirements.adherence) if limit]
    is_whole_or_wrong = task.kind != "free_text" or task.metric == "exact_match"
    if gate is None or not wanted or not is_whole_or_wrong or gate["label"].isna().any():
        return
    least = [_least_tokens(task, label) for label in gate["label"]]
    cut = [row for row, tokens in enumerate(least, 1) if tokens > cap]
    floor = max(limit.bound - limit.margin for limit in wanted)
    if len(cut) / len(least) > 1 - floor + 1e-9:
        raise BadInput(
            f"traffic.output_tokens: {cap} tokens cut off the expected answers of {len(cut):,} of {len(least):,} rows "
            f"of data.gate (first: row {cut[0]}, at least {least[cut[0] - 1]:.0f} tokens), and what is cut off is "
            f"wrong; raise it, to {math.ceil(2.5 * max(least)):,} or more"
        )


def _least_tokens(task: Task, label: str) -> float:
    right = json.loads(label) if task.kind == "free_text" else [label]
    return min(likely_tokens(text) * ENGLISH_CHARS_PER_TOKEN / CHARS_PER_TOKEN_AT_MOST for text in right)


def _written_record(task: Extraction, mask: tuple[str, ...]) -> Callable[[object], str]:
    adheres = adherence_of(task.json_schema)

    def write(label: object) -> str:
        label = table_values.as_text(label) if isinstance(label, bytes) else label
        forms = [_read(label)] if isinstance(label, str) else _forms(_as_json(label), task.json_schema)
        texts = [_dumped(personal_data.masked_values(form, mask)) for form in forms]
        for text in texts:
            if adheres(text):
                return text
        raise ValueError(f"the expected record {texts[0][:80]} does not keep to task.json_schema")

    return write


def _read(text: str) -> object:
    """The JSON of an expected record; ValueError for what is none, or says a field twice."""
    value = parsed(text)
    if value is None:
        raise ValueError(f"the expected record {text[:80]!r} is no JSON, as task.json_schema describes it")
    try:
        json.loads(text, object_pairs_hook=unrepeated)
    except ValueError as error:
        raise ValueError(f"the expected record {text[:80]}: {error}") from None
    return value


def _dumped(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
    return table_values.as_text(text) or ""


def _forms(record: object, schema: dict[str, object]) -> list[object]:
    """What a record of a table may mean: a null is a field only other rows have, or one that the schema demands."""
    return [_without_absent(record), record, _without_optional(record, schema, schema)]


def _as_json(value: object) -> object:
    """A value of a table as JSON holds it; ValueError where it nests too deep or JSON has no such value."""
    if not nests_at_most(value, MOST_NESTED):
        raise ValueError(f"the expected record is nested more than {MOST_NESTED} deep")
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, (list, np.ndarray)):
        return [_as_json(each) for each in value]
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or isinstance(plain, (str, bool, int, float)):
        return plain
    return float(plain) if isinstance(plain, Decimal) else table_values.as_text(plain)


def _without_absent(value: object) -> object:
    """A record as a table gives it back, without the fields that only other rows have (they come back as null)."""
    if isinstance(value, dict):
        return {name: _without_absent(each) for name, each in value.items() if each is not None}
    return [_without_absent(each) for each in value] if isinstance(value, list) else value


def _without_optional(value: object, schema: object, root: dict[str, object]) -> object:
    """A record without the nulls its schema does not require; a schema is followed through references and items."""
    rules = _resolved(schema, root)
    if isinstance(value, list):
        return [_without_optional(each, rules.get("items"), root) for each in value]
    if not isinstance(value, dict):
        return value
    fields, required = rules.get("properties"), rules.get("required")
    kept = {name for name in value if value[name] is not None or (isinstance(required, list) and name in required)}
    of = fields if isinstance(fields, dict) else {}
    return {name: _without_optional(value[name], of.get(name), root) for name in value if name in kept}


def _resolved(schema: object, root: dict[str, object]) -> dict[str, object]:
    seen: list[str] = []
    while isinstance(schema, dict) and isinstance(ref := schema.get("$ref"), str) and ref not in seen:
        seen.append(ref)
        schema = root
        for part in filter(None, ref.removeprefix("#").split("/")):
            schema = schema.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
    return schema if isinstance(schema, dict) else {}


def _written_texts(mask: tuple[str, ...], label: object) -> str:
    texts = [table_values.as_text(each) for each in _listed(label)]
    if not texts or any(text is None or shows_nothing(text) for text in texts):
        raise ValueError(f"the expected answer {str(label)[:80]!r} is neither a text nor a list of texts")
    return json.dumps([personal_data.masked(text, mask) for text in texts if text], ensure_ascii=False)


def _listed(label: object) -> list[object]:
    """One text, several, or several as JSON (the only way a CSV can hold them) as a list."""
    if not isinstance(label, str):
        return list(label) if isinstance(label, (list, tuple, np.ndarray)) else [label]
    several = parsed(label) if label.lstrip().startswith("[") else None
    return several if isinstance(several, list) and all(isinstance(text, str) for text in several) else [label]
