"""Labels of which there are too few rows for every split: their rows put aside or given one, where that is asked.

Unasked they are refused (see `kinds.check_classes`). Nothing is dropped without being counted and kept aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from leastwise.rows.preparing import kinds
from leastwise.rows.preparing.cleaning import REASON, Cleaned
from leastwise.rows.preparing.dividing import Grouped
from leastwise.rows.preparing.settings import Rare
from leastwise.rows.preparing.splitting import SPLITS
from leastwise.rows.sources.plain import LABEL

if TYPE_CHECKING:
    import pandas as pd

OTHER = "other"


def settled(grouped: Grouped, rare: Rare) -> Cleaned:
    """The rows without rare labels, as asked for; those of `grouped` where nothing is asked or none is rare."""
    cleaned = grouped.cleaned
    few = kinds.rare_labels(list(cleaned.labelled[LABEL]), grouped.part("labelled"), len(SPLITS))
    if rare == "refuse" or not few:
        return cleaned
    is_rare = cleaned.labelled[LABEL].isin(list(few))
    counts = {**cleaned.counts, f"rare_{rare}": int(is_rare.sum())}
    if rare == "drop":
        aside = _together(cleaned.aside, cleaned.labelled[is_rare].assign(**{REASON: "its label has too few rows"}))
        left = cleaned.labelled[~is_rare].reset_index(drop=True)
        return replace(cleaned, labelled=left, aside=aside, counts=counts, rare_labels=dict.fromkeys(few, ""))
    other = _other(cleaned.labelled[~is_rare][LABEL])
    labelled = cleaned.labelled.assign(**{LABEL: cleaned.labelled[LABEL].where(~is_rare, other)})
    return replace(cleaned, labelled=labelled, counts=counts, rare_labels=dict.fromkeys(few, other))


def said_of(rare_labels: Mapping[str, str]) -> list[str]:
    """What was done with rare labels, a line each."""
    return [
        f"label {label!r} is read as {other!r}, for it has too few rows"
        if other
        else f"label {label!r} has too few rows: put aside"
        for label, other in rare_labels.items()
    ]


def _other(labels: pd.Series) -> str:
    """As the rows spell it, where they have such a label."""
    return next((label for label in sorted(set(labels)) if label.casefold() == OTHER), OTHER)


def _together(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([one, other], ignore_index=True) if len(one) else other.reset_index(drop=True)
