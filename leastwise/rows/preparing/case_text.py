"""A drafted use case as commented YAML: what the rows said, what is a draft, and what to decide next to each.

It decides nothing (see `drafting.py`) and writes no file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

INDENT, MOST_A_LINE = 2, 100
_ESCAPED = re.compile("[\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Remarks:
    """What is said beside the fields."""

    command: str  # by which it was made
    sources: str
    rows: str
    quality: str  # where the bound comes from
    margin: str
    has_decline: bool
    is_embedded: bool
    drafted_instruction: bool
    group_note: str
    found: tuple[str, ...]  # kinds of personal data and secrets in the texts


def case_text(fields: Mapping[str, object], remarks: Remarks) -> str:
    """The whole file."""
    lines = [
        f"# Made by `{remarks.command}` from {remarks.sources}.",
        f"# {remarks.rows}",
        "# What is marked DRAFT nobody has decided yet: read it, correct it, remove the mark.",
        f"name: {_scalar(fields['name'])}",
        f"description: {_scalar('DRAFT: say in a sentence what this is for and who asks.')}",
        "",
        *_task(_mapping(fields, "task"), remarks),
        "",
        *_data(_mapping(fields, "data"), remarks),
        "",
        *_requirements(_mapping(fields, "requirements"), remarks),
        "",
        "traffic:   # DRAFT: put your own, cost depends on it",
        *_lines(_mapping(fields, "traffic"), INDENT),
        "",
        *_models(remarks),
        *_lines(_mapping(fields, "models"), INDENT),
        "",
        f"retrieval: {_flow(fields['retrieval'])}   # shown to the model the same each time; found for each request",
        "",
        *(f"{name}: {_flow(fields[name])}{said}" for name, said in _LAST.items()),
    ]
    return "\n".join(lines) + "\n"


_LAST = {
    "budget_usd": "               # hard cap on one climb, dollars",
    "budget_usd_per_month": "    # hard cap on all flows of a month",
    "approvals": "   # ask pauses for a person; granted; never",
    "confirm_rows": "            # test rows the winner is measured on at the end",
}


def _task(task: Mapping[str, object], remarks: Remarks) -> list[str]:
    draft = "   # DRAFT: what the model is told" if remarks.drafted_instruction else "   # as all chats have it"
    lines = ["task:", f"  kind: {task['kind']}", f"  instruction: {_scalar(task['instruction'])}{draft}"]
    if "labels" in task:
        lines += ["  labels:", *(f"    - {_scalar(label)}" for label in cast("list[str]", task["labels"]))]
    if "decline_label" in task:
        lines.append(f"  decline_label: {_scalar(task['decline_label'])}   # the answer to rows of data.out_of_scope")
    if "json_schema" in task:
        lines.append("  json_schema:   # DRAFT: what the records of the source keep to")
        lines += _lines(_mapping(task, "json_schema"), 2 * INDENT)
    if "metric" in task:
        lines += [f"  metric: {task['metric']}   # or exact_match, or judge", f"  max_words: {task['max_words']}"]
    stable = "  stable: true              # DRAFT: false if labels or rules change often; training then never pays"
    return [*lines, stable, "  domain_is_public: true    # DRAFT: false if no public text resembles yours"]


def _data(data: Mapping[str, object], remarks: Remarks) -> list[str]:
    lines = ["# Train to learn from, dev to tune on, gate to be judged on, test untouched until the winner's figure."]
    lines += [f"# {remarks.group_note}", "data:"]
    lines += [f"  {name}: {_scalar(value)}" for name, value in data.items()]
    mask = f"  # mask: [{', '.join(remarks.found)}]   # found by form; masked in every text before it goes anywhere"
    return [*lines, mask] if remarks.found else lines


def _requirements(requirements: Mapping[str, object], remarks: Remarks) -> list[str]:
    quality, adherence = (_flow(requirements[name]) for name in ("quality", "adherence"))
    lines = [
        "# bound: what is wanted. margin: how much worse may still pass, rarely.",
        "requirements:",
        f"  quality: {quality}   # DRAFT: {remarks.quality}",
        f"  # {remarks.margin}",
        f"  adherence: {adherence}   # share of answers in the demanded format",
        "  # p95_latency_ms: {bound: 2000, margin: 500}",
        "  # usd_per_1k_requests: {bound: 0.50, margin: 0.10}   # all in, at the traffic below",
    ]
    return [*lines, "  # ood_decline: {bound: 0.8, margin: 0.1}   # share of out-of-scope rows that are declined"][
        : None if remarks.has_decline else -1
    ]


def _models(remarks: Remarks) -> list[str]:
    if remarks.is_embedded:
        said = "No provider's key was set, so the embedded 135M model stands in for one: ALL PRICES ARE ILLUSTRATIVE."
        return [f"# {said}", "models:"]
    said = "Providers whose key was set. Fine-tuning needs open weights: add models.base (see alert-triage.yaml)."
    return [f"# {said}", "models:"]


def _mapping(fields: Mapping[str, object], name: str) -> Mapping[str, object]:
    return cast("Mapping[str, object]", fields[name])


def _lines(value: Mapping[str, object], indent: int) -> list[str]:
    """A mapping as block YAML; what is short and flat stands on one line."""
    lines: list[str] = []
    for name, each in value.items():
        start = f"{' ' * indent}{_scalar(name)}:"
        flat = _flow(each)
        if len(start) + len(flat) < MOST_A_LINE or not isinstance(each, (dict, list)):
            lines.append(f"{start} {flat}")
        elif isinstance(each, dict):
            lines += [start, *_lines(each, indent + INDENT)]
        else:
            lines += [start, *(f"{' ' * (indent + INDENT)}- {_flow(item)}" for item in each)]
    return lines


def _flow(value: object) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(name)}: {_flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    """A value as YAML reads it back: a text in quotes unless it is plainly a word."""
    if not isinstance(value, str):
        written = json.dumps(value)
        return written.replace("e", ".0e") if isinstance(value, float) and "." not in written else written
    is_word = value[:1].isalpha() and value.replace("_", "").replace("-", "").isalnum() and value.isascii()
    is_read_otherwise = value.lower() in ("yes", "no", "on", "off", "true", "false", "null", "y", "n", "inf", "nan")
    return value if is_word and not is_read_otherwise else _quoted(value)


def _quoted(text: str) -> str:
    """In double quotes, whose escapes in JSON are YAML's; what YAML takes for no character or the end of a line is
    escaped one by one, for a pair of JSON's surrogates is no character there.
    """
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))
