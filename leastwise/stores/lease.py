"""Who is still at work: a process leaves a sign of life in a folder, and others tell whether it lives.

A sign is a small file that its process keeps locked and renews. On one kernel the lock decides, so a killed process is
gone at once, whichever container it ran in; from another kernel only the renewals can be seen, and a sign counts as
given up after STALE_S. Process ids decide nothing, for every container counts its own, and neither do paths: each may
mount the folder somewhere else. A file is found by its name in the folders that this process knows.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

from leastwise.stores import storage

FOLDER = "leases"
RENEW_S = 15.0
STALE_S = 120.0  # several renewals, so that a busy machine is not given up
KEPT_S = 7 * 24 * 3600.0  # how long the sign of a dead process is kept: it says on its machine that it is dead
_held: dict[Path, Sign] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Sign:
    """The sign of one process: whose it is and on which machine. `process`: for people only."""

    owner: str
    machine: str
    process: int
    kernel: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """A sign as `text` wrote it, whatever else stands beside it; None where it is none."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(text)
            return cls(str(said["owner"]), said["machine"], int(said["process"]), said["kernel"])
        return None

    @property
    def text(self) -> str:
        """The sign as JSON."""
        return json.dumps(vars(self))

    @property
    def in_words(self) -> str:
        """Who it is, for a message."""
        return f"process {self.process} on {self.machine}"

    @property
    def is_surely_dead(self) -> bool:
        """Whether its process was on this machine and left its file behind; False where that is not known."""
        at = self._file()
        return at is not None and self.kernel == _kernel() and not self._is_this_process and not is_locked(at)

    def is_alive(self, renewed_unix_s: float | None = None, folder: Path | None = None) -> bool:
        """Whether its process lives. `renewed_unix_s`: when it was last heard of by another way than its file;
        `folder`: where that is, if it is known.
        """
        if self._is_this_process:
            return True
        at = folder / self.owner if folder else self._file()
        if at is not None and self.kernel == _kernel() and at.exists():
            return is_locked(at)
        heard = renewed_unix_s if renewed_unix_s is not None else _renewed(at) if at else 0.0
        return time.time() - heard < STALE_S

    @property
    def _is_this_process(self) -> bool:
        return self in _held.values() and _is_mine(self)

    def _file(self) -> Path | None:
        """Where it lies, if in a state directory that this process uses; None where it does not."""
        folders = {storage.home() / FOLDER, *list(_held)}
        name = Path(self.owner).name  # whoever wrote a tag wrote this
        return next((folder / name for folder in folders if name and (folder / name).exists()), None)


def sign(folder: Path) -> Sign:
    """This process's sign in a folder: the same one whenever it is asked for, kept up until the process ends."""
    folder = folder.resolve()
    with _lock:
        held = _held.get(folder)
        if held is None or not _is_mine(held):
            held = _held[folder] = _new(folder, uuid.uuid4().hex[:16])
            _renewer(os.getpid())
        elif not (folder / held.owner).exists():  # the state directory was deleted: who it is stays, for others know it
            held = _held[folder] = _new(folder, held.owner)
        return held


def is_owner_alive(folder: Path, owner: str) -> bool:
    """Whether the process that left this sign in the folder lives; without a file it is long gone."""
    read = _read(folder / owner)
    return read is not None and read.is_alive(folder=folder)


def is_locked(file: Path) -> bool:
    """Whether a living process of this kernel holds a file."""
    try:
        probe = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(probe)
    return False


def _new(folder: Path, owner: str) -> Sign:
    folder.mkdir(parents=True, exist_ok=True)
    _forget_old(folder)
    kernel = _kernel()
    part = folder / f".{owner}"
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)  # stays open: its lock is the sign
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        kernel = ""  # a file system without locks: only the renewals can tell
    made = Sign(owner, platform.node(), os.getpid(), kernel)
    os.write(handle, made.text.encode())
    part.rename(folder / owner)  # whoever finds it finds it locked and whole
    return made


def _read(file: Path) -> Sign | None:
    with contextlib.suppress(OSError):
        return Sign.parse(file.read_text())
    return None


def _renewed(file: Path) -> float:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime
    return 0.0


def _is_mine(held: Sign) -> bool:
    return held.process == os.getpid()  # a forked child is another process, though it inherits what is held


def _forget_old(folder: Path) -> None:
    for file in folder.iterdir():
        if time.time() - _renewed(file) > KEPT_S and not is_locked(file):
            file.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _kernel() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


@lru_cache(maxsize=1)
def _renewer(_process: int) -> None:
    threading.Thread(target=_renew, name="leases", daemon=True).start()


def _renew() -> None:
    while True:
        time.sleep(RENEW_S)
        for folder, held in list(_held.items()):
            with contextlib.suppress(OSError):
                os.utime(folder / held.owner)
