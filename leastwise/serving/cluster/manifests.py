"""What is applied for a candidate: a Deployment whose pods serve its bundle and nothing else, and its own Service.

The names and what pods give up are those of infra/kubernetes/base; the Secret and ConfigMap `leastwise` are there. It
applies nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from leastwise.content import content_key
from leastwise.serving.cluster.kubernetes import MANAGER, Object
from leastwise.use_case.settings import Cluster

PORT, DRAIN_S, MOST_NAME = 8100, 30, 63
USE_CASE, STATE = "leastwise/use-case", "leastwise/state"  # labels
RESIDENCY, LISTED = "leastwise/residency", "listed"  # of pods that may reach what the cluster lists and nothing else
BUNDLE, CANDIDATE, VERSION = "leastwise/bundle", "leastwise/candidate", "leastwise/version"  # annotations
JUDGED, SERVING = "judged", "serving"  # states
BUNDLE_VARIABLE, VERSION_VARIABLE = "LEASTWISE_BUNDLE", "LEASTWISE_BUNDLE_VERSION"
POD_NAME, POD_UID = "LEASTWISE_POD_NAME", "LEASTWISE_POD_UID"  # of a flow run's own pod
SECRET = "leastwise"  # noqa: S105 - its name


@dataclass(frozen=True)
class Owner:
    """The pod of a flow run: what is judged goes with it, whoever kills it."""

    name: str
    uid: str

    @classmethod
    def of_this_pod(cls) -> Owner | None:
        """The pod this runs in; None where it runs in none."""
        name, uid = os.environ.get(POD_NAME, ""), os.environ.get(POD_UID, "")
        return cls(name, uid) if name and uid else None

    @property
    def reference(self) -> Object:
        """As objects name their owner."""
        return {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid}


def service_name(use_case: str) -> str:
    """The Service that callers of a use case ask, whoever serves behind it."""
    name = f"endpoint-{use_case}"
    if len(name) <= MOST_NAME and not name.endswith("-"):
        return name
    return f"{name[: MOST_NAME - 9].rstrip('-')}-{content_key(use_case)[:8]}"


def app_name(use_case: str, key: str) -> str:
    """What Deployment, pods and Service of a candidate are called; `key` is of all that determines them."""
    return f"{service_name(use_case)[: MOST_NAME - 13].rstrip('-')}-{key[:12]}"


@dataclass(frozen=True)
class Served:
    """A candidate as it is served: its app, its key and its bundle (a `made://` URI). `is_held`: its use case lists the
    hosts that texts may go to.
    """

    use_case: str
    app: str
    candidate: str
    bundle: str
    is_held: bool = False

    @property
    def labels(self) -> dict[str, str]:
        """By which its pods are selected."""
        return {"app": self.app}

    def objects(self, cluster: Cluster, replicas: int, owner: Owner | None = None, version: str = "") -> list[Object]:
        """Deployment and Service; with an `owner` they are there to be judged, without one to serve. Its pods are the
        same in both, so that what was judged is what serves.
        """
        state = JUDGED if owner or not version else SERVING
        metadata: Object = {
            "name": self.app,
            "labels": {USE_CASE: service_name(self.use_case), STATE: state, "role": "endpoint"}
            | {"app.kubernetes.io/managed-by": MANAGER},
            "annotations": {BUNDLE: self.bundle, CANDIDATE: self.candidate, VERSION: version},
        }
        if owner:
            metadata["ownerReferences"] = [owner.reference]
        spec = {
            "replicas": replicas,
            "progressDeadlineSeconds": max(1, round(cluster.rollout_s)),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": self.labels},
            "template": {"metadata": {"labels": self.pod_labels}, "spec": self._pod(cluster)},
        }
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
        return [deployment, service(self.app, self.app, metadata)]

    @property
    def pod_labels(self) -> dict[str, str]:
        """By which policies and budgets know its pods."""
        held = {RESIDENCY: LISTED} if self.is_held else {}
        return self.labels | {"role": "endpoint", USE_CASE: service_name(self.use_case)} | held

    def _pod(self, cluster: Cluster) -> Object:
        gpus = {"nvidia.com/gpu": str(cluster.gpus)} if cluster.gpus else {}
        memory = {"memory": f"{round(cluster.memory_gb * 1024)}Mi"}
        asked = {"cpu": f"{round(cluster.cpus * 1000)}m"} | memory | gpus
        container = {
            "name": "endpoint",
            "image": cluster.image,
            "args": ["python", "-m", "leastwise.serving.cluster.pod"],
            "envFrom": [
                {"configMapRef": {"name": SECRET}},
                {"secretRef": {"name": "leastwise-providers", "optional": True}},
            ],
            "env": self._variables(),
            "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
            "startupProbe": _probe(5, max(1, round(cluster.rollout_s / 5))),
            "readinessProbe": _probe(2, 3),
            "livenessProbe": _probe(15, 4),
            "resources": {"requests": asked, "limits": memory | gpus},
            "terminationMessagePolicy": "FallbackToLogsOnError",  # why it ended is in the pod's status
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "state", "mountPath": "/state"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - of the pod
        }
        disk = {"emptyDir": {"sizeLimit": f"{round(cluster.disk_gb * 1024)}Mi"}}
        pod: Object = {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": DRAIN_S + 15,
            "containers": [container],
            "volumes": [{"name": "state", **disk}, {"name": "tmp", "emptyDir": {}}],
        }
        if gpus:
            pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        return pod

    def _variables(self) -> list[Object]:
        return [
            {"name": "EXAMPLES", "value": "0"},
            {"name": BUNDLE_VARIABLE, "value": self.bundle},
            {"name": VERSION_VARIABLE, "value": self.candidate},
            _secret("MLFLOW_TRACKING_PASSWORD", "MLFLOW_PASSWORD"),
            _secret("CALLERS_KEYS", "LEASTWISE_ENDPOINT_KEYS"),
            _secret("METRICS_KEY", "METRICS_KEY"),
            {"name": "LEASTWISE_ENDPOINT_KEYS", "value": "$(CALLERS_KEYS),$(METRICS_KEY)"},
            _secret("VLLM_API_KEY", "VLLM_API_KEY"),
        ]


def service(name: str, app: str, metadata: Object) -> Object:
    """A Service that leads to the pods of an app."""
    ports = [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}]
    spec = {"selector": {"app": app}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata | {"name": name}, "spec": spec}


def _secret(variable: str, key: str) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}}


def _probe(every_s: int, failures: int) -> Object:
    asked = {"path": "/health", "port": "http"}
    return {"httpGet": asked, "periodSeconds": every_s, "timeoutSeconds": 5, "failureThreshold": failures}
