"""What a process could not write while the database was away: kept in the state directory, sent by whoever opens next.

It holds answers, times and endings of calls; each may be sent twice without effect. A reservation that was never
committed is not kept: its call was never sent.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from leastwise.stores.answer_store import StoredAnswer
from leastwise.stores.shared.block import Block, Closing, Kept, Timed
from leastwise.use_case.price import Usage

FOLDER = "unsent"


def keep_unsent(folder: Path, owner: str, block: Block) -> None:
    """Add what a block holds to the file of its process."""
    lines = [{kind: asdict(each)} for kind in ("kept", "timed", "closing") for each in getattr(block, kind)]
    if lines:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{owner}.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def unsent(folder: Path) -> Iterator[tuple[Path, Block]]:
    """What others left there, a file at a time; whoever has sent it removes it. A line that a kill cut is left out."""
    for found in sorted(folder.glob("*.jsonl")) if folder.exists() else ():
        file = folder / f"{uuid.uuid4().hex}.jsonl"
        try:
            found.rename(file)  # whoever wrote it may write more, into a new one
        except FileNotFoundError:
            continue  # another took it
        block = Block(0)
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                block.add(_read(json.loads(line)))
        yield file, block


def _read(line: dict[str, dict[str, object]]) -> Kept | Timed | Closing:
    ((kind, fields),) = line.items()
    if kind == "kept":
        answer = dict(fields["answer"])  # type: ignore[call-overload]  # as it was written
        return Kept(str(fields["key"]), StoredAnswer(**answer | {"usage": Usage(**answer["usage"])}))
    if kind == "timed":
        return Timed(**fields)  # type: ignore[arg-type]  # as it was written
    return Closing(**fields | {"usage": Usage(**fields["usage"])})  # type: ignore[arg-type]  # as it was written
