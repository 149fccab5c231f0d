"""A winner's own files: everything it answers with, copied once into one folder, each file with its checksum.

So it answers where neither this repository nor its state is. Prices are written down as they were; keys never are: a
provider is asked with the key of whoever serves.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from leastwise.answering.answerer import Surroundings
from leastwise.answering.servers import GgufFiles
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.part import Part
from leastwise.stores import storage
from leastwise.use_case import UseCase
from leastwise.use_case.price import Price

CANDIDATE, USE_CASE, CONTENTS = "candidate.json", "use_case.json", "contents.json"
SAFE = frozenset({".safetensors", ".gguf", ".onnx", ".json", ".txt", ".model", ".npz", ".jinja", ".md"})


class PackedIndex(Part):
    """A search index: the name of its table, and how many rows it has."""

    key: str
    rows: int


class PackedModel(Part):
    """Weights for llama.cpp, as paths in the bundle."""

    model: str
    adapter: str | None = None


class Contents(Part):
    """What is in a bundle and where; written last, so that a folder without it is no bundle."""

    prices: dict[str, Price] = Field(description="Dollars per million tokens, by model URI.")
    models: dict[str, PackedModel] = Field({}, description="Weights to serve, by what they are.")
    tokenizers: dict[str, str] = Field({}, description="Folder of a model's tokenizer, by model URI.")
    trained: dict[str, str] = Field({}, description="Folder of what a stage trained, by revision.")
    indexes: dict[str, PackedIndex] = Field({}, description="What is searched, by table.")
    sha256: dict[str, str] = Field({}, description="Of every other file, by its path.")


def pack(work: Surroundings, candidate: Candidate, folder: Path) -> None:
    """Copy all that this candidate answers with into a folder that is empty or not there.

    BadInput where it cannot be served: weights in a format that runs code when it is loaded, a missing file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packer = _Packer(work, folder)
    for part in parts_of(candidate):
        packer.add(part)
    (folder / CANDIDATE).write_text(candidate.model_dump_json(indent=1))
    (folder / USE_CASE).write_text(work.use_case.model_dump_json(indent=1))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    sums = {path.relative_to(folder).as_posix(): storage.sha256(str(path)) for path in files}
    contents = packer.contents.model_copy(update={"sha256": sums})
    (folder / CONTENTS).write_text(contents.model_dump_json(indent=1))


def parts_of(candidate: Candidate) -> Iterator[Candidate]:
    """A candidate, and who is asked before it."""
    if candidate.cascade:
        yield from parts_of(candidate.cascade.first)
    yield candidate


def unpack(folder: Path) -> tuple[Candidate, UseCase, Contents]:
    """What a bundle holds; BadInput where it is not whole, or a file is not the one that was packed."""
    try:
        candidate = Candidate.model_validate_json((folder / CANDIDATE).read_bytes())
        use_case = UseCase.model_validate_json((folder / USE_CASE).read_bytes())
        contents = Contents.model_validate_json((folder / CONTENTS).read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise BadInput(f"{folder}: no whole bundle of a winner ({error}); register it again") from error
    for name, digest in contents.sha256.items():
        path = folder / name
        if not path.is_file() or storage.sha256(str(path)) != digest:
            raise BadInput(f"{path}: is missing or not the file that was registered; register the winner again")
    return candidate, use_case, contents


class _Packer:
    """Fills a bundle, and notes what is where."""

    def __init__(self, work: Surroundings, folder: Path) -> None:
        self._work, self._folder = work, folder
        self.contents = Contents(prices={})

    def add(self, part: Candidate) -> None:
        """The files of one candidate."""
        catalogue = self._work.catalogue
        if part.stage != "reference":
            self._note("prices", part.model, catalogue.price(part.model))
        if part.weights and part.weights.kind == "student":
            self._note(
                "trained",
                part.weights.revision,
                self._tree(self._work.trained(part), f"student-{part.weights.revision}"),
            )
        elif catalogue.is_served_here(part):
            self._add_model(part)
        if part.retriever:
            wanted = {"train": part.retriever.examples, "documents": part.retriever.documents}
            self._add_indexes([table for table, count in wanted.items() if count])
        if part.guard and part.guard.score == "distance":
            self._add_distance()

    def _add_model(self, part: Candidate) -> None:
        files = self._work.gguf(part)
        model = self._file(files.model, f"weights/{files.model.name}")
        adapter = self._file(files.adapter, f"weights/{files.adapter.name}") if files.adapter else None
        self._note("models", _weights_of(part), PackedModel(model=model, adapter=adapter))
        tokenizer = self._work.tokenizer(part.model)
        self._note(
            "tokenizers",
            part.model,
            self._tree(tokenizer, f"tokenizer-{content_key(part.model)}", without=(".safetensors",)),
        )

    def _add_indexes(self, tables: Sequence[str]) -> None:
        for table in tables:
            index = self._work.index(table)
            name = f"{index.key}.lance"
            shutil.copytree(Path(index.uri) / name, self._folder / "indexes" / name, dirs_exist_ok=True)
            self._note("indexes", table, PackedIndex(key=index.key, rows=index.rows))
        self._add_embedder()

    def _add_embedder(self) -> None:
        encoder = self._work.catalogue.encoder
        assert encoder is not None
        self._tree(encoder, "embedder")

    def _add_distance(self) -> None:
        near = self._work.near
        assert near is not None
        gaussian = near.gaussian
        np.savez(self._folder / "distance.npz", mean=gaussian.mean, precision=gaussian.precision)
        self._add_embedder()

    def _tree(self, source: Path, name: str, without: tuple[str, ...] = ()) -> str:
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.suffix in SAFE and path.suffix not in without:
                self._file(path, f"{name}/{path.relative_to(source).as_posix()}")
            elif path.is_file() and path.suffix in {".bin", ".pt", ".pth", ".pkl"}:
                raise BadInput(f"{path}: runs code when it is loaded; only safetensors, ONNX and GGUF are registered")
        return name

    def _file(self, source: Path, name: str) -> str:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            try:
                os.link(source.resolve(), target)
            except OSError:  # another file system
                shutil.copyfile(source, target)
        return name

    def _note(self, field: str, name: str, value: object) -> None:
        known = getattr(self.contents, field)
        self.contents = self.contents.model_copy(update={field: {**known, name: value}})


def gguf_of(folder: Path, contents: Contents, candidate: Candidate) -> GgufFiles:
    """The packed weights of a candidate; BadInput where there are none."""
    packed = contents.models.get(_weights_of(candidate))
    if packed is None:
        raise BadInput(f"{folder}: holds no weights of {candidate.stage} {candidate.key}; register the winner again")
    return GgufFiles(folder / packed.model, folder / packed.adapter if packed.adapter else None)


def _weights_of(candidate: Candidate) -> str:
    """What a candidate's weights are, whatever stands in front of them."""
    return content_key(candidate.model, candidate.revision, candidate.weights.revision if candidate.weights else "")
