"""Fireworks' interface for supervised fine-tuning: a data set, a job on it, and its adapter loaded to be asked.

Every name there is given by us, so that what was asked for twice is there once, and found again without a note. Written
after Fireworks' documentation and public client of 2026; it was run against a stand-in only (docs/training.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from leastwise.endpoints.clients.known import OWN_URL
from leastwise.endpoints.providers import key_of
from leastwise.endpoints.request import Target
from leastwise.endpoints.tuning.wire import FIRST_PAUSE_S, TIMEOUT_S, Told, Wire
from leastwise.endpoints.tuning.words import NO_ROWS, Rows
from leastwise.errors import BadInput
from leastwise.use_case.hosts import host_of
from leastwise.use_case.model import Model
from leastwise.use_case.training import INFERENCE, ManagedTraining

DONE = frozenset({"COMPLETED", "EARLY_STOPPED"})
ENDED = frozenset({"FAILED", "CANCELLED", "EXPIRED", "DELETING", "DELETING_CLEANING_UP"})
MOST_UPLOAD_BYTES: Final = 150_000_000
READY_WITHIN_S, LOADED_WITHIN_S = 1_800.0, 1_800.0
NO_PLACE = "it loads no more adapters for this account; unload one that nobody asks any more, and run again"
BILLION = 1_000_000_000


@dataclass(frozen=True)
class TuningJob:
    """A job as the host tells it; `usd` is what it says the job costs, None where it does not say."""

    id: str
    state: str
    reason: str = ""
    code: str = ""
    percent: int | None = None
    usd: float | None = None
    model: str = ""
    base: str = ""

    @property
    def is_done(self) -> bool:
        """Whether its model is there."""
        return self.state in DONE

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.is_done or self.state in ENDED

    @property
    def in_words(self) -> str:
        """Its state, and why."""
        far = f", {self.percent}%" if self.percent is not None and not self.is_over else ""
        return f"{self.state.lower().replace('_', ' ')}{far}{f': {self.reason}' if self.reason else ''}"


@contextmanager
def fireworks(
    managed: ManagedTraining, rows: Rows = NO_ROWS, first_pause_s: float = FIRST_PAUSE_S
) -> Iterator[Fireworks]:
    """The account of a use case, for as long as the block lasts. The key goes to the host of the base alone."""
    import httpx

    base = managed.base
    key, url = key_of(Target(base.uri, base_url=base.base_url, key_variable=base.key_variable)), control_url(base)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S) as client:
        yield Fireworks(Wire(client, host_of(url), rows, first_pause_s), managed.account, managed.poll_seconds)


def control_url(base: Model) -> str:
    """Where jobs are asked for: the host that answers, beside its inference interface."""
    return (base.base_url or OWN_URL["fireworks"]).rstrip("/").removesuffix(INFERENCE)


@dataclass(frozen=True)
class Fireworks:
    """One account."""

    wire: Wire
    account: str
    poll_s: float

    def put_rows(self, name: str, file: bytes, examples: int) -> int | None:
        """A data set of that name with these lines, put there once; gives back its tokens as the host counts them, None
        where it does not say. BadInput where it is refused.
        """
        if len(file) > MOST_UPLOAD_BYTES:
            raise BadInput(
                f"data.train: {len(file):,} bytes as a file of examples, and {self.wire.host} takes "
                f"{MOST_UPLOAD_BYTES:,}; lower training.max_examples"
            )
        path, seen = f"{self._at}/datasets/{name}", self.wire.get(f"{self._at}/datasets/{name}")
        if not seen.is_there:
            what = {"displayName": name, "exampleCount": str(examples), "userUploaded": {}, "format": "CHAT"}
            self._done(self.wire.post(f"{self._at}/datasets", {"datasetId": name, "dataset": what}), "a data set")
        if seen.body.get("state") != "READY":
            self._done(self.wire.upload(f"{path}:upload", f"{name}.jsonl", file), "an upload")
            seen = self._done(self.wire.get(path), "the data set")
        if seen.body.get("state") != "READY":
            self._done(self.wire.post(f"{path}:validateUpload", {}), "the rows")
            seen = self._awaited(path, lambda told: told.body.get("state") == "READY", READY_WITHIN_S)
        return _number(seen.body.get("estimatedTokenCount"))

    def take_rows_away(self, name: str) -> None:
        """Nothing of the rows stays in a data set there."""
        self.wire.delete(f"{self._at}/datasets/{name}")

    def job(self, name: str) -> TuningJob | None:
        """The job of that name; None where there is none."""
        told = self.wire.get(f"{self._at}/supervisedFineTuningJobs/{name}")
        return self._job(name, told.body) if told.is_there else None

    def start(self, name: str, base: str, settings: Mapping[str, object]) -> TuningJob:
        """A job of that name on the data set of that name, whose model has it too; the one that is there already."""
        body = {
            "displayName": name,
            "dataset": f"{self._account}/datasets/{name}",
            "baseModel": base,
            "outputModel": f"{self._account}/models/{name}",
            "evalAutoCarveout": False,
            "earlyStop": False,
            **settings,
        }
        path = f"{self._at}/supervisedFineTuningJobs"
        told = self._done(self.wire.post(path, body, supervisedFineTuningJobId=name), "a job")
        if told.status != 409:
            return self._job(name, told.body)
        there = self.job(name)
        if there is None:
            raise self.wire.refused(told, f"a job {name}")
        return there

    def cancel(self, name: str) -> None:
        """End a job. Where the host has no such word for it, the job is taken away, which ends it too."""
        path = f"{self._at}/supervisedFineTuningJobs/{name}"
        told = self.wire.post(f"{path}:cancel", {})
        if not told.is_there and told.status != 409:
            self.wire.delete(path)

    def serve(self, model: str) -> None:
        """Have a model answer by the token: loaded, and awaited. BadInput where the host does not serve it so."""
        loaded = self._loaded(model)
        if loaded is None:
            loaded = self._load(model)
        path = f"/v1/{loaded.get('name')}"
        if loaded.get("state") != "DEPLOYED":
            self._awaited(path, lambda told: told.body.get("state") == "DEPLOYED", LOADED_WITHIN_S)

    def _load(self, model: str) -> Mapping[str, object]:
        told = self.wire.post(f"{self._at}/deployedModels", {"model": model, "serverless": True}, is_waited=False)
        if told.is_there:
            return told.body
        if told.status == 429:
            raise BadInput(f"{self.wire.host}: {NO_PLACE} ({self.wire.said(told.message)})")
        loaded = self._loaded(model) if told.status == 409 else None
        if loaded is None:
            raise self.wire.refused(told, f"{model} is trained and cannot be loaded to answer by the token")
        return loaded

    def _loaded(self, model: str) -> Mapping[str, object] | None:
        """The record of a loaded model, page by page."""
        page: dict[str, str] = {}
        while True:
            body = self._done(self.wire.get(f"{self._at}/deployedModels", **page), "the loaded adapters").body
            each = body.get("deployedModels")
            found = [one for one in each if isinstance(one, Mapping)] if isinstance(each, list) else []
            if mine := next((one for one in found if one.get("model") == model and one.get("serverless")), None):
                return mine
            token = str(body.get("nextPageToken") or "")
            if not token:
                return None
            page = {"pageToken": token}

    def _awaited(self, path: str, is_so: Callable[[Told], bool], within_s: float) -> Told:
        until = time.monotonic() + within_s
        while True:
            told = self._done(self.wire.get(path), path)
            if is_so(told):
                return told
            if time.monotonic() > until:
                status = told.body.get("status")
                words = self.wire.said(str(status.get("message") or "")) if isinstance(status, Mapping) else ""
                raise TimeoutError(f"{self.wire.host}: {path} is not ready after {within_s:.0f} s {words}; run again")
            time.sleep(self.poll_s)

    def _done(self, told: Told, what: str) -> Told:
        """As told, where it was done or is there already."""
        if told.is_there or told.status == 409:
            return told
        raise self.wire.refused(told, what)

    @property
    def _account(self) -> str:
        return f"accounts/{self.account}"

    @property
    def _at(self) -> str:
        return f"/v1/{self._account}"

    def _job(self, name: str, body: Mapping[str, object]) -> TuningJob:
        status, progress = _fields(body.get("status")), _fields(body.get("jobProgress"))
        message, code = str(status.get("message") or ""), str(status.get("code") or "")
        return TuningJob(
            id=name,
            state=str(body.get("state") or "").removeprefix("JOB_STATE_") or "UNSPECIFIED",
            reason=self.wire.said(message) if message else "",
            code="" if code == "OK" else code,
            percent=_number(progress.get("percent")),
            usd=_usd(_fields(body.get("estimatedCost"))),
            model=str(body.get("outputModel") or ""),
            base=str(body.get("baseModel") or ""),
        )


def _fields(value: object) -> Mapping[str, object]:
    return {str(name): each for name, each in value.items()} if isinstance(value, Mapping) else {}


def _number(value: object) -> int | None:
    """A count, which its JSON writes as a text; a share of it that is none is none."""
    try:
        return int(str(value)) if value is not None else None
    except ValueError:
        return None


def _usd(money: Mapping[str, object]) -> float | None:
    """Dollars of a sum in whole units and billionths; None where there is none, or in another currency."""
    units, nanos = _number(money.get("units")), _number(money.get("nanos"))
    if money.get("currencyCode") != "USD" or (units is None and nanos is None):
        return None
    usd = (units or 0) + (nanos or 0) / BILLION
    return usd if usd >= 0 else None
