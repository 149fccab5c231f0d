"""Checkpoints of a training in a folder that every machine reaches, so that another one goes on where one was killed.

A checkpoint counts once its list of digests is there, which is written last; what was cut off or changed does not match
it and is passed over for the one before. It reads no tensor, and what cannot be put there is said and stays on the
worker: a training does not end for it. Imports transformers when loaded.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from leastwise.errors import BadInput
from leastwise.redaction import without_secrets
from leastwise.stores import storage
from leastwise.stores.uris import is_s3, local_path
from leastwise.training.machines import shared_files

log = logging.getLogger(__name__)

_STATE = "trainer_state.json"  # the last file of a checkpoint that trl writes
_LIST = re.compile(r"(checkpoint-(\d+))\.json")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in a local folder that was written to its end."""
    return max(_whole(folder), key=lambda path: step_of(path.name), default=None)


def whole_steps(folder: Path) -> set[int]:
    """The steps of the checkpoints in a local folder that were written to their ends."""
    return {step_of(path.name) for path in _whole(folder)}


def step_of(checkpoint: str) -> int:
    """The step a checkpoint is named by."""
    return int(checkpoint.rpartition("-")[2])


def _whole(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob(f"checkpoint-*/{_STATE}")]


@dataclass(frozen=True)
class SharedCheckpoints:
    """The checkpoints of one training below a URI (`file://` or `s3://`); its key names their folder."""

    uri: str
    key: str

    @property
    def _root(self) -> str:
        return f"{self.uri.rstrip('/')}/{self.key}"

    def put(self, folder: Path) -> None:
        """Puts a local folder's whole checkpoints there, then removes those that were kept for one of these alone."""
        with self._going_on("could not be put"):
            there, here = self._lists(), sorted(_whole(folder), key=lambda path: step_of(path.name))
            for checkpoint in here:
                if checkpoint.name not in there:
                    self._put(checkpoint)
            kept, newest = {path.name for path in here}, max((step_of(path.name) for path in here), default=0)
            for name in there:
                if name not in kept and step_of(name) < newest:  # a newer one is of who took this training over
                    self._remove(name)

    def fetch(self, folder: Path) -> None:
        """Brings the newest whole checkpoint, with the best one it names, where it is newer than the folder's."""
        local = last_checkpoint(folder)
        with self._going_on("could not be fetched"):
            for name in sorted(self._lists(), key=step_of, reverse=True):
                if local is not None and step_of(name) <= step_of(local.name):
                    return
                if self._fetched(name, folder):
                    log.info(f"{name} of {without_secrets(self._root)} is gone on from")
                    return

    def bring(self, name: str, folder: Path) -> None:
        """Brings this one, where the folder has it not whole; what cannot be had is said."""
        if not (folder / name / _STATE).exists():
            with self._going_on("could not be fetched"), tempfile.TemporaryDirectory(dir=folder) as scratch:
                if self._is_downloaded(name, Path(scratch)):
                    _put_in_place(Path(scratch) / name, folder / name)

    def remove(self) -> None:
        """Removes all of them: the training is done."""
        with self._going_on("could not be removed"):
            for name in self._lists():
                self._remove(name)
            if not is_s3(self._root):
                shutil.rmtree(local_path(self._root), ignore_errors=True)

    @contextmanager
    def _going_on(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, BadInput) as error:
            log.warning(f"checkpoints {what} ({error}); the training goes on with those of this machine")

    def _lists(self) -> list[str]:
        """Names of those whose lists are there, which may be found to be changed all the same."""
        if not storage.exists(self._root):
            return []
        names = (each.rpartition("/")[2] for each in storage.files_below(self._root))
        return [found[1] for name in names if (found := _LIST.fullmatch(name))]

    def _put(self, checkpoint: Path) -> None:
        files = (path for path in checkpoint.rglob("*") if path.is_file())
        shared_files.put_folder(checkpoint, files, f"{self._root}/{checkpoint.name}")

    def _remove(self, name: str) -> None:
        shared_files.remove(f"{self._root}/{name}.json")  # first, for from then on it does not count
        shared_files.remove(f"{self._root}/{name}")

    def _fetched(self, name: str, folder: Path) -> bool:
        """Whether this checkpoint, and the best that it names, are whole and now in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetched-") as scratch:
            if not self._is_downloaded(name, Path(scratch)):
                return False
            state = Path(scratch) / name / _STATE
            written = json.loads(state.read_text(encoding="utf-8"))
            if best := Path(written.get("best_model_checkpoint") or "").name:
                if best != name and not self._is_downloaded(best, Path(scratch)):
                    return False
                written["best_model_checkpoint"] = str(folder / best)  # it was named where it lay on another machine
                state.write_text(json.dumps(written, indent=2), encoding="utf-8")
            for each in {best, name} - {""}:
                _put_in_place(Path(scratch) / each, folder / each)
        return True

    def _is_downloaded(self, name: str, to: Path) -> bool:
        try:
            shared_files.fetch_folder(f"{self._root}/{name}", to)
        except (BadInput, ValueError) as error:
            log.warning(f"{name} of {without_secrets(self._root)} is not whole and is passed over ({error})")
            return False
        return True


def _put_in_place(checkpoint: Path, place: Path) -> None:
    """Where another machine saved it, the random numbers of this machine's processes are in the folder it replaces."""
    for own in (each for each in place.glob("rng_state_*.pth") if not (checkpoint / each.name).exists()):
        own.rename(checkpoint / own.name)
    shutil.rmtree(place, ignore_errors=True)
    checkpoint.rename(place)


class PutThere(TrainerCallback):
    """Puts each checkpoint that a training saves there too; the first process does it."""

    def __init__(self, shared: SharedCheckpoints, folder: Path) -> None:
        self.shared, self.folder = shared, folder

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Puts what was just saved, and removes what the trainer no longer keeps."""
        if state.is_world_process_zero:
            self.shared.put(self.folder)
