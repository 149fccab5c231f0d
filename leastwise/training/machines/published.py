"""What another machine needs to take part in a training, below one URI: the request with its rows, the base by digest.

A machine with nothing but that URI fetches the base once and keeps it. The request is there as long as the first
machine trains, the bases stay for the next training. It starts nothing and reads no tensor.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leastwise.errors import BadInput
from leastwise.models import weights
from leastwise.redaction import without_secrets
from leastwise.stores import storage
from leastwise.training.machines import shared_files
from leastwise.training.request import DevMetric, TrainingRequest
from leastwise.training.settings import TrainingSettings
from leastwise.training.training_rows import TokenRow
from leastwise.use_case.training import Launch

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

_CALL, _ROWS = ".call.json", ".rows.json"


class Call(BaseModel):
    """Machines are called to a training: which, where they meet, and what each fetches for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(description="Of the training; what is fetched must come to it again.")
    word: str = Field(min_length=16, description="What a machine says at the meeting place to be let in.")
    launch: Launch
    base: str = Field(description="Hash of the base's files.")
    teacher: str | None = Field(None, description="Hash of the teacher's files, where probabilities are learned from.")


class _Rows(BaseModel):
    """A request but for its models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoded: list[TokenRow]
    watched: list[TokenRow]
    settings: TrainingSettings
    dev_metric: DevMetric | None = None


@dataclass(frozen=True)
class Published:
    """What lies below the URI (`file://` or `s3://`) that all machines of a training reach."""

    uri: str

    @contextmanager
    def called(self, request: TrainingRequest) -> Iterator[Call]:
        """The request there for as long as the block lasts; bases are put where they are not there yet.

        BadInput where nothing can be written there.
        """
        storage.check_writable(self._root)
        call = Call(
            key=request.key,
            word=secrets.token_hex(16),
            launch=request.settings.launch,
            base=self._put_model(request.base),
            teacher=self._put_model(request.teacher) if request.teacher else None,
        )
        rows = _Rows.model_validate(request.model_dump(include=set(_Rows.model_fields)))
        storage.write_bytes(self._named(request.key, _ROWS), rows.model_dump_json().encode())
        storage.write_bytes(self._named(request.key, _CALL), call.model_dump_json().encode())
        try:
            yield call
        finally:
            self.forget(request.key)

    def forget(self, key: str) -> None:
        """Takes a request away; what cannot be removed is said: nobody answers to it any more."""
        try:
            for ending in (_CALL, _ROWS):
                shared_files.remove(self._named(key, ending))
        except (OSError, BadInput) as error:
            log.warning(f"the request of the training {key} could not be removed ({error})")

    def here(self, call: Call, home: Path) -> TrainingRequest:
        """The request with models on this machine, fetched once. BadInput where it is not what was asked for."""
        rows = _parsed(_Rows, self._named(call.key, _ROWS))
        request = TrainingRequest(
            base=self._model_here(call.base, home),
            teacher=self._model_here(call.teacher, home) if call.teacher else None,
            **rows.model_dump(),
        )
        if request.key != call.key:
            raise BadInput(
                f"{without_secrets(self._named(call.key, _ROWS))}: is another training ({request.key}) on this "
                "machine; run the same version of Leastwise on every machine"
            )
        return request

    @property
    def _root(self) -> str:
        return self.uri.rstrip("/")

    def _named(self, key: str, ending: str) -> str:
        return f"{self._root}/{key}{ending}"

    def _put_model(self, directory: Path) -> str:
        digest = weights.directory_hash(directory)
        there = f"{self._root}/bases/{digest}"
        if not storage.exists(f"{there}.json"):
            log.info(f"putting {directory} at {without_secrets(there)} for the other machines, once")
            shared_files.put_folder(directory, weights.files_of(directory), there)
        return digest

    def _model_here(self, digest: str, home: Path) -> Path:
        target, there = home / "models" / digest, f"{self._root}/bases/{digest}"
        if not target.exists():
            log.info(f"fetching {without_secrets(there)}, once")
            with weights.built(target) as folder:
                fetched = shared_files.fetch_folder(there, folder)
                for path in fetched.iterdir():
                    path.rename(folder / path.name)
                fetched.rmdir()
                if weights.directory_hash(folder) != digest:
                    raise BadInput(f"{without_secrets(there)}: is not the base that was put there; remove it and retry")
        return target


def published_at(url: str) -> Published:
    """What lies at the URL of a request, or of the folder that requests come to."""
    return Published(url.rpartition("/")[0] if url.endswith(_CALL) else url)


def calls_at(url: str) -> list[Call]:
    """The trainings that call for machines at the URL of a request or of a folder; none where there is none (yet).

    BadInput where the storage refuses, or what lies there is no request.
    """
    try:
        below = [url] if url.endswith(_CALL) else storage.files_below(url) if storage.exists(url) else []
        return [_parsed(Call, each) for each in below if each.endswith(_CALL) and storage.exists(each)]
    except ConnectionError as error:
        log.warning(str(error))
        return []


def _parsed(kind: type[M], uri: str) -> M:
    try:
        return kind.model_validate_json(storage.read_bytes(uri))
    except ValidationError as error:
        raise BadInput(
            f"{without_secrets(uri)}: is no request of this version ({error.errors()[0]['msg']}); run the same version "
            "of Leastwise on every machine"
        ) from None
