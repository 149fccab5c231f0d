"""The API server of a cluster, in the five verbs that are needed here: get, list, apply, patch, delete.

How it is reached is said in `access.py`. It keeps nothing and decides nothing; what is applied is owned by the field
manager `leastwise`, so that applying again is no change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leastwise.redaction import redacted
from leastwise.serving.cluster.access import Access, by_account, by_context
from leastwise.use_case.settings import Cluster

if TYPE_CHECKING:
    import httpx

MANAGER = "leastwise"
TIMEOUT_S, MOST_WORDS = 30.0, 600
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
PATHS = {
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "Service": "api/v1/namespaces/{}/services",
    "Pod": "api/v1/namespaces/{}/pods",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "ScaledObject": "apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects",
    "NetworkPolicy": "apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
}

Object = dict[str, Any]  # as the server has it; what is read of it is looked for field by field


class Refused(RuntimeError):  # noqa: N818 - says what happened
    """The API server did not do it; `status` is HTTP's, 0 where it was not reached."""

    def __init__(self, words: str, status: int = 0) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Kubernetes:
    """One namespace of a cluster."""

    access: Access
    namespace: str

    @classmethod
    def of(cls, cluster: Cluster) -> Kubernetes:
        """The cluster of a use case; BadInput where nothing here says how it is reached."""
        return cls(by_context(cluster.context) if cluster.context else by_account(), cluster.namespace)

    def get(self, kind: str, name: str) -> Object | None:
        """An object; None where there is none of that name."""
        try:
            return self._asked("GET", kind, name)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def labelled(self, kind: str, labels: Mapping[str, str]) -> list[Object]:
        """Every object of a kind with these labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        items: list[Object] = self._asked("GET", kind, query={"labelSelector": selector}).get("items", [])
        return items

    def apply(self, manifest: Object) -> Object:
        """Make an object what a manifest says, by the server's own merge."""
        query = {"fieldManager": MANAGER, "force": "true"}
        return self._asked("PATCH", manifest["kind"], manifest["metadata"]["name"], query, manifest, APPLY)

    def patch(self, kind: str, name: str, change: Object) -> Object:
        """Change fields of an object; Refused with 409 where `change` names a resourceVersion that it left."""
        return self._asked("PATCH", kind, name, {"fieldManager": MANAGER}, change, MERGE)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and what it owns; one that is not there is as good."""
        try:
            self._asked("DELETE", kind, name, {"propagationPolicy": "Background"})
        except Refused as error:
            if error.status != 404:
                raise

    def _asked(
        self,
        verb: str,
        kind: str,
        name: str = "",
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        media: str = "application/json",
    ) -> Object:
        import httpx

        url = "/".join(filter(None, (self.access.server, PATHS[kind].format(self.namespace), name)))
        content = None if body is None else json.dumps(body).encode()
        try:
            reply = httpx.request(
                verb,
                url,
                params=dict(query or {}),
                content=content,
                headers=self.access.headers | {"Content-Type": media, "Accept": "application/json"},
                verify=self.access.verify,
                timeout=TIMEOUT_S,
                trust_env=False,
            )
        except (httpx.HTTPError, OSError) as error:
            why = redacted(f"{type(error).__name__}: {error}")[:MOST_WORDS]
            raise Refused(f"the API server {self.access.server} was not reached ({why})") from None
        if reply.is_success:
            done: Object = reply.json()
            return done
        raise Refused(f"{verb} {kind} {name or 'list'}: {_said(reply)}", reply.status_code)


def _said(reply: httpx.Response) -> str:
    """The API server's own words, which name the field or the right that is missing."""
    try:
        words = str(reply.json()["message"])
    except (ValueError, KeyError, TypeError):
        words = reply.text
    return f"{reply.status_code}: {redacted(' '.join(words.split()))[:MOST_WORDS]}"
