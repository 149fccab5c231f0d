"""Opening a version of a registered model so that it answers requests: the one place where the endpoint meets it."""

from __future__ import annotations

from leastwise.errors import BadInput
from leastwise.serving.live import LiveModel


async def open_version(name: str, version: str) -> LiveModel:
    """Load a version of the registered model `name`; BadInput where it cannot be served."""
    raise BadInput(f"models:/{name}/{version}: version {version} has no served form yet; register it again")
