"""What is in a bundle and where, and how it is opened: no file of it is used that is not the one that was packed.

It packs nothing (see `packing.py`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import Field, ValidationError

from leastwise.answering.servers import GgufFiles, Safetensors
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.part import Part
from leastwise.redaction import without_secrets
from leastwise.stores import storage
from leastwise.stores.uris import is_s3
from leastwise.use_case import UseCase
from leastwise.use_case.price import Price

CANDIDATE, USE_CASE, CONTENTS = "candidate.json", "use_case.json", "contents.json"
DISTANCE = "distance.npz"
BUILT = ("indexes/", DISTANCE, CANDIDATE, USE_CASE)  # not the same to the last byte when they are written again


class PackedIndex(Part):
    """A search index: the name of its table, and how many rows it has."""

    key: str
    rows: int


class PackedModel(Part):
    """Weights for llama.cpp as files, for vLLM as folders: paths in the bundle."""

    model: str
    adapter: str | None = None


class Elsewhere(Part):
    """Files that a bundle names and does not hold: those of a candidate that was measured and is not registered."""

    home: str = Field(description="The state directory of the climb, which may be found at another place.")
    files: dict[str, str] = Field(description="Path or s3:// URI of each, by its path in the bundle.")


class Contents(Part):
    """What is in a bundle and where; written last, so that a folder without it is no bundle."""

    prices: dict[str, Price] = Field(description="Dollars per million tokens, by model URI.")
    models: dict[str, PackedModel] = Field({}, description="Weights to serve, by what they are.")
    tokenizers: dict[str, str] = Field({}, description="Folder of a model's tokenizer, by model URI.")
    trained: dict[str, str] = Field({}, description="Folder of what a stage trained, by revision.")
    indexes: dict[str, PackedIndex] = Field({}, description="What is searched, by table.")
    sha256: dict[str, str] = Field({}, description="Of every other file, by its path.")
    elsewhere: Elsewhere | None = Field(None, description="Files it does not hold; None: it holds all of them.")

    @property
    def remedy(self) -> str:
        """What to do about a file that is missing or another one."""
        if self.elsewhere is None:
            return "register the winner again"
        return (
            "it was measured and not registered, so its files stayed where they were: register it (python -m "
            f"flows.promote USE_CASE MLFLOW_RUN_ID), or load it where the state directory {self.elsewhere.home} is; "
            "where that has other files by now, climb again"
        )


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
    whole = _gathered(folder, contents, contents.elsewhere, scratch) if contents.elsewhere else folder
    for name, digest in contents.sha256.items():
        path = whole / name
        if not path.is_file() or storage.sha256(str(path.resolve())) != digest:
            raise BadInput(f"{path.resolve()}: is missing or not the file that was packed; {contents.remedy}")
    return whole, candidate, use_case, contents


def gguf_of(folder: Path, contents: Contents, candidate: Candidate) -> GgufFiles:
    """The packed weights of a candidate; BadInput where there are none."""
    return GgufFiles(*_packed(folder, contents, candidate))


def safetensors_of(folder: Path, contents: Contents, candidate: Candidate) -> Safetensors:
    """As `gguf_of`, of a candidate that vLLM serves."""
    return Safetensors(*_packed(folder, contents, candidate))


def _packed(folder: Path, contents: Contents, candidate: Candidate) -> tuple[Path, Path | None]:
    packed = contents.models.get(weights_of(candidate))
    if packed is None:
        raise BadInput(f"{folder}: holds no weights of {candidate.stage} {candidate.key}; register the winner again")
    return folder / packed.model, folder / packed.adapter if packed.adapter else None


def weights_of(candidate: Candidate) -> str:
    """What a candidate's weights are, whatever stands in front of them."""
    trained = candidate.weights.revision if candidate.weights else ""
    engine = () if candidate.engine == "llama.cpp" else (candidate.engine,)
    return content_key(candidate.model, candidate.revision, trained, *engine)


def changed_since(measured: Contents, now: Contents) -> str:
    """What a candidate would answer with now that it was not measured with, empty where it is all the same.

    An index is the same with the same rows and encoder, however its files are written.
    """
    tables = {name: index.key for name, index in measured.indexes.items()}
    other = [table for table, index in now.indexes.items() if tables.get(table, index.key) != index.key]
    if other:
        return f"the rows of data.{other[0]}, or what embeds them"
    known = set(measured.sha256.values())  # wherever in a bundle an earlier version put them
    return next((name for name, digest in now.sha256.items() if not name.startswith(BUILT) and digest not in known), "")


def _gathered(folder: Path, contents: Contents, elsewhere: Elsewhere, scratch: Path) -> Path:
    """A folder of links to what the bundle holds and to what it names."""
    whole = scratch / "bundle"
    held = {name: folder / name for name in contents.sha256 if name not in elsewhere.files}
    for name, source in (held | _found(contents, elsewhere, scratch)).items():
        target = whole / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())
    return whole


def _found(contents: Contents, elsewhere: Elsewhere, scratch: Path) -> dict[str, Path]:
    """Where the named files are on this machine now; BadInput with the first that cannot be reached."""
    found: dict[str, Path] = {}
    for name, where in elsewhere.files.items():
        try:
            found[name] = storage.fetch(_here(where, elsewhere.home), scratch / "fetched" / content_key(name))
        except (BadInput, ConnectionError) as error:
            raise BadInput(f"{without_secrets(where)}: cannot be reached here ({error}); {contents.remedy}") from error
    return found


def _here(where: str, home: str) -> str:
    """A file of the climb's state directory is looked for in the present one too, where that was moved."""
    if is_s3(where) or os.access(where, os.R_OK) or not Path(where).is_relative_to(home):
        return where
    return str(storage.home() / Path(where).relative_to(home))
