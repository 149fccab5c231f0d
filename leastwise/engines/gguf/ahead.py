"""Packaged weights made ready for llama.cpp in a process of its own, while what else a run begins with is done.

It refuses nothing: whoever needs the file waits for it, and makes it, or says what is wrong with it, where none came.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from leastwise.engines.gguf import files
from leastwise.engines.llama_server import PARENT_POLL_S
from leastwise.models import weights
from leastwise.models.machine import THREADS
from leastwise.stores.shipped import ROOT

log = logging.getLogger("leastwise.engines.gguf.ahead")  # also where it is run

_BEGUN: dict[Path, subprocess.Popen[str]] = {}  # by the state directory


def begin(uris: Sequence[str], home: Path) -> None:
    """Start with those `package://` weights that are not ready yet; nothing is waited for."""
    missing = [uri for uri in uris if not _is_ready(uri, home)]
    if missing and home not in _BEGUN:
        command = [sys.executable, "-m", __name__, str(os.getpid()), str(home), *missing]
        _BEGUN[home] = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )


def wait(home: Path) -> None:
    """Until what was begun has ended, whatever came of it; what it noted is noted here."""
    process = _BEGUN.pop(home, None)
    if process is not None:
        for note in process.communicate()[0].splitlines():
            log.info(note)


def file_of(home: Path, base: Path) -> Path:
    """Where the Q8_0 file of a model's folder is kept."""
    return home / "gguf" / f"{weights.directory_hash(base)}.gguf"


def make(uri: str, base: Path, home: Path) -> Path:
    """The model of a folder as Q8_0, converted and compared once; `uri` is what people call it."""
    gguf = file_of(home, base)
    if not files.is_proven(gguf):
        gguf.parent.mkdir(parents=True, exist_ok=True)
        log.info(f"converting {uri} for llama.cpp and comparing it with transformers, once")
    return files.proven_model(base, gguf, THREADS)


def _is_ready(uri: str, home: Path) -> bool:
    base = weights.described(uri, home)
    return base is not None and files.is_proven(file_of(home, base))


def _end_with_parent(parent: int) -> None:
    """Whoever ends the command ends what it began; a file is whole or not there."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)


def main() -> None:
    """Make ready what the arguments name: who waits, the state directory, then URIs; notes are lines on standard
    output.
    """
    threading.Thread(target=_end_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("leastwise").setLevel(logging.INFO)
    home = Path(sys.argv[2])
    for uri in sys.argv[3:]:
        make(uri, weights.materialize(uri, home), home)


if __name__ == "__main__":
    main()
