"""A Deployment awaited: until all its pods answer, or with the reason why they do not, in the cluster's own words."""

from __future__ import annotations

import time
from collections.abc import Iterator

from leastwise.redaction import redacted
from leastwise.serving.cluster.kubernetes import Kubernetes, Object, Refused

POLL_S = 1.0
MOST_RESTARTS = 3  # of a pod that ends again and again, before it is given up
MOST_WORDS = 800


class NotReady(RuntimeError):  # noqa: N818 - says what happened
    """Pods that did not come up; the message is the cluster's reason."""


def wait_until_ready(api: Kubernetes, app: str, within_s: float) -> None:
    """Until every pod of a Deployment as it stands is ready; NotReady with the reason where that does not come, at once
    where it is sure not to.
    """
    began, away = time.monotonic(), ""
    until = began + within_s
    while True:
        try:
            deployment = api.get("Deployment", app)
            if deployment is None:
                raise NotReady(f"Deployment {app} was deleted while it was awaited")
            if is_ready(deployment):
                return
            pods = api.labelled("Pod", {"app": app})
            if _has_given_up(deployment, pods) or time.monotonic() > until:
                took_s = time.monotonic() - began
                raise NotReady(f"Deployment {app} is not ready after {took_s:.0f} s: {reason(deployment, pods)}")
            away = ""
        except Refused as error:
            if error.status and error.status < 500:
                raise
            away = str(error)  # an API server that is upgraded is away for a minute
        if away and time.monotonic() > until:
            raise NotReady(f"Deployment {app} could not be followed: {away}")
        time.sleep(POLL_S)


def is_ready(deployment: Object) -> bool:
    """Whether all pods of its present form are there and answer, and none of an earlier one is left."""
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    counts = [status.get(name, 0) for name in ("updatedReplicas", "availableReplicas", "readyReplicas", "replicas")]
    return bool(seen and all(count == wanted for count in counts))


def reason(deployment: Object, pods: list[Object]) -> str:
    """Why it is not ready: of its pods, else of itself."""
    said = list(dict.fromkeys([*(each for pod in pods for each in _of_pod(pod)), *_of_deployment(deployment)]))
    unsaid = "its pods do not say why" if pods else "no pod was made, and nobody says why"
    return redacted("; ".join(said) or unsaid)[:MOST_WORDS]


def _has_given_up(deployment: Object, pods: list[Object]) -> bool:
    stuck = any(each.get("reason") == "ProgressDeadlineExceeded" for each in _conditions(deployment))
    return stuck or any(each.get("restartCount", 0) >= MOST_RESTARTS for pod in pods for each in _containers(pod))


def _of_pod(pod: Object) -> Iterator[str]:
    for each in _conditions(pod):
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            yield _words("not scheduled", each)
    for each in _containers(pod):
        waiting = each.get("state", {}).get("waiting", {})
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            yield _words("waiting", waiting)
        for ended in (each.get("state", {}).get("terminated"), each.get("lastState", {}).get("terminated")):
            if ended:
                yield _words(f"ended with status {ended.get('exitCode')}", ended)
        if "running" in each.get("state", {}) and not each.get("ready"):
            yield "it runs and does not answer at /health"


def _of_deployment(deployment: Object) -> Iterator[str]:
    for each in _conditions(deployment):
        if each.get("type") == "ReplicaFailure" or (each.get("type"), each.get("status")) == ("Progressing", "False"):
            yield _words(str(each.get("type")), each)


def _words(what: str, said: Object) -> str:
    message = " ".join(str(said.get("message") or "").split())
    return ": ".join(filter(None, (what, str(said.get("reason") or ""), message)))


def _conditions(each: Object) -> list[Object]:
    conditions: list[Object] = each.get("status", {}).get("conditions", [])
    return conditions


def _containers(pod: Object) -> list[Object]:
    containers: list[Object] = pod.get("status", {}).get("containerStatuses", [])
    return containers
