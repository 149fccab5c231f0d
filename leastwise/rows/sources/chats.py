"""Chats for fine-tuning, a line each: `{"messages": [{"role": "system" | "user" | "assistant", "content": …}, …]}`.

The last answer is what is expected, what the user said before it the input. A system message that every chat has is the
instruction; one that differs stands before the input, so that nothing is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from leastwise.errors import BadInput
from leastwise.rows.sources.plain import ROLES, Columns, Plain, as_value, message_text, plain_rows
from leastwise.stores.tables.table_values import named_rows

if TYPE_CHECKING:
    import pandas as pd

FIELDS = ("messages", "conversations")


class _Chat(NamedTuple):
    system: str
    asked: str | None
    answer: str | None
    turns: int


def from_chats(table: pd.DataFrame, columns: Columns, source: str) -> Plain:
    """The rows of a table of chats; BadInput names those that are none."""
    field = next(name for name in FIELDS if name in table)
    held = [as_value(value) for value in table[field]]
    if wrong := [at for at, value in enumerate(held, 1) if not _is_chat(value)]:
        raise BadInput(f"{source}: {named_rows(wrong)}: {field!r} is no list of messages with role and content")
    chats = [_read(value) for value in held if isinstance(value, list)]
    systems = Counter(chat.system for chat in chats)
    shared = next(iter(systems)) if len(systems) == 1 else ""
    texts = [
        f"{chat.system}\n\n{chat.asked}" if chat.system and not shared and chat.asked else chat.asked for chat in chats
    ]
    at = [f"{source}: row {row}" for row in range(1, len(table) + 1)]
    groups = list(table[columns.split_by]) if columns.split_by in table else None
    rows = plain_rows(texts, [as_value(chat.answer) for chat in chats], at, groups=groups)
    notes = []
    if many := sum(chat.turns > 1 for chat in chats):
        notes.append(f"{many:,} chats have several turns: their input is all that was said before the last answer")
    if len(systems) > 1:
        notes.append(f"{len(systems):,} system messages differ: each stands before its input")
    chosen = {"text": f"{field}[user]", "label": f"{field}[last assistant]"}
    return Plain("chats", rows, chosen, tuple(notes), shared)


def _is_chat(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _read(messages: Sequence[Mapping[str, object]]) -> _Chat:
    said = [
        (
            ROLES.get(str(each.get("role", each.get("from"))), "user"),
            message_text(each.get("content", each.get("value"))),
        )
        for each in messages
    ]
    answer = said[-1][1] if said[-1][0] == "answer" else None
    before = [each for each in (said[:-1] if answer is not None else said) if each[0] != "system"]
    turns = sum(role == "user" for role, _ in before)
    asked = before[-1][1] if turns == 1 and len(before) == 1 else "\n".join(f"{role}: {text}" for role, text in before)
    return _Chat("\n".join(text or "" for role, text in said if role == "system"), asked or None, answer, turns)
