"""Which use cases have a champion at a tracking server. It moves no alias."""

from __future__ import annotations

from leastwise.record.published.moves import CHAMPION


def champions_at(tracking_uri: str) -> list[str]:
    """The use cases that have a champion at this tracking server, by name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    found, token = list[str](), None
    while token != "":
        page = client.search_registered_models(max_results=100, page_token=token)
        found += [str(model.name) for model in page if CHAMPION in model.aliases]
        token = page.token or ""
    return sorted(found)
