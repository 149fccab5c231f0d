"""Where the rows of a use case are, and what of them is made. It reads none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leastwise.part import Part, written_but_for

Shift = Literal["typos", "upper", "lower", "shorter", "longer"]
GRADED = frozenset({"answer", "grade"})  # the columns of data.graded beside those of every table


class Data(Part):
    """Where the rows are. Every value is a path relative to the use case file, a local path, or an s3:// URI."""

    train: str | None = Field(None, description="Labelled examples for retrieval and training.")
    dev: str | None = Field(None, description="Labelled rows on which prompts, thresholds and checkpoints are tuned.")
    gate: str = Field(description="Labelled rows the gates are judged on; never tuned on.")
    test: str | None = Field(None, description="Untouched labelled rows; the winner's reported figure comes from here.")
    documents: str | None = Field(None, description="Documents to retrieve and to continue pre-training on.")
    unlabelled: str | None = Field(None, description="Text a teacher may label for distillation.")
    out_of_scope: str | None = Field(None, description="Inputs that must be declined, which ood_decline is judged on.")
    out_of_scope_dev: str | None = Field(
        None,
        description="Other inputs to decline, on which a guard's threshold is chosen; best of other kinds than "
        "out_of_scope.",
    )
    held_out_labels: tuple[str, ...] = Field(
        (),
        description="Labels to be treated as out of scope: their rows leave train, dev, gate and test; those of gate "
        "and test are declined or not, those of dev choose thresholds.",
    )
    unrelated: str | None = Field(
        None,
        description="Text nobody would ask this system: out of scope too, one half to judge, one to choose thresholds.",
    )
    shifted: str | None = Field(None, description="Labelled rows from changed conditions; needed by shift_quality.")
    made_shifts: tuple[Shift, ...] = Field(
        (), description="Shifts made of the gate rows, each row under one of them, in place of or beside `shifted`."
    )
    kind_column: str = Field(
        "kind", description="Column of out-of-scope and shifted rows that names their kind, if there is one."
    )
    general: str | None = Field(
        None,
        description="General text (columns id, text) a trained model should not forget: a fifth, drawn by hash, is "
        "held to measure it; the rest is replayed in continued pre-training.",
    )
    general_tasks: str | None = Field(
        None,
        description="Own general tasks in place of those made from data.general: columns id, text, choices (a JSON "
        "list) and label (the right choice).",
    )
    paraphrases: str | None = Field(
        None, description="Gate rows in other words (columns id of the gate row, text): is the answer the same?"
    )
    graded: str | None = Field(
        None,
        description="Answers that people have graded 0..1 (columns id, text, answer, grade and, "
        "where there is one, the expected answer); a judge gates only with 100 or more.",
    )
    traffic: str | None = Field(
        None,
        description="Sample of real requests with their repetition; judges cache. Expected answers are not needed; an "
        "endpoint's log will do.",
    )
    time_column: str | None = Field(
        None,
        description="Column of data.traffic with the time of a request (date or unix seconds); an endpoint's log has "
        "its own. Without it requests are taken as evenly spread over the month.",
    )
    id_column: str = Field("id", description="Column with a unique id.")
    text_column: str = Field("text", description="Column with the input text.")
    label_column: str = Field("label", description="Column with the expected answer.")
    gold_column: str | None = Field(
        None,
        description="Column with the ids of the documents that answer a row (one, a list, or its "
        "JSON; any one of them is enough): retrieval is then measured on its own.",
    )
    language: str | None = Field(
        None,
        pattern="^[a-z]{2}$",
        description="Language texts should be in (ISO 639-1, such as en); others are reported. Empty: not looked at.",
    )
    mask: tuple[
        Literal["email", "phone", "card", "iban", "us_ssn", "private_key", "aws_key", "token", "jwt", "password"], ...
    ] = Field(
        (), description="Kinds of personal data and secrets that are masked in every text before it goes anywhere."
    )
    date_column: str | None = Field(None, description="Column with the date of a row; its coverage is reported.")
    split_by: str | None = Field(None, description="Column whose groups must not be in two splits.")
    unit_by: str | None = Field(
        None,
        description="Column whose rows are one unit (a conversation, a customer) and count once in the gate. Left out: "
        "split_by, where that is set. null beside split_by: each row counts, and rows_are_units_because says why.",
    )
    rows_are_units_because: str | None = Field(
        None,
        min_length=20,
        max_length=1000,
        description="Why rows of one split_by group are as good as independent examples, in words and best with a "
        "figure; only with unit_by: null.",
    )
    population: Literal["future_traffic", "this_set"] = Field(
        "future_traffic", description="this_set: the gate set itself is what must pass; margins may then be 0."
    )

    @model_validator(mode="before")
    @classmethod
    def _groups_are_units_unless_told(cls, given: object) -> object:
        """Rows that share a source are not independent: they count once, unless `unit_by` is given, even as null.

        A climb that was logged before this rule holds `unit_by: null` and is read as it was asked.
        """
        if isinstance(given, Mapping) and given.get("split_by") and "unit_by" not in given:
            return {**given, "unit_by": given["split_by"]}
        return given

    @model_serializer(mode="wrap")
    def _no_reason_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A reason changes no answer: what was asked without one is the same question."""
        return written_but_for(write(self), rows_are_units_because=None)

    def columns_of(self, table: str) -> dict[str, str]:
        """Where a table has id, text and label. `graded` has columns of its own: one of these names is never another's
        there, so that a label called `answer` is not taken for the answer that was graded.
        """
        named = {"id": self.id_column, "text": self.text_column, "label": self.label_column}
        return {name: name if table == "graded" and at in GRADED else at for name, at in named.items()}

    @property
    def counts_groups(self) -> bool:
        """Whether a unit is a group of `split_by`: tables that lack its column count by rows."""
        return self.unit_by is not None and self.unit_by == self.split_by

    @property
    def has_out_of_scope(self) -> bool:
        """Whether there are inputs to decline, of a table or made."""
        return bool(self.out_of_scope or self.held_out_labels or self.unrelated)

    @property
    def has_shifted(self) -> bool:
        """Whether there are shifted rows, of a table or made."""
        return bool(self.shifted or self.made_shifts)
