"""What looks like personal data or a secret in a text, by its form; and the text with that masked.

Forms only: names and addresses of people are not found. What has a check digit is checked, so that long numbers do not
alarm.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PERSONAL: dict[str, re.Pattern[str]] = {
    "email": re.compile(r"\b[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+\b"),
    "phone": re.compile(r"(?<![\w.])\+\d{1,3}[ -]?(?:\(\d{1,4}\)[ -]?)?\d{2,4}(?:[ -]?\d{2,4}){2,4}\b"),
    "card": re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-])"),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "us_ssn": re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])"),
}
SECRET: dict[str, re.Pattern[str]] = {
    "private_key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "aws_key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "token": re.compile(
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|sk-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|glpat-[\w-]{20,})"
    ),
    "jwt": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    "password": re.compile(r"(?i)\b(?:password|passwd|api[_-]?key|secret)\s*[:=]\s*['\"]?[^\s'\"]{6,}"),
}


def kinds_in(text: str, kinds: dict[str, re.Pattern[str]]) -> str | None:
    """The kinds that occur, comma-separated; None for none."""
    named = [kind for kind, form in kinds.items() if any(_is_real(kind, match[0]) for match in form.finditer(text))]
    return ", ".join(named) or None


def masked(text: str, kinds: tuple[str, ...]) -> str:
    """The text with every occurrence of these kinds replaced by the kind's name in brackets."""
    for kind in kinds:
        text = (PERSONAL | SECRET)[kind].sub(partial(_mask, kind), text)
    return text


def masked_values(value: object, kinds: tuple[str, ...]) -> object:
    """A value of JSON, or its text, with every text in it masked; the names of its fields stay."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") and "\\" in value:
        return _masked_json(value, kinds)
    if isinstance(value, dict):
        return {name: masked_values(each, kinds) for name, each in value.items()}
    if isinstance(value, list):
        return [masked_values(each, kinds) for each in value]
    return masked(value, kinds) if isinstance(value, str) else value


def mask_columns(frame: pd.DataFrame, kinds: tuple[str, ...], *also: str) -> pd.DataFrame:
    """The rows with these kinds masked in every text: the input, a graded answer, and what else is named (as JSON)."""
    import pandas as pd

    for column in ({"text", "answer", *also} & set(frame.columns)) if kinds else ():
        mask = masked_values if column in also else _masked_text
        values = [mask(value, kinds) for value in frame[column]]
        frame[column] = pd.Series(values, index=frame.index, dtype=frame[column].dtype)
    return frame


def _masked_text(value: object, kinds: tuple[str, ...]) -> object:
    return masked(value, kinds) if isinstance(value, str) else value


def _masked_json(text: str, kinds: tuple[str, ...]) -> str:
    """JSON whose escapes must not be taken for letters of an address; any other text is masked as it is."""
    try:
        return json.dumps(masked_values(json.loads(text), kinds), ensure_ascii=False)
    except (ValueError, RecursionError):
        return masked(text, kinds)


def _mask(kind: str, match: re.Match[str]) -> str:
    return f"[{kind}]" if _is_real(kind, match[0]) else match[0]


def _is_real(kind: str, text: str) -> bool:
    if kind == "card":
        return _luhn([int(digit) for digit in text if digit.isdigit()])
    return _iban(text.replace(" ", "")) if kind == "iban" else True


def _luhn(digits: list[int]) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1)."""
    doubled = [2 * digit - 9 if digit > 4 else 2 * digit for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(number: str) -> bool:
    """The check digits of bank accounts (ISO 13616): the rearranged number is 1 modulo 97."""
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1
