"""What was prepared as files: a Parquet a table, the rows put aside, a manifest, the use case's YAML; and a page.

The same rows and settings give the same bytes. What would change something that is there already is refused first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.rows.preparing.case_text import Remarks, case_text
from leastwise.rows.preparing.page import Source
from leastwise.rows.preparing.prepared import Prepared
from leastwise.rows.preparing.settings import Wanted
from leastwise.rows.sources.plain import AT, LABEL, TEXT, Columns
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.stores.storage import write_bytes

if TYPE_CHECKING:
    import pandas as pd

MANIFEST, ASIDE, DISPUTED = "manifest.json", "aside.parquet", "disputed.parquet"


def files_of(made: Prepared, wanted: Wanted, columns: Columns, sources: Sequence[Source]) -> dict[str, bytes]:
    """The files of the data's folder by name, manifest included."""
    tables = {f"{name}.parquet": table for name, table in made.divided.tables.items()}
    if len(made.divided.aside):
        tables[ASIDE] = made.divided.aside[["id", TEXT, LABEL, "reason", AT]]
    if made.description.disputed:
        tables[DISPUTED] = _disputed(made)
    files = {name: _parquet(table) for name, table in tables.items()}
    manifest = {
        "name": made.draft.name,
        "wanted": wanted.model_dump(),
        "columns": columns.model_dump(),
        "sources": [{"sha256": each.sha256, "shape": each.shape, "chosen": dict(each.chosen)} for each in sources],
        "counts": {**made.cleaned.counts, **made.divided.counts},
        "merged_labels": dict(made.cleaned.merged_labels),
        "rare_labels": dict(made.cleaned.rare_labels),
        "groups_of_several_rows": len(made.grouped.groups.sizes),
        "groups_in_two_splits": made.divided.straddling,
        "class_shares_off": {name: round(off, 6) for name, off in made.divided.share_off.items()},
        "tables": {
            name: {"rows": len(tables[name]), "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in files.items()
        },
    }
    return files | {MANIFEST: (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()}


def _disputed(made: Prepared) -> pd.DataFrame:
    import pandas as pd

    names = ["text", "label", "other_text", "other_label", "similarity"]
    return pd.DataFrame(made.description.disputed, columns=names).sort_values(names, ignore_index=True)


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def yaml_of(made: Prepared, command: str, sources: Sequence[Source]) -> str:
    """The use case's file."""
    sizes = {name: len(table) for name, table in made.divided.tables.items()}
    reference = made.reference
    quality = (
        f"words in a linear classifier, without any model, reach {reference.quality:.3f} on dev, surely "
        f"{reference.lower:.2f}; an LLM that does no better is not needed"
        if reference
        else "a guess; nothing was measured"
    )
    group = "Groups of near duplicates lie on one side" + (
        f", and so do those of {made.draft.split_by}, which count once." if made.draft.split_by else "."
    )
    remarks = Remarks(
        command=command,
        sources=", ".join(Path(each.name).name for each in sources),
        rows="Rows: " + ", ".join(f"{name} {count:,}" for name, count in sizes.items()) + ".",
        quality=quality,
        margin=f"the gate's {sizes['gate']:,} rows decide this margin; a smaller one needs more",
        has_decline=made.draft.decline_label is not None,
        is_embedded=made.draft.models.are_embedded,
        drafted_instruction=made.is_drafted_instruction,
        group_note=group,
        found=(*made.description.personal, *made.description.secret),
    )
    return case_text(made.fields, remarks)


def check_free(folder: Path, files: Mapping[str, bytes], case: Path, text: str) -> None:
    """BadInput where something else lies there already: rows that a gate was judged on, or a file somebody edited."""
    manifest = folder / MANIFEST
    if manifest.exists() and manifest.read_bytes() != files[MANIFEST]:
        raise BadInput(
            f"{folder}: holds rows that were prepared from something else, and a gate may have been judged on them; "
            "take another --name, or remove the folder"
        )
    if not manifest.exists() and folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder}: holds files that no prepare wrote; take another --name, or remove the folder")
    if case.exists() and (case.is_dir() or case.read_bytes() != text.encode()):
        raise BadInput(f"{case}: is there already and says something else; name another file by --out, or remove it")


def check_holds(name: str, files: Mapping[str, bytes], text: str) -> None:
    """BadInput where what would be written is no use case, or its tables do not hold as one; nothing of it stays."""
    with TemporaryDirectory(prefix="leastwise-prepare-") as aside:
        for each, body in files.items():
            write_bytes(Path(aside) / each, body)
        case = Path(aside) / f"{name}.yaml"
        write_bytes(case, text.replace(f"${{LEASTWISE_HOME}}/data/{name}/", f"{aside}/").encode())
        Tables(load(str(case))).check()


def write(folder: Path, files: Mapping[str, bytes], case: Path, text: str) -> None:
    """All of it; the manifest after the tables, the use case last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        write_bytes(folder / name, body)
    case.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(case, text.encode())
