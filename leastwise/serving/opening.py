"""Opening a version of a registered model so that it answers requests: the one place where the endpoint meets it.

Its files are fetched once a machine, into the state directory, and checked whenever it is opened.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from filelock import FileLock

from leastwise.models import weights
from leastwise.record.published.candidate_files import BUNDLE, fetch_model, model_key
from leastwise.serving.live import LiveModel
from leastwise.serving.live_model import open_winner
from leastwise.stores import storage


async def open_version(name: str, version: str) -> LiveModel:
    """Load a version of the registered model `name`; BadInput where it cannot be served."""
    folder = await asyncio.to_thread(fetched_version, name, version)
    return await open_winner(folder / BUNDLE, version)


def fetched_version(name: str, version: str) -> Path:
    """The folder of a version's files on this machine, fetched where they are not there yet."""
    folder = storage.home() / "published" / name / model_key(name, version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # of several workers one fetches
        if not folder.exists():
            with weights.built(folder) as unfinished:
                fetch_model(f"models:/{name}/{version}", unfinished)
    return folder
