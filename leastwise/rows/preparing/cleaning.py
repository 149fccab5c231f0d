"""Rows without what cannot be judged: empty ones, exact duplicates, and those put aside with the reason, all counted.

It repairs no text. Which rows stay depends on their content alone, never on their order.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from leastwise.money.token_counts import ample_tokens, likely_tokens
from leastwise.rows.data_quality import CONTROL
from leastwise.rows.near_duplicates import normalised
from leastwise.rows.sources.plain import AT, GROUP, LABEL, SPLIT, TEXT
from leastwise.stores.tables.table_values import derived_ids
from leastwise.text_forms import one_form, shows_nothing

if TYPE_CHECKING:
    import pandas as pd

SAID, REASON = "said", "reason"  # what a text says but for case and punctuation; why a row was put aside
OUT_OF_SCOPE = frozenset({"oos", "ood", "outofscope", "outofdomain", "outofdistribution", "notinscope"})
MOST_CHARACTERS = 20_000  # as the suites of `expectations/` take a text
ENGLISH, AMPLE = 3, 2.5  # characters a token: at least in English, and where few tokenizers have seen such texts
MOST_ANSWER_TOKENS = 3_000  # of an expected answer; with ROOM of drafting.py not more than models give out at once
_NUMBER, _WHOLE = re.compile(r"-?\d+(\.\d+)?"), re.compile(r"\.0+$")
TRAFFIC = frozenset({"traffic", "requests"})


@dataclass(frozen=True)
class Cleaned:
    """What is left, by what it is for; `aside` has the rows that were put aside with their reason."""

    labelled: pd.DataFrame
    out_of_scope: pd.DataFrame
    unlabelled: pd.DataFrame
    traffic: pd.DataFrame
    aside: pd.DataFrame
    counts: Mapping[str, int]
    merged_labels: Mapping[str, str]
    rare_labels: Mapping[str, str] = field(default_factory=dict)  # what each became; empty: its rows are put aside


def clean(rows: pd.DataFrame, merge_case: bool, most_tokens: int, out_of_scope_label: str = "") -> Cleaned:
    """The rows cleaned. `most_tokens`: those of the longest text that the smallest model takes."""
    counts: Counter[str] = Counter(read=len(rows))
    blank = rows[TEXT].isna() | rows[TEXT].fillna("").map(shows_nothing)
    counts["empty"] = int(blank.sum())
    rows = rows[~blank].reset_index(drop=True)
    traffic = rows[rows[SPLIT].isin(TRAFFIC)]
    rows = rows[~rows[SPLIT].isin(TRAFFIC)].reset_index(drop=True)
    rows[SAID] = [normalised(text) for text in rows[TEXT]]
    reasons = [_unfit(text, most_tokens) for text in rows[TEXT]]
    unfit = [reason is not None for reason in reasons]
    aside = [where(rows, unfit).assign(**{REASON: [reason for reason in reasons if reason]})]
    rows = where(rows, (not each for each in unfit)).reset_index(drop=True)
    rows[LABEL], merged = _spelled(rows[LABEL], merge_case)
    long = rows[LABEL].map(is_long).astype(bool)
    aside.append(rows[long].assign(**{REASON: f"its answer may take more than {MOST_ANSWER_TOKENS:,} tokens"}))
    rows = rows[~long].reset_index(drop=True)
    with_label = rows[LABEL].notna()
    labelled, unlabelled = rows[with_label], rows[~with_label]
    contradicted = _contradicted(labelled)
    aside.append(labelled[contradicted].assign(**{REASON: "the same text has another label elsewhere"}))
    labelled, doubles = _distinct(labelled[~contradicted])
    known = set(labelled[SAID]) | set(aside[2][SAID])
    again = unlabelled[SAID].isin(known)
    unlabelled, more = _distinct(unlabelled[~again])
    counts["duplicates"] = doubles
    counts["contradictory"] = len(aside[2])
    counts["unfit"], counts["long_answers"] = len(aside[0]), len(aside[1])
    counts["unlabelled_duplicates"] = more + int(again.sum())
    is_out = labelled[LABEL].map(partial(is_out_of_scope, named=out_of_scope_label)).astype(bool)
    put_aside = _ordered(_together(aside))
    return Cleaned(
        _ordered(labelled[~is_out]),
        _ordered(labelled[is_out]),
        _ordered(unlabelled),
        where(traffic, (not _unfit(text, most_tokens) for text in traffic[TEXT])).reset_index(drop=True),
        put_aside,
        dict(counts),
        merged,
    )


def where(rows: pd.DataFrame, holds: Iterable[bool]) -> pd.DataFrame:
    """The rows of which this holds; a frame without rows keeps its columns."""
    return rows[np.fromiter(holds, dtype=np.bool_)]


def is_out_of_scope(label: str, named: str = "") -> bool:
    """Whether a label says that a row is not for this system: the one that is named so, else one of the usual."""
    if named:
        return one_form(label).casefold() == one_form(named).casefold()
    return "".join(char for char in label.casefold() if char.isalnum()) in OUT_OF_SCOPE


def _unfit(text: str, most_tokens: int) -> str | None:
    """Why no model can be asked this."""
    if "\0" in text:
        return "holds what is no text"
    if CONTROL.search(text):
        return "holds control characters"
    if len(text) > min(MOST_CHARACTERS, ENGLISH * most_tokens) or ample_tokens(text, AMPLE) > most_tokens:
        return f"may take more than the {most_tokens:,} tokens that the smallest model has for it"
    return None


def is_long(label: object) -> bool:
    """Whether an answer takes more than any model is given for it."""
    return isinstance(label, str) and likely_tokens(label) > MOST_ANSWER_TOKENS


def _spelled(labels: pd.Series, merge_case: bool) -> tuple[pd.Series, dict[str, str]]:
    """Labels in one form each: without blanks around them, of one Unicode form, and one case where that is wanted;
    whole numbers without `.0` where all are numbers. Records and lists stay as they are.
    """
    counts = Counter(label for label in labels if isinstance(label, str))
    are_numbers = all(_NUMBER.fullmatch(label.strip()) for label in counts)
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        if label[:1] not in ("{", "["):
            form = one_form(label)
            form = _WHOLE.sub("", form) if are_numbers else form
            spellings[form.casefold() if merge_case else form].append(label)
    chosen: dict[str, str] = {}
    for several in spellings.values():
        forms: Counter[str] = Counter()
        for label in several:
            forms[one_form(label)] += counts[label]
        best = min(forms, key=lambda form: (-forms[form], form))
        chosen |= dict.fromkeys(several, best)
    merged = {label: best for label, best in sorted(chosen.items()) if one_form(label) != best}
    return labels.map(lambda label: chosen.get(label, label) if isinstance(label, str) else None), merged


def _contradicted(labelled: pd.DataFrame) -> pd.Series:
    """Rows whose text has another label elsewhere."""
    return labelled.groupby(SAID)[LABEL].transform("nunique").gt(1) if len(labelled) else labelled[LABEL].isna()


def _distinct(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Each text once, whichever spelling comes first in the order of texts; and how many that leaves out."""
    ordered = rows.sort_values([SAID, TEXT, GROUP, AT], kind="stable", na_position="last")
    kept = ordered.drop_duplicates(SAID)
    return kept, len(rows) - len(kept)


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with ids of their content, in the order of these."""
    rows = rows.sort_values([TEXT, LABEL, AT], kind="stable").reset_index(drop=True)
    rows.insert(0, "id", derived_ids(rows[TEXT]))
    return rows.sort_values("id", kind="stable").reset_index(drop=True)


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    present = [part for part in parts if len(part)]
    return pd.concat(present, ignore_index=True) if present else parts[0]
