"""Where texts go beside the models: the tracking server and its artifacts, Prefect, Redis, a provider's other address.

Each is held to `requirements.residency.hosts`, this machine always allowed. What is only read (tables on S3) goes
nowhere. It sends nothing but a question for an experiment's place to a tracking server that is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

from leastwise.errors import BadInput, Check
from leastwise.record.client import artifact_root, tracking_uri
from leastwise.redaction import without_secrets
from leastwise.serving.cluster.manifests import service_name
from leastwise.stores.response_cache import REDIS_VARIABLE
from leastwise.stores.shared.address import VARIABLE as STATE_VARIABLE
from leastwise.stores.shared.address import address as state_address
from leastwise.use_case import UseCase
from leastwise.use_case.hosts import host_of, is_allowed

ADDRESS_OF = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL", "google": "GOOGLE_GEMINI_BASE_URL"}
ON_THIS_MACHINE = frozenset({"", "file", "sqlite", "mlflow-artifacts"})  # artifacts through the tracking server itself


def destinations(use_case: UseCase, *also: str) -> list[Check]:
    """One check for every place that texts go to, and for what is `also` written (a traffic log on S3); none where
    residency lists no hosts.
    """
    limits = use_case.requirements.residency
    if limits is None or not limits.hosts:
        return []
    each = (partial(_check, what, address, limits.hosts) for what, address in _addresses(use_case))
    written = (partial(_check, without_secrets(address), address, limits.hosts) for address in also)
    return [*each, *written, partial(_check_artifacts, use_case, limits.hosts)]


def _addresses(use_case: UseCase) -> Iterator[tuple[str, str]]:
    yield "MLFLOW_TRACKING_URI", tracking_uri()
    for variable in ("MLFLOW_REGISTRY_URI", "PREFECT_API_URL", REDIS_VARIABLE):
        yield variable, os.environ.get(variable, "")
    state = state_address()
    if state and not dict(state.options)["host"].startswith("/"):  # else a socket of this machine
        yield STATE_VARIABLE, state.shown  # what was answered is kept there
    training = use_case.training
    for what, storage in (("whole_models", training.whole_models), ("checkpoints", training.checkpoints)):
        yield f"training.{what}", storage
    yield "training.launch.request", training.launch.request  # the rows, as tokens
    if use_case.hosting.endpoint == "cluster" and "self_host" in use_case.reachable_stages:
        # A candidate that is judged there has a Service of its own behind this one's name.
        yield "hosting.cluster.address", use_case.hosting.cluster.address_of(service_name(use_case.name))
    asked = (*use_case.models.candidates, *filter(None, [use_case.judge_model]))
    for provider in {model.uri.partition(":")[0] for model in asked if not model.is_open and not model.base_url}:
        if provider in ADDRESS_OF:
            yield ADDRESS_OF[provider], os.environ.get(ADDRESS_OF[provider], "")


def _check(what: str, address: str, hosts: tuple[str, ...]) -> None:
    """BadInput where texts would go to a host that is not listed, or to one that the address does not tell."""
    parts = urlsplit(address)
    if parts.scheme in ON_THIS_MACHINE and not parts.netloc and "databricks" not in address:
        return
    if parts.scheme == "unix":
        return
    try:
        host = _bucket_host() if parts.scheme == "s3" else host_of(address)
    except ValueError:
        host = ""
    if host and is_allowed(host, hosts):
        return
    raise BadInput(
        f"{what}: texts would go to {host or without_secrets(address)}, which requirements.residency.hosts does not "
        f"list ({', '.join(hosts)}); use one of these or this machine, or add it to the list"
    )


def _check_artifacts(use_case: UseCase, hosts: tuple[str, ...]) -> None:
    address = tracking_uri()
    _check("MLFLOW_TRACKING_URI", address, hosts)
    if urlsplit(address).scheme in ("http", "https"):
        _check("the tracking server's artifacts", artifact_root(use_case.name), hosts)


def _bucket_host() -> str:
    """The host of S3 as MLflow's client reads it."""
    for variable in ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if address := os.environ.get(variable):
            return host_of(address)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return f"s3.{region}.amazonaws.com" if region else "s3.amazonaws.com"
