"""What a flow run shows in Prefect's UI: tables, links and progress bars. It prints nothing and logs nothing."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from uuid import UUID


def key_of(name: str) -> str:
    """A name as the key of an artifact: small letters, digits and dashes, as Prefect wants it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def publish_markdown(key: str, markdown: str) -> None:
    """A table as a Prefect artifact, where a flow is running; any key will do."""
    from prefect.artifacts import create_markdown_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get():
        create_markdown_artifact(markdown, key=key_of(key))


def publish_link(key: str, url: str, words: str) -> None:
    """A link among a flow run's artifacts, to the MLflow run whose figures belong to it; nothing without an MLflow
    server.
    """
    from prefect.artifacts import create_link_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get() and url.startswith("http"):
        create_link_artifact(url, link_text=words, key=key_of(key), description=words)


class ProgressBars:
    """Progress bars of the flow that is running, one a name, where somebody can watch them: on a server."""

    def __init__(self) -> None:
        self._by_name: dict[str, UUID] = {}

    def show(self, name: str, share: float, words: str) -> None:
        """Move the bar of that name to `share` (0..1); `words` stand beside it."""
        from prefect.artifacts import create_progress_artifact, update_progress_artifact
        from prefect.context import FlowRunContext

        context = FlowRunContext.get()
        if context is None or context.flow_run is None or not os.environ.get("PREFECT_API_URL"):
            return
        if name in self._by_name:
            update_progress_artifact(self._by_name[name], 100 * share, description=words)
            return
        created = create_progress_artifact(100 * share, key=key_of(f"progress {name}"), description=words)
        self._by_name[name] = cast("UUID", created)  # a coroutine only where called from one
