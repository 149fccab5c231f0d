"""What was made, wherever: named for others when it is done, and brought here where it is used.

On one machine with a tracking store of its own nothing is copied: a thing lies where it was made, and only its name is
handed on. Where the tracking server keeps its files elsewhere, each thing is published there once, by its digest, and
whoever needs it fetches it once. What is published first under a key is what everybody goes by.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.models import weights
from leastwise.record.handover.publications import Publication, Publications, is_within
from leastwise.stores import storage
from leastwise.stores.made.kept import ELSEWHERE, Kept
from leastwise.stores.made.naming import BASES, STUDENTS, Made, is_made
from leastwise.stores.uris import is_s3

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Handover:
    """What was made, as one machine has it: its state directory and its tracking server."""

    client: MlflowClient
    home: Path
    whole_models: str = ""  # an s3:// prefix, for those that are no adapter

    @cached_property
    def is_shared(self) -> bool:
        """Whether what is published can be had from another machine, or outlives this state directory."""
        return not is_within(self._publications.location, self.home)

    def bring(self, kind: str, key: str) -> bool:
        """Whether this thing is at its place, `home / kind / key`, fetched where somebody else made it."""
        kept, place = Kept(self.home), self.home / kind / key
        if not self.is_shared:
            return place.exists()
        if place.exists():
            kept.find(kept.name(kind, key))  # in use from now on
        elif known := self._publications.of_key(kind, key):
            self._fetch(known)
        return place.exists()

    def hand_over(self, kind: str, key: str) -> Made:
        """The name of what was made at its place; published where that is of use, and not done yet."""
        kept = Kept(self.home)
        made, place = kept.name(kind, key), self.home / kind / key
        if not self.is_shared:
            return made
        known = self._publications.of_key(kind, key)
        if known is None:
            log.info(f"publishing {kind}/{key} in MLflow, once")
            is_whole = kind in (BASES, STUDENTS) and not (place / "adapter_config.json").exists()
            self._publications.publish(made, place, self.whole_models if is_whole else "")
            known = self._publications.of_key(kind, key)  # another machine may have been first
        assert known is not None
        if known.made == made:
            kept.mark_published(place, made, self._publications.in_words)
            kept.find(made)
            kept.make_room(0, self._publications.in_words)
        return known.made

    def path(self, uri: str, revision: str = "") -> Path:
        """Where this thing lies on this machine, fetched once if need be. BadInput where it can be had from nowhere.

        On one machine what was made anew under the same key is that thing too, though not to the last byte: weights
        where they have this `revision`, if one is given.
        """
        made = Made.parse(uri)
        found = Kept(self.home).find(made)
        if found is not None:
            return found
        known = self._publications.of(made) if self.is_shared else None
        if known is not None:
            return self._fetch(known)
        place = made.place(self.home)
        if place.exists() and revision in ("", made.key, weights.directory_hash(place)):
            return place
        why = "its files are not those that were made" if place.exists() else "it is not here"
        raise BadInput(
            f"{uri}: {why} ({place}) and it is not published at {self._publications.location}; run what made it once "
            "more (a climb, a retraining): what is missing is made again, and answers that were bought are reused"
        )

    def weights_dir(self, made: Weights) -> Path:
        """The directory of weights that a stage made, or that lie at a path or `s3://` prefix."""
        if is_made(made.uri):
            return self.path(made.uri, made.revision)
        if is_s3(made.uri):
            return _fetched(made, self.home / ELSEWHERE / made.revision)
        return storage.fetch(made.uri, self.home)

    def here(self, candidate: Candidate) -> Candidate:
        """A candidate whose model and weights, where they were made or lie on S3, are paths on this machine."""
        made, update = candidate.weights, dict[str, object]()
        if is_made(candidate.model):
            update["model"] = self.path(candidate.model, candidate.revision).as_uri()
        if made and (is_made(made.uri) or is_s3(made.uri)):
            update["weights"] = made.model_copy(update={"uri": self.weights_dir(made).as_uri()})
        return candidate.model_copy(update=update)

    def _fetch(self, known: Publication) -> Path:
        log.info(f"fetching {known.made.kind}/{known.made.key} ({known.size_bytes / 1e6:,.1f} MB) from MLflow, once")
        download = partial(self._publications.download, known)
        return Kept(self.home).fetch(known.made, known.size_bytes, self._publications.in_words, download)

    @cached_property
    def _publications(self) -> Publications:
        return Publications(self.client)


def as_loaded() -> Handover:
    """What was made, for whoever loads a model: from the tracking server that MLflow itself loads it from."""
    from mlflow import MlflowClient

    return Handover(MlflowClient(), storage.home())


def _fetched(made: Weights, target: Path) -> Path:
    """Weights that lie at an `s3://` prefix, fetched once; BadInput where they are others than were named."""
    if target.exists():
        return target
    with weights.built(target) as folder:
        found = storage.fetch(made.uri, folder)
        if weights.directory_hash(found) != made.revision:
            raise BadInput(f"{made.uri}: holds other weights than those of revision {made.revision}; put those back")
        for path in found.iterdir():
            path.rename(folder / path.name)
        found.rmdir()
    return target
