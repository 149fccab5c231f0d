"""The page that says what was made of somebody's rows, for MLflow and Prefect: what was taken for what, and what went.

It shows counts and shares, and of the rows only near duplicates that a person must look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leastwise.rows.findings.describing import MOST_LISTED
from leastwise.rows.preparing.prepared import Prepared
from leastwise.rows.preparing.rare import said_of
from leastwise.rows.sources.plain import LABEL

SAID = {
    "read": "rows read",
    "empty": "without a text, left out",
    "duplicates": "exact duplicates (but for case and punctuation), left out",
    "contradictory": "put aside: the same text under two labels",
    "rare_drop": "put aside: their labels have too few rows",
    "rare_other": "given one label, for theirs have too few rows",
    "long_answers": "put aside: their expected answers are too long",
    "unfit": "put aside: no model can be asked them",
    "unlabelled_duplicates": "unlabelled rows whose text is there already, left out",
    "out_of_scope_near": "out of scope and nearly a row in scope, put aside",
    "unlabelled_near": "unlabelled and nearly a judged row, left out",
}


@dataclass(frozen=True)
class Source:
    """A source as it was read."""

    name: str
    sha256: str
    shape: str
    written: str
    chosen: Mapping[str, str]
    rows: int
    notes: tuple[str, ...]


def summary(made: Prepared, sources: Sequence[Source]) -> list[str]:
    """What was done, a line each."""
    lines = []
    for each in sources:
        columns = ", ".join(f"{what} ← {field}" for what, field in each.chosen.items())
        shape = f"{each.shape} ({each.written})" if each.written else each.shape
        lines.append(f"{each.name}: {shape}, {each.rows:,} rows; {columns}")
        lines += [f"{each.name}: {note}" for note in each.notes]
    counts = {**made.cleaned.counts, **made.divided.counts}
    lines += [f"{counts[name]:,} {said}" for name, said in SAID.items() if counts.get(name)]
    if out := len(made.cleaned.out_of_scope):
        lines.append(f"{out:,} rows are out of scope")
    if lists := sum(label.startswith("[") for label in made.cleaned.labelled[LABEL]):
        lines.append(f"{lists:,} expected answers are lists: any one of a list is right")
    lines += [f"label {label!r} is read as {best!r}" for label, best in made.cleaned.merged_labels.items()]
    lines += said_of(made.cleaned.rare_labels)
    task = made.draft.task
    lines.append(f"task: {task.kind}" + (f", {len(task.labels)} labels" if task.labels else ""))
    lines += made.description.lines
    several = made.grouped.groups.sizes
    lines.append(
        f"{sum(several.values()):,} rows are in {len(several):,} groups of several; {made.divided.straddling} lie in "
        "two splits"
    )
    lines += [f"label {label!r} is in none of {', '.join(names)}" for label, names in made.divided.missing.items()]
    if made.reference:
        lines.append(
            f"without any model: words in a linear classifier reach {made.reference.quality:.3f} on dev "
            f"({made.reference.rows:,} rows), surely {made.reference.lower:.3f}"
        )
    lines += made.draft.models.notes
    lines.append(
        f"gate: quality {made.bound:g} with a margin of {made.margin:g}; at {made.sizes.margin:g} at the hardest bound "
        f"{made.sizes.needed:,} examples decide"
    )
    return lines


def page(made: Prepared, sources: Sequence[Source]) -> str:
    """The same in Markdown, with the tables and their class shares."""
    off = made.divided.share_off
    rows = [
        f"| {name} | {len(table):,} | {f'{off[name]:.4f}' if name in off else ''} |"
        for name, table in made.divided.tables.items()
    ]
    disputed = [
        f"| {_cell(one)} | {_cell(label)} | {_cell(other)} | {_cell(others)} | {alike:.2f} |"
        for one, label, other, others, alike in made.description.disputed[:MOST_LISTED]
    ]
    lines = [f"## {made.draft.name}, prepared", "", *(f"- {_cell(line)}" for line in summary(made, sources)), ""]
    lines += ["| table | rows | class shares off by |", "|---|---|---|", *rows]
    if disputed:
        head = ["| text | label | nearly the same | its label | alike |", "|---|---|---|---|---|"]
        lines += ["", "### Near duplicates under different labels", "", *head, *disputed]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:300]
