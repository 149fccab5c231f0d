"""What a flow run shows in Prefect has keys that Prefect takes, whatever it is named after."""

from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run

from tasks.session.artifacts import ProgressBars, publish_markdown


def test_whatever_a_bar_or_a_table_is_named_after_it_is_shown(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)

    @flow(name="shows")
    def shows() -> str:
        bars = ProgressBars()
        for share in (0.1, 0.9):
            bars.show("cache, replayed", share, "of 1,000 requests")
        publish_markdown("gate-fine_tune", "a table")
        publish_markdown("data: Größe (Ä)", "a table")
        return str(flow_run.get_id())

    # Other tests' runs show gates of the same name on the server that the tests share.
    own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(shows())]))
    with get_client(sync_client=True) as client:
        artifacts = {each.key: each.data for each in client.read_artifacts(artifact_filter=own, limit=200)}
    assert artifacts["progress-cache-replayed"] == 90 and artifacts["gate-fine-tune"] == "a table"
    assert "data-gr-e" in artifacts
