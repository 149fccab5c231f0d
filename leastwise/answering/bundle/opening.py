"""How a bundle is opened: no file of it is used that is not the one that was packed, or measured with.

What a measured candidate only names is brought here: what was made is fetched by its digest, the rest is made again of
open weights and tables as the climb made it, once a machine, and held to the digests of the record.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from pydantic import ValidationError

from leastwise.answering.bundle.contents import CANDIDATE, CONTENTS, INDEXES, USE_CASE, Contents, Elsewhere
from leastwise.answering.bundle.packing import Packer, parts_of
from leastwise.answering.retrieval import Index, open_index
from leastwise.answering.servers import WeightsHere
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.models.catalogue import Catalogue
from leastwise.money import PriceBook
from leastwise.record.handover.handover import as_loaded
from leastwise.record.handover.tables import brought
from leastwise.redaction import without_secrets
from leastwise.rows.tables import Tables
from leastwise.stores import storage
from leastwise.stores.uris import is_s3
from leastwise.use_case import UseCase


def unpack(folder: Path, scratch: Path) -> tuple[Path, Candidate, UseCase, Contents]:
    """What a bundle holds, and the folder that has all of its files: itself, or one in `scratch` where some are
    elsewhere. BadInput where it is not whole, or a file is not the one that was packed.
    """
    try:
        candidate = Candidate.model_validate_json((folder / CANDIDATE).read_bytes())
        use_case = UseCase.model_validate_json((folder / USE_CASE).read_bytes())
        contents = Contents.model_validate_json((folder / CONTENTS).read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise BadInput(f"{folder}: no whole bundle of a winner ({error}); register it again") from error
    whole, digests = folder, contents.sha256
    if contents.elsewhere:
        whole = _linked(folder, contents, contents.elsewhere, scratch)
        if contents.elsewhere.home is None:
            _bring(whole, candidate, use_case, contents)
            # An index is the same with the same rows and encoder, however its files are written.
            digests = {name: digest for name, digest in digests.items() if not name.startswith(INDEXES)}
        else:
            _link(whole, _found(contents, contents.elsewhere, contents.elsewhere.home, scratch))
    for name, digest in digests.items():
        path = whole / name
        if not path.is_file() or storage.sha256(str(path.resolve())) != digest:
            raise BadInput(f"{path.resolve()}: is missing or not the file that was packed; {contents.remedy}")
    return whole, candidate, use_case, contents


def _linked(folder: Path, contents: Contents, elsewhere: Elsewhere, scratch: Path) -> Path:
    """A folder of links to what the bundle holds."""
    whole = scratch / "bundle"
    whole.mkdir(parents=True)
    _link(whole, {name: folder / name for name in contents.sha256 if name not in elsewhere.files})
    return whole


def _link(whole: Path, files: dict[str, Path]) -> None:
    for name, source in files.items():
        target = whole / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():  # two of a cascade have an embedder, say, in common
            target.symlink_to(source.resolve())


@dataclass(frozen=True)
class _Sources:
    """What a measured candidate answers with, as this machine has it, fetches it or makes it again."""

    use_case: UseCase
    weights_here: WeightsHere

    @cached_property
    def catalogue(self) -> Catalogue:
        """The models of the use case; nothing is priced here."""
        return Catalogue(self.use_case, PriceBook.model_validate({"as_of": "2026-01-01"}), self.weights_here.home)

    def index(self, table: str, characters: int = 0) -> Index:
        """The index of the examples or the documents, built of the rows that the use case names."""
        encoder, home = self.catalogue.encoder, self.weights_here.home
        assert encoder is not None
        data = self.use_case.data
        key = content_key(table, storage.sha256(getattr(data, table)), data.model_dump_json())
        rows = partial(Tables(self.use_case).need, table)
        return open_index(key, rows, encoder, home / "indexes", self.catalogue.embeddings, characters)


def _bring(whole: Path, candidate: Candidate, use_case: UseCase, contents: Contents) -> None:
    """Links to the named files as they are on this machine; BadInput where one cannot be had."""
    handover = as_loaded()
    sources = _Sources(brought(handover.client, use_case), WeightsHere(handover))
    packer = Packer(sources, use_case, lambda source, name, _uri: _link(whole, {name: source}))
    try:
        for part in parts_of(candidate):
            packer.add_files(part)
    except (BadInput, ConnectionError, ImportError) as error:
        raise BadInput(
            f"{candidate.stage} {candidate.key}: what it answers with cannot be had here ({error}); {contents.remedy}"
        ) from error
    for table, index in packer.contents.indexes.items():
        if contents.indexes.get(table, index).key != index.key:
            raise BadInput(
                f"data.{table}: its rows, or the model that embeds them, are not those that {candidate.stage} "
                f"{candidate.key} was measured with; {contents.remedy}"
            )


def _found(contents: Contents, elsewhere: Elsewhere, home: str, scratch: Path) -> dict[str, Path]:
    """Of an earlier version: where its paths lead now; BadInput with the first that cannot be reached."""
    found: dict[str, Path] = {}
    for name, where in elsewhere.files.items():
        try:
            found[name] = storage.fetch(_here(where, home), scratch / "fetched" / content_key(name))
        except (BadInput, ConnectionError) as error:
            raise BadInput(f"{without_secrets(where)}: cannot be reached here ({error}); {contents.remedy}") from error
    return found


def _here(where: str, home: str) -> str:
    """A file of the climb's state directory is looked for in the present one too, where that was moved."""
    if is_s3(where) or os.access(where, os.R_OK) or not Path(where).is_relative_to(home):
        return where
    return str(storage.home() / Path(where).relative_to(home))
