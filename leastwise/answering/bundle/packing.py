"""A candidate's own files, with everything it answers with: copied once into one folder when it is registered, each
with its checksum; only named, with the same checksums, when it was measured.

So a winner answers where neither this repository nor its state is, and what was measured wherever what it is made of
can be had: a file is named by what was made (`made://…`) or by the URI of the use case, never by a path of the state.
Prices are written down as they were; keys never are: a provider is asked with the key of whoever serves.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from leastwise.answering.bundle.contents import (
    CANDIDATE,
    CONTENTS,
    DISTANCE,
    INDEXES,
    USE_CASE,
    Contents,
    Elsewhere,
    PackedIndex,
    PackedModel,
    weights_of,
)
from leastwise.answering.distance import Distance
from leastwise.answering.retrieval import Index, looked_up
from leastwise.answering.retrieval.looking_up import LookedUp
from leastwise.answering.servers import WeightsHere
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.models.catalogue import Catalogue
from leastwise.stores import storage
from leastwise.stores.remembered import Remembered
from leastwise.use_case import UseCase

log = logging.getLogger(__name__)

SAFE = frozenset({".safetensors", ".gguf", ".onnx", ".json", ".txt", ".model", ".npz", ".jinja", ".md"})
PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl"})
LEAST_REMEMBERED_BYTES = 1_000_000  # the digest of a smaller file is quicker worked out than looked up

Keep = Callable[[Path, str, str], None]  # (a file of this machine, its path in the bundle, the URI it was made of)


class Sources(Protocol):
    """Where the files of a candidate lie."""

    @property
    def catalogue(self) -> Catalogue:
        """Who is served here."""
        ...

    @property
    def weights_here(self) -> WeightsHere:
        """Weights as this machine has them."""
        ...

    def index(self, table: str, characters: int = 0) -> Index:
        """The index of the examples (`train`) or the documents; these in parts of so many characters, 0: whole."""
        ...


class Climb(Sources, Protocol):
    """What was measured, with what its record says of it."""

    @property
    def home(self) -> Path:
        """Where digests are remembered."""
        ...

    @property
    def recorded(self) -> UseCase:
        """The use case as every machine reads it."""
        ...

    @property
    def near(self) -> Distance | None:
        """The distance to the examples."""
        ...


def pack(work: Climb, candidate: Candidate, folder: Path) -> Contents:
    """Copy all that this candidate answers with into a folder that is empty or not there; gives back what is in it.

    BadInput where it cannot be served: weights in a format that runs code when it is loaded, a missing file.
    """

    def keep(source: Path, name: str, _where: str) -> None:
        _copy(source, folder / name)

    contents = _filled(work, candidate, folder, keep)
    return _written(folder, contents.model_copy(update={"sha256": _digests(folder)}))


def refer(work: Climb, candidate: Candidate, folder: Path) -> None:
    """As `pack`, and every file that the climb keeps is only named with its digest, not copied."""
    files: dict[str, str] = {}
    sums: dict[str, str] = {}
    known = Remembered(work.home / "digests")

    def keep(source: Path, name: str, uri: str) -> None:
        files[name], sums[name] = uri, _digest(source.resolve(strict=True), known)

    contents = _filled(work, candidate, folder, keep)
    sums |= _digests(folder)
    elsewhere = Elsewhere(files=files) if files else None
    _written(folder, contents.model_copy(update={"sha256": dict(sorted(sums.items())), "elsewhere": elsewhere}))


@contextmanager
def referred(work: Climb, candidate: Candidate) -> Iterator[Path | None]:
    """A folder with the bundle of what was measured, for as long as the block lasts; None, said aloud, where there can
    be none: a verdict does not wait for it.
    """
    with tempfile.TemporaryDirectory(prefix="leastwise-bundle-") as scratch:
        try:
            refer(work, candidate, Path(scratch, "bundle"))
        except Exception as error:  # whatever a file system, an index or a provider's price book says
            log.warning(f"{candidate.stage}: its MLflow model cannot be loaded until it is registered ({error})")
            yield None
            return
        yield Path(scratch, "bundle")


def parts_of(candidate: Candidate) -> Iterator[Candidate]:
    """A candidate, and who is asked before it."""
    if candidate.cascade:
        yield from parts_of(candidate.cascade.first)
    yield candidate


def _filled(work: Climb, candidate: Candidate, folder: Path, keep: Keep) -> Contents:
    """What is in the bundle and where, its small files written; the climb's own are handed to `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    packer = Packer(work, work.recorded, keep)
    for part in parts_of(candidate):
        packer.add_price(part)
        packer.add_files(part)
        if part.guard and part.guard.score == "distance":
            _write_distance(work, folder)
    (folder / CANDIDATE).write_text(candidate.model_dump_json(indent=1))
    (folder / USE_CASE).write_text(work.recorded.model_dump_json(indent=1))
    return packer.contents


def _write_distance(work: Climb, folder: Path) -> None:
    near = work.near
    assert near is not None
    gaussian = near.gaussian
    np.savez(folder / DISTANCE, mean=gaussian.mean, precision=gaussian.precision)


def _written(folder: Path, contents: Contents) -> Contents:
    (folder / CONTENTS).write_text(contents.model_dump_json(indent=1, exclude_none=True))
    return contents


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): storage.sha256(str(path)) for path in files}


def _digest(file: Path, known: Remembered) -> str:
    """The SHA-256 of a file; of a large one it is remembered for as long as the file is the same."""
    status = file.stat()
    if status.st_size < LEAST_REMEMBERED_BYTES:
        return storage.sha256(str(file))
    key = content_key(str(file), str(status.st_size), str(status.st_mtime_ns))
    digest = known.get(key).get("sha256")
    if not isinstance(digest, str):
        digest = storage.sha256(str(file))
        known.put(key, {"file": str(file), "sha256": digest})
    return digest


class Packer:
    """Finds every file of a candidate, hands it on, and notes what is where."""

    def __init__(self, work: Sources, recorded: UseCase, keep: Keep) -> None:
        self._work, self._recorded, self._keep = work, recorded, keep
        self.contents = Contents(prices={})

    def add_price(self, part: Candidate) -> None:
        """What a token of one candidate costs."""
        price = self._work.catalogue.price_in_venue(part)
        if price is not None:  # else machines are paid, and the model may have no price at all
            self._note("prices", part.model, price)

    def add_files(self, part: Candidate) -> None:
        """The files of one candidate."""
        if part.weights and part.weights.kind == "student":
            at = self._tree(self._work.weights_here.trained(part), f"student-{part.weights.revision}", part.weights.uri)
            self._note("trained", part.weights.revision, at)
        elif self._work.catalogue.is_served_here(part):
            self._add_model(part)
        if part.retriever:
            self._add_indexes(looked_up(part.retriever), is_late=part.retriever.mode == "late")
        if part.guard and part.guard.score == "distance":
            self._add_embedder()

    def _add_model(self, part: Candidate) -> None:
        packed = self._safetensors(part) if part.engine == "vllm" else self._gguf(part)
        self._note("models", weights_of(part), packed)
        tokenizer = self._work.weights_here.tokenizer(part.model)
        at = self._tree(tokenizer, f"tokenizer-{content_key(part.model)}", part.model, without=(".safetensors",))
        self._note("tokenizers", part.model, at)

    def _gguf(self, part: Candidate) -> PackedModel:
        files, (model, adapter) = self._work.weights_here.gguf(part), _uris(part)
        lora = self._file(files.adapter, f"weights/{files.adapter.name}", adapter) if files.adapter else None
        return PackedModel(model=self._file(files.model, f"weights/{files.model.name}", model), adapter=lora)

    def _safetensors(self, part: Candidate) -> PackedModel:
        files, key, (model, adapter) = self._work.weights_here.safetensors(part), weights_of(part), _uris(part)
        lora = self._tree(files.adapter, f"adapter-{key}", adapter) if files.adapter else None
        return PackedModel(model=self._tree(files.model, f"model-{key}", model), adapter=lora)

    def _add_indexes(self, tables: Sequence[LookedUp], *, is_late: bool) -> None:
        for each in tables:
            index = self._work.index(each.table, each.characters)
            uri = str(getattr(self._recorded.data, each.table))
            self._add_table(index, index.key, uri)
            if is_late:
                index.need_tokens()
                self._add_table(index, index.tokens_key, uri)
            self._note("indexes", each.name, PackedIndex(key=index.key, rows=index.rows))
        self._add_embedder()

    def _add_table(self, index: Index, name: str, uri: str) -> None:
        lance = Path(index.uri) / f"{name}.lance"
        for path in sorted(each for each in lance.rglob("*") if each.is_file()):
            self._file(path, f"{INDEXES}{lance.name}/{path.relative_to(lance).as_posix()}", uri)

    def _add_embedder(self) -> None:
        encoder = self._work.catalogue.encoder
        assert encoder is not None
        self._tree(encoder, "embedder", self._recorded.models.embedder or "")

    def _tree(self, source: Path, name: str, uri: str, without: tuple[str, ...] = ()) -> str:
        """The files of a folder."""
        for path in sorted(source.rglob("*")):
            if path.is_file() and path.suffix in SAFE and path.suffix not in without:
                self._file(path, f"{name}/{path.relative_to(source).as_posix()}", uri)
            elif path.is_file() and path.suffix in PICKLED:
                raise BadInput(f"{path}: runs code when it is loaded; only safetensors, ONNX and GGUF are registered")
        return name

    def _file(self, source: Path, name: str, uri: str) -> str:
        self._keep(source, name, uri)
        return name

    def _note(self, field: str, name: str, value: object) -> None:
        known = getattr(self.contents, field)
        self.contents = self.contents.model_copy(update={field: {**known, name: value}})


def _uris(part: Candidate) -> tuple[str, str]:
    """What a candidate's model is, and its adapter."""
    trained = part.weights.uri if part.weights else ""
    return (trained, "") if part.weights and part.weights.kind == "merged" else (part.model, trained)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        try:
            os.link(source.resolve(), target)
        except OSError:  # another file system
            shutil.copyfile(source, target)
