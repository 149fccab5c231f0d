"""From plain rows to everything a use case needs, in memory: the order of the steps, each in its own file.

It writes nothing (see `writing.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from leastwise.errors import BadInput, problems_of, refuse
from leastwise.ladder.alphas import first_alphas
from leastwise.rows.findings import describing
from leastwise.rows.findings.word_reference import WordReference, word_reference
from leastwise.rows.preparing import dividing, drafting, kinds, rare, sizing
from leastwise.rows.preparing.cleaning import Cleaned, clean, is_long
from leastwise.rows.preparing.dividing import Divided, Grouped
from leastwise.rows.preparing.drafting import Draft
from leastwise.rows.preparing.models_at_hand import Models
from leastwise.rows.preparing.settings import Wanted
from leastwise.rows.preparing.sizing import Sizes
from leastwise.rows.preparing.splitting import SPLITS
from leastwise.rows.sources.plain import LABEL, TEXT, TIME, Plain

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"  # the one stratum of rows whose answers are no labels
GROUP_COLUMN = "group"  # in place of a column of `split_by` whose name a table has already


@dataclass(frozen=True)
class Prepared:
    """What was made of somebody's rows."""

    draft: Draft
    cleaned: Cleaned
    grouped: Grouped
    divided: Divided
    sizes: Sizes
    description: describing.Description
    reference: WordReference | None
    bound: float
    margin: float
    adherence_margin: float
    is_drafted_instruction: bool

    @property
    def fields(self) -> dict[str, object]:
        """The use case's fields."""
        return self.draft.fields(self.bound, self.margin, self.adherence_margin)


def prepare(plains: Sequence[Plain], name: str, wanted: Wanted, models: Models, split_by: str = "") -> Prepared:
    """Rows of all sources prepared; BadInput with everything that must be put right, before anything is written."""
    import pandas as pd

    rows = pd.concat([plain.rows for plain in plains], ignore_index=True)
    labels = [label for label in rows[LABEL] if label is not None]
    labels = [label for label in labels if not is_long(label)] or labels
    if not labels:
        raise BadInput(
            f"{', '.join(plain.settings.get('file', plain.shape) for plain in plains)}: no row has an expected answer; "
            "name its field by --label-column"
        )
    cap = drafting.output_tokens(labels)
    room = drafting.most_tokens(models, labels, cap)
    cleaned = clean(rows, wanted.merge_case, room, wanted.out_of_scope_label)
    answers = list(cleaned.labelled[LABEL])
    if not answers:
        raise BadInput("no labelled row is left after cleaning; look at its reasons, or name other columns")
    task = kinds.task_of(answers, wanted.kind)
    grouped = dividing.grouped(cleaned)
    if task.kind == "classification" and (left := rare.settled(grouped, wanted.rare)) is not cleaned:
        cleaned, grouped = left, dividing.grouped(left)
        answers = list(cleaned.labelled[LABEL])
        if not answers:
            raise BadInput("rare=drop (--changes) leaves no row: every label has too few; add rows")
        task = kinds.task_of(answers, "classification")
    strata = answers if task.kind == "classification" else [ALL] * len(answers)
    draft = _draft(plains, name, wanted, models, task, cleaned, (cap, room), split_by)
    alphas = first_alphas(draft.use_case(0.8, 0.1, 0.1))
    both = (alphas.to_pass, alphas.to_fail)
    sized: list[Sizes] = []

    def size() -> None:
        classes = len(set(strata))
        sized.append(sizing.sizes_for(len(answers), grouped.units, classes, wanted.bound, wanted.margin, *both))

    checks = [
        partial(kinds.check_leak, task, list(cleaned.labelled[TEXT]), answers, _text_field(plains)),
        partial(_check_decline, task, draft.decline_label),
    ]
    if task.kind == "classification":
        checks.append(partial(kinds.check_classes, strata, grouped.part("labelled"), len(SPLITS)))
    refuse(problems_of([*(checks[1:] if wanted.label_in_text else checks), size]))
    divided = dividing.divided(grouped, strata, sized[0], wanted.seed, draft.split_by)
    reference = _reference(task.kind, divided.tables)
    return _decided(draft, cleaned, grouped, divided, sized[0], wanted, reference, both, plains)


def _decided(
    draft: Draft,
    cleaned: Cleaned,
    grouped: Grouped,
    divided: Divided,
    sizes: Sizes,
    wanted: Wanted,
    reference: WordReference | None,
    alphas: tuple[float, float],
    plains: Sequence[Plain],
) -> Prepared:
    """With the bounds that rows and reference suggest."""
    gate = divided.tables["gate"]
    examples = (
        len(gate) if not draft.split_by else int(gate[draft.split_by].nunique() + gate[draft.split_by].isna().sum())
    )
    margins = drafting.margins_of(wanted.margin or None)
    lower = reference.lower if reference else None
    bound = wanted.bound or drafting.bound_for(draft.task.kind, lower, sizes.margin)
    margin = wanted.margin or min(sizes.margin, drafting.smallest_margin(bound, margins, examples, alphas))
    description = describing.described(
        list(cleaned.labelled[TEXT]), list(cleaned.labelled[LABEL]), grouped.labelled_pairs, wanted.language
    )
    found = {"tables": tuple(divided.tables), "confirm_rows": len(divided.tables["test"])}
    final = Draft(**{**vars(draft), **found, "language": description.language})
    return Prepared(
        draft=final,
        cleaned=cleaned,
        grouped=grouped,
        divided=divided,
        sizes=sizes,
        description=description,
        reference=reference,
        bound=bound,
        margin=margin,
        adherence_margin=drafting.smallest_margin(drafting.ADHERENCE, drafting.ADHERENCE_MARGINS, examples, alphas),
        is_drafted_instruction=not any(plain.instruction for plain in plains),
    )


def _draft(
    plains: Sequence[Plain],
    name: str,
    wanted: Wanted,
    models: Models,
    task: kinds.Task,
    cleaned: Cleaned,
    tokens: tuple[int, int],
    split_by: str,
) -> Draft:
    instruction = next((plain.instruction for plain in plains if plain.instruction), "")
    decline = wanted.decline_label if len(cleaned.out_of_scope) and task.kind == "classification" else None
    traffic = cleaned.traffic
    return Draft(
        name=name,
        task=task,
        models=models,
        tables=("train", "dev", "gate", "test"),
        instruction=instruction[: drafting.MOST_INSTRUCTION] or drafting.INSTRUCTIONS[task.kind or "free_text"],
        decline_label=decline,
        language=wanted.language,
        split_by=(GROUP_COLUMN if split_by in ("id", TEXT, LABEL) else split_by),
        time_column=TIME if len(traffic) and bool(traffic[TIME].notna().all()) else "",
        output_tokens=tokens[0],
        confirm_rows=1,
        fixed_examples=drafting.fixed_examples(list(cleaned.labelled[TEXT]), list(cleaned.labelled[LABEL]), tokens[1]),
        max_words=max(20, 2 * max(len(label.split()) for label in cleaned.labelled[LABEL])),
    )


def _check_decline(task: kinds.Task, decline: str | None) -> None:
    if decline in task.labels:
        raise BadInput(
            f"decline_label: {decline!r} is a label of the rows; name another by --changes decline_label=none"
        )


def _text_field(plains: Sequence[Plain]) -> str:
    return ", ".join(dict.fromkeys(f"{plain.shape}, field {plain.chosen['text']!r}" for plain in plains))


def _reference(kind: str, tables: Mapping[str, pd.DataFrame]) -> WordReference | None:
    """Where answers are labels, what words alone reach on dev."""
    if kind != "classification":
        return None
    train, dev = tables["train"], tables["dev"]
    return word_reference((list(train[TEXT]), list(train[LABEL])), (list(dev[TEXT]), list(dev[LABEL])))
