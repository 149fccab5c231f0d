"""What somebody may decide about how their rows are prepared; everything left empty is decided by the rows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from leastwise.part import Part

Kind = Literal["", "classification", "extraction", "free_text"]
Rare = Literal["refuse", "drop", "other"]


class Wanted(Part):
    """How rows are to be prepared."""

    seed: int = Field(0, ge=0, description="Seed of the hash that orders groups; another one gives another split.")
    kind: Kind = Field("", description="Kind of task; empty: told by the expected answers.")
    bound: float | None = Field(
        None, gt=0.05, lt=1, description="Quality wanted; empty: what a reference without an LLM surely reaches on dev."
    )
    margin: float | None = Field(
        None, ge=0.01, le=0.4, description="Tolerance of quality; empty: the smallest that these rows can decide."
    )
    rare: Rare = Field(
        "refuse",
        description="Labels with too few rows to be in each split: refused; drop puts their rows aside; other makes "
        "them one label.",
    )
    decline_label: str = Field(
        "out_of_scope", min_length=1, max_length=60, description="The answer that declines, where there are such rows."
    )
    out_of_scope_label: str = Field(
        "",
        max_length=100,
        description="The label of rows that are out of scope; empty: oos, out_of_scope and the like.",
    )
    label_in_text: bool = Field(
        False, description="True: texts name their label in production too, so that this is no leak."
    )
    language: str = Field("", pattern="^([a-z]{2})?$", description="Language of the texts (ISO 639-1); empty: told.")
    merge_case: bool = Field(
        True, description="Labels that differ in case only are one, spelled as most rows spell it."
    )
