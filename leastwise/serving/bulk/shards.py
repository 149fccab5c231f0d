"""A table cut into shards, each kept as it will be asked, so that every run and every machine has the same ones.

`TARGET/.plan.json` is written last: without it nothing is asked. `TARGET/.asked/` holds the shards (id, text as it is
asked, expected answer where there is one), TARGET itself the answered ones and nothing else, so that it is one table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.redaction import without_secrets
from leastwise.rows import expected_answers, row_checks, tables
from leastwise.stores import storage
from leastwise.stores.tables import table_files
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

PLAN, ASKED = ".plan.json", ".asked"


class Shard(Part):
    """Rows that are answered together. `number` counts from 0."""

    number: int = Field(ge=0)
    rows: int = Field(ge=1)

    @property
    def name(self) -> str:
        """The name of its file, asked and answered."""
        return f"part-{self.number:06d}.parquet"


class Plan(Part):
    """What one target holds the answers of: a version, asked a table, cut in shards of so many rows."""

    target: str
    version: str = Field(description="The version of the registered model, as the registry numbers it.")
    model_key: str = Field(description="What tells that version from one of the same number elsewhere.")
    source_sha256: str
    shard_rows: int = Field(ge=1)
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        """Rows of the whole table."""
        return sum(shard.rows for shard in self.shards)

    def asked(self, shard: Shard) -> str:
        """Where the rows of a shard are."""
        return f"{self.target}/{ASKED}/{shard.name}"

    def answered(self, shard: Shard) -> str:
        """Where its answers will be."""
        return f"{self.target}/{shard.name}"

    def missing(self) -> list[Shard]:
        """The shards that are not answered yet."""
        names = {uri.rsplit("/", 1)[-1] for uri in _visible(self.target)}
        return [shard for shard in self.shards if shard.name not in names]


def plan_of(use_case: UseCase, source: str, target: str, version: str, model_key: str, shard_rows: int) -> Plan:
    """The plan of a target: the one it has, or one made by cutting the source now.

    BadInput where the target holds something else (another version's answers, another table's, files of somebody), and
    for a row without a text or with an expected answer that the task does not allow, before anything is asked.
    """
    target = target.rstrip("/")
    parts = table_files.parts_of(source)
    wanted = {
        "version": version,
        "model_key": model_key,
        "source_sha256": table_files.sha256(source, parts),
        "shard_rows": shard_rows,
    }
    known = _known(target)
    if known is None:
        _check_empty(target)
        shards = tuple(_cut(use_case, source, parts, target, shard_rows))
        known = Plan.model_validate({"target": target, "shards": shards, **wanted})
        storage.write_bytes(f"{target}/{PLAN}", known.model_dump_json().encode())
        return known
    differing = [name for name, value in wanted.items() if getattr(known, name) != value]
    if differing:
        was = ", ".join(f"{name} {str(getattr(known, name))[:12]}" for name in differing)
        now = ", ".join(str(wanted[name])[:12] for name in differing)
        raise BadInput(
            f"target ({without_secrets(target)}): holds the answers of another run ({was}; now {now}); name an empty "
            "folder, or run it with what it was begun with"
        )
    return known.model_copy(update={"target": target})  # a folder may have been moved


def _known(target: str) -> Plan | None:
    uri = f"{target}/{PLAN}"
    if not storage.exists(uri):
        return None
    try:
        return Plan.model_validate_json(storage.read_bytes(uri))
    except ValidationError:
        raise BadInput(f"{without_secrets(uri)}: is no plan of a bulk run; name an empty folder") from None


def _visible(target: str) -> list[str]:
    return storage.files_below(target) if storage.exists(target) else []


def _check_empty(target: str) -> None:
    there = _visible(target)
    if there:
        raise BadInput(
            f"target ({without_secrets(target)}): holds {len(there)} files that are of no bulk run "
            f"({without_secrets(there[0])}); name an empty folder"
        )


def _cut(use_case: UseCase, source: str, parts: list[str], target: str, shard_rows: int) -> Iterator[Shard]:
    """Write each shard as it will be asked; two machines that do so at once write the same bytes."""
    import pandas as pd

    number, waiting, held = 0, list[pd.DataFrame](), 0
    for block in _blocks(use_case, source, parts):
        at = 0
        while at < len(block):
            piece = block.iloc[at : at + shard_rows - held]
            waiting.append(piece)
            at, held = at + len(piece), held + len(piece)
            if held == shard_rows:
                yield _written(number, waiting, target)
                number, waiting, held = number + 1, [], 0
    if held:
        yield _written(number, waiting, target)


def _written(number: int, pieces: list[pd.DataFrame], target: str) -> Shard:
    import pandas as pd

    rows = pd.concat(pieces, ignore_index=True).astype("string")  # one type in every shard, whatever is missing in it
    shard = Shard(number=number, rows=len(rows))
    table_files.write_table(rows, f"{target}/{ASKED}/{shard.name}")
    return shard


def _blocks(use_case: UseCase, source: str, parts: list[str]) -> Iterator[pd.DataFrame]:
    """Rows as they are asked: id (the row's number where the table has none), text, and label where one is expected."""
    named = f"source ({without_secrets(source)})"
    for rows in tables.window(source, use_case.data, named, parts):
        numbers = _column([f"row {at + 1}" for at in rows.index], rows)
        ids = rows["id"].where(rows["id"].notna(), numbers) if "id" in rows else numbers
        yield rows[["text"]].assign(id=ids, label=_expected(use_case, rows, named))[["id", "text", "label"]]


def _expected(use_case: UseCase, rows: pd.DataFrame, source: str) -> pd.Series:
    """The expected answers, None where none is given or a person would have to grade."""
    nothing = _column([None] * len(rows), rows)
    if "label" not in rows or use_case.is_graded:
        return nothing
    given = rows[~row_checks.without_label(rows)]
    if not len(given):
        return nothing
    task, data = use_case.task, use_case.data
    labels = given["label"]
    if task.answers:
        labels = _column(expected_answers.label_texts(task.answers, labels, source), given)
        row_checks.check_rows(given.assign(label=labels), source, labels=task.answers, id=None)
    texts = expected_answers.expected_texts(task, labels, source, data.mask)
    return _column(texts, given).reindex(rows.index).where(~row_checks.without_label(rows), None)


def _column(values: list[str] | list[None] | list[str | None], rows: pd.DataFrame) -> pd.Series:
    """Values of these rows, as text or missing."""
    import pandas as pd

    return pd.Series(values, index=rows.index, dtype=object)
