"""Where this machine has what was made: found by digest, fetched once, and let go when there is no room.

What was fetched is whole or not there: it is filled beside its place, checked and renamed. What a living process uses
is locked by it, so a kill frees it; only what was published and is not in use is removed, what was used longest ago
first.
It does not know where things are published.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.stores import storage
from leastwise.stores.made.naming import KINDS, Made
from leastwise.stores.remembered import Remembered

ROOM = "LEASTWISE_CACHE_GB"
FOLDER, ELSEWHERE = "made", "fetched"  # facts and locks of each thing; things whose place another thing has
_UNFINISHED = ".fetched-"
_FULL_BYTES = 1_000_000
_in_use: dict[Path, int] = {}  # lock file → its handle, open as long as this process lives

Fill = Callable[[Path], Path]  # into an empty folder; gives back the file or folder that was asked for


class Room(Part):
    """How much of a machine's disk what was published may take."""

    most_gb: float = Field(
        200.0,
        gt=0,
        le=1_000_000,
        description="Gigabytes that adapters, bases, students and tables may take under LEASTWISE_HOME which are "
        "published elsewhere too; what was used longest ago goes first, never what is in use or not published.",
    )

    @property
    def most_bytes(self) -> float:
        """The same in bytes."""
        return self.most_gb * 1e9


def room() -> Room:
    """The bound of this machine, LEASTWISE_CACHE_GB; BadInput where that is no number above 0."""
    said = os.environ.get(ROOM)
    try:
        return Room(most_gb=float(said)) if said else Room()
    except (ValueError, ValidationError):
        raise BadInput(f"{ROOM}: {said!r}; give gigabytes above 0 and at most 1,000,000, or unset it (200)") from None


@dataclass(frozen=True)
class Kept:
    """What was made, in the state directory of one machine."""

    home: Path

    def name(self, kind: str, key: str) -> Made:
        """The name of what lies at its place; BadInput where nothing does."""
        return Made(kind, key, self._digest(self.home / kind / key))

    def find(self, made: Made) -> Path | None:
        """Where this very thing lies, in use from now on until the process ends; None where it does not."""
        for place in filter(Path.exists, self._places(made)):
            with _locked(self._lock(place), fcntl.LOCK_SH) as handle:
                if place.exists() and self._digest(place) == made.sha256:
                    self._hold(place, handle)
                    return place
        return None

    def fetch(self, made: Made, size_bytes: int, published: str, fill: Fill) -> Path:
        """Where this very thing lies, filled where it is not here yet: of several processes one does it.

        `published` is where it is kept, as `mark_published` takes it. BadInput where it is not what was published, or
        the disk is full.
        """
        while (found := self.find(made)) is None:  # again where another process let it go in between
            with _locked(self._lock(made.place(self.home), "fetching"), fcntl.LOCK_EX):
                if self.find(made) is None:
                    self.mark_published(self._filled(made, size_bytes, published, fill), made, published)
        return found

    def mark_published(self, place: Path, made: Made, published: str) -> None:
        """Note that what lies here can be had from elsewhere, so that it may be removed when there is no room."""
        Remembered(self.home / FOLDER).put(_fact(place), {"sha256": made.sha256, "published": published})

    def _places(self, made: Made) -> tuple[Path, Path]:
        return made.place(self.home), self.home / ELSEWHERE / f"{made.sha256[:24]}-{made.key}"

    def _filled(self, made: Made, size_bytes: int, published: str, fill: Fill) -> Path:
        place = self._free_place(made)
        place.parent.mkdir(parents=True, exist_ok=True)
        for left in place.parent.glob(f"{_UNFINISHED}{place.name}-*"):  # by a kill: nobody else fills, it is locked
            shutil.rmtree(left, ignore_errors=True)
        self.make_room(size_bytes, published)
        scratch = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{place.name}-", dir=place.parent))
        try:
            filled = fill(scratch)
            if storage.sha256(filled) != made.sha256:
                raise BadInput(
                    f"{made.uri}: what is published in {published} is not what was made: its files were damaged or "
                    f"changed. Delete its run there ({made.kind}/{made.key}), and climb again: it is made anew"
                )
            place = self._free_place(made)  # something else may have been made at the first meanwhile
            filled.rename(place)
        except Exception as error:  # a client may have put the disk's own words into an error of its own
            if isinstance(error, BadInput) or not (_is_full(error) or _free(self.home) < _FULL_BYTES):
                raise
            raise BadInput(_full(self.home, size_bytes)) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return place

    def _free_place(self, made: Made) -> Path:
        """Where it is put: where it would be made, else in a place of its own, which only a damaged copy can have."""
        place, own = self._places(made)
        own.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            return place
        if own.exists():
            shutil.rmtree(own) if own.is_dir() else own.unlink()
        return own

    def make_room(self, size_bytes: int, published: str) -> None:
        """Remove what was used longest ago until so much fits within the bound and on the disk; BadInput where it does
        not, with what to do.
        """
        most, there = room().most_bytes, sorted(self._removable(published))
        taken = sum(each.size_bytes for each in there)
        for each in there:
            if taken + size_bytes <= most and _free(self.home) >= size_bytes + storage.LEAST_FREE_BYTES:
                return
            taken -= each.size_bytes if self._remove(each.place) else 0
        if size_bytes and _free(self.home) < size_bytes + storage.LEAST_FREE_BYTES:
            raise BadInput(_full(self.home, size_bytes))

    def _removable(self, published: str) -> Iterator[_Thing]:
        """What lies here and is published at that very place."""
        facts = Remembered(self.home / FOLDER)
        for place in (each for kind in (*KINDS, ELSEWHERE) for each in (self.home / kind).glob("[!.]*")):
            fact = facts.get(_fact(place))
            if fact.get("published") == published and fact.get("sha256") == self._digest(place):
                yield _Thing(_used(self._lock(place), place), place, sum(size for _, size, _ in _stamps(place)))

    def _remove(self, place: Path) -> bool:
        """Take it away unless it is in use; whether it is gone."""
        lock = self._lock(place)
        if lock in _in_use:
            return False
        try:
            with (
                _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB),
                tempfile.TemporaryDirectory(dir=place.parent, prefix=_UNFINISHED) as gone,
            ):
                place.rename(Path(gone, "gone"))  # whole, or not there
        except OSError:
            return False
        return True

    def _digest(self, place: Path) -> str:
        """As `storage.sha256`, remembered for as long as the files are the same."""
        known, key = Remembered(self.home / "digests"), content_key(str(place), json.dumps(_stamps(place)))
        digest = known.get(key).get("sha256")
        if not isinstance(digest, str):
            digest = storage.sha256(place)
            known.put(key, {"file": str(place), "sha256": digest})
        return digest

    def _lock(self, place: Path, what: str = "used") -> Path:
        return self.home / FOLDER / f"{_fact(place)}.{what}"

    def _hold(self, place: Path, handle: int) -> None:
        lock = self._lock(place)
        with contextlib.suppress(OSError):
            os.utime(lock)
        if lock in _in_use and not _is_still(lock, _in_use[lock]):
            os.close(_in_use.pop(lock))  # of a state directory that was deleted
        if lock not in _in_use:
            _in_use[lock] = os.dup(handle)  # the lock is the description's: it stays when the other handle is closed


@dataclass(frozen=True, order=True)
class _Thing:
    used_unix_s: float
    place: Path
    size_bytes: int


def _fact(place: Path) -> str:
    return f"{place.parent.name}-{place.name}"


def _stamps(place: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of every file."""
    files = [place] if place.is_file() else sorted(each for each in place.rglob("*") if each.is_file())
    stats = ((each, each.stat()) for each in files)
    return [(each.relative_to(place).as_posix(), status.st_size, status.st_mtime_ns) for each, status in stats]


def _used(lock: Path, place: Path) -> float:
    with contextlib.suppress(OSError):
        return (lock if lock.exists() else place).stat().st_mtime
    return 0.0


def _free(home: Path) -> int:
    return shutil.disk_usage(home).free


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _full(home: Path, size_bytes: int) -> str:
    return (
        f"{home}: no room for {size_bytes / 1e6:,.0f} MB that another machine made ({_free(home) / 1e6:,.0f} MB free). "
        f"Free some space, or move the state with LEASTWISE_HOME; {ROOM} bounds what is kept of such files"
    )


@contextmanager
def _locked(file: Path, how: int) -> Iterator[int]:
    """A lock on a file, as long as the block lasts; where the file system has none, or it was removed meanwhile, as
    good as it gets.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _flock(handle, how)
            if not _is_still(file, handle):  # the state directory was deleted while this one waited
                continue
            yield handle
            return
        finally:
            os.close(handle)


def _flock(handle: int, how: int) -> None:
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks: what is in use cannot be told, so nothing is removed
        if how & fcntl.LOCK_NB:
            raise


def _is_still(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(handle))
    except OSError:
        return False
