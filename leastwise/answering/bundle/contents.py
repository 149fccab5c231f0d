"""What is in a bundle and where. It packs nothing (see `packing.py`) and opens none (see `opening.py`)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from leastwise.answering.servers import GgufFiles, Safetensors
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.part import Part
from leastwise.use_case.price import Price

CANDIDATE, USE_CASE, CONTENTS = "candidate.json", "use_case.json", "contents.json"
DISTANCE = "distance.npz"
INDEXES = "indexes/"
BUILT = (INDEXES, DISTANCE, CANDIDATE, USE_CASE)  # not the same to the last byte when they are written again


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

    files: dict[str, str] = Field(
        description="What each is, or is made of, by its path in the bundle: a made:// name, or a URI of the use case."
    )
    home: str | None = Field(
        None,
        description="Of earlier versions: the state directory of the climb, which may be found at another place; each "
        "of the files is a path then.",
    )


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
        register = "register it (python -m flows.promote USE_CASE MLFLOW_RUN_ID)"
        if self.elsewhere.home is None:
            return (
                "it was measured and not registered, so its files are fetched, or made again, where it is loaded: "
                f"{register} to have it load anywhere; where what it was made of has changed, climb again"
            )
        return (
            f"it was measured and not registered, so its files stayed where they were: {register}, or load it where "
            f"the state directory {self.elsewhere.home} is; where that has other files by now, climb again"
        )


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
    marked = ("decide",) if candidate.decides else ()
    return content_key(candidate.model, candidate.revision, trained, *engine, *marked)


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
