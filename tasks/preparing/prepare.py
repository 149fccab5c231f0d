"""Preparing a use case: sources read by shape, rows made ready, tables, YAML and page written; what to do next is said.

Nothing leaves the machine but to the tracking server, no model is asked and nothing is paid.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from leastwise.errors import BadInput, problems_of, refuse
from leastwise.ladder.ending import PrepareEnding
from leastwise.record.client import connect
from leastwise.record.prepared.brought import is_in_mlflow, rows_in_mlflow
from leastwise.record.prepared.prepare_run import log_prepared
from leastwise.rows.preparing import writing
from leastwise.rows.preparing.models_at_hand import Models, keyed_providers, models_at_hand
from leastwise.rows.preparing.page import Source, page, summary
from leastwise.rows.preparing.prepared import Prepared, prepare
from leastwise.rows.preparing.settings import Wanted
from leastwise.rows.sources import reading
from leastwise.rows.sources.plain import Columns, Plain
from leastwise.stores import storage
from leastwise.stores.shipped import USE_CASES
from tasks.session.artifacts import publish_markdown
from tasks.session.console import RULE, say
from tasks.session.workspace import dated_models

if TYPE_CHECKING:
    import pandas as pd

NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,60}")


@task(name="prepare")
def prepare_use_case(
    sources: Sequence[str], name: str, columns: Columns, wanted: Wanted, out: str = ""
) -> PrepareEnding:
    """Make a use case of these sources. BadInput, before anything is written, lists all that must be put right."""
    case, folder = (
        (Path(out).expanduser().resolve() if out else USE_CASES / f"{name}.yaml"),
        storage.home() / "data" / name,
    )
    client = connect()
    given: dict[str, pd.DataFrame] = {}
    plains: list[Plain] = []

    def look_up(source: str) -> None:
        given[source] = rows_in_mlflow(client, source)

    def read() -> None:
        plains.extend(
            reading.read([each for each in sources if each in given or not is_in_mlflow(each)], columns, given)
        )

    looked_up = [partial(look_up, source) for source in sources if is_in_mlflow(source)]
    places = [partial(storage.check_writable, each) for each in (folder, case.parent)]
    refuse(problems_of([partial(_check_names, name, out), *places, *looked_up, read]))
    made = prepare(plains, name, wanted, _models_today(), columns.split_by)
    taken = [_source(plain) for plain in plains]
    command = f"python -m flows.prepare {shlex.join(Path(source).name for source in sources)} --name {name}"
    files, text = writing.files_of(made, wanted, columns, taken), writing.yaml_of(made, command, taken)
    refuse(
        problems_of(
            [partial(writing.check_free, folder, files, case, text), partial(writing.check_holds, name, files, text)]
        )
    )
    writing.write(folder, files, case, text)
    lines, shown = summary(made, taken), page(made, taken)
    reason = _reason(made)
    manifest = files[writing.MANIFEST].decode()
    texts = {"prepared.md": shown, "use_case.yaml": text, writing.MANIFEST: manifest}
    run_id = log_prepared(client, name, reason, shown, _figures(made), texts)
    publish_markdown(f"prepare-{name}", shown)
    _show(name, lines, case, out)
    sizes = {table: len(rows) for table, rows in made.divided.tables.items()}
    return PrepareEnding("prepared", reason, str(case), sizes, 0.0, 0, run_id)


def _models_today() -> Models:
    book = dated_models([f"{provider}:" for provider in keyed_providers(os.environ)])
    return models_at_hand(os.environ, book, datetime.now(UTC).date())


def _check_names(name: str, out: str) -> None:
    """BadInput for a name or a file that cannot be one."""

    def named() -> None:
        if not NAME.fullmatch(name):
            raise BadInput(
                f"--name {name!r}: small letters, digits and dashes, 2 to 61 of them; it names the experiment"
            )

    def ends() -> None:
        if out and not out.endswith((".yaml", ".yml")):
            raise BadInput(f"--out {out}: is the file of the use case; end it in .yaml")

    refuse(problems_of([named, ends]))


def _source(plain: Plain) -> Source:
    """What a source was read as."""
    return Source(
        name=plain.settings.get("file", plain.shape),
        sha256=reading.digest_of(plain),
        shape=plain.shape,
        written=plain.settings.get("written", ""),
        chosen=plain.chosen,
        rows=len(plain.rows),
        notes=plain.notes,
    )


def _reason(made: Prepared) -> str:
    counts = {name: len(rows) for name, rows in made.divided.tables.items()}
    said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"{said}; quality {made.bound:g} with a margin of {made.margin:g}"


def _figures(made: Prepared) -> dict[str, float]:
    figures = {f"rows.{name}": float(len(rows)) for name, rows in made.divided.tables.items()}
    figures |= {f"rows.{name}": float(count) for name, count in made.cleaned.counts.items()}
    figures |= {f"share_off.{name}": off for name, off in made.divided.share_off.items()}
    if made.reference:
        figures |= {"reference.quality": made.reference.quality, "reference.lower": made.reference.lower}
    return figures | {"groups.straddling": float(made.divided.straddling)}


def _show(name: str, lines: Sequence[str], case: Path, out: str) -> None:
    say(f"\nLeastwise · {name} prepared · nothing is spent, nothing left this machine")
    for line in lines:
        say(f"  {line}")
    say(RULE)
    say(f"{case}: read what is marked DRAFT, then")
    shown = shlex.quote(str(case)) if out else name
    say(f"  python -m flows.advise {shown}")
    say(f"  python -m flows.customize {shown}")
