"""What keeps the pods that callers are led to: not all taken away at once, and as many as their requests need.

One of each a use case, by the name of its Service, so that a rollback takes it along. Who serves is decided elsewhere.
"""

from __future__ import annotations

from leastwise.serving.cluster.kubernetes import MANAGER, Kubernetes, Object, Refused
from leastwise.serving.cluster.manifests import PORT, USE_CASE
from leastwise.use_case.settings import Cluster

SCALERS = {"requests": "ScaledObject", "cpu": "HorizontalPodAutoscaler"}
READS_METRICS = "candidates"  # the TriggerAuthentication of infra/kubernetes/components/self-host
BUSY_PERCENT, CALM_S = 70, 300  # of the processors a pod asks for; for so long before one is taken away


def objects(cluster: Cluster, service: str, app: str) -> list[Object]:
    """A disruption budget over all pods of the use case, and an autoscaler of the app where there may be more."""
    metadata = {"name": service, "labels": {USE_CASE: service, "app.kubernetes.io/managed-by": MANAGER}}
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {USE_CASE: service}}},
    }
    if cluster.most_replicas <= cluster.replicas:
        return [budget]
    made = _by_requests if cluster.scale_by == "requests" else _by_processors
    return [budget, made(cluster, metadata, app)]


def keep(api: Kubernetes, cluster: Cluster, service: str, app: str) -> list[str]:
    """Apply them; gives back what the cluster did not take, in its words."""
    wanted, refused = objects(cluster, service, app), []
    for each in wanted:
        try:
            api.apply(each)
        except Refused as error:
            refused.append(str(error))
    for kind in set(SCALERS.values()) - {each["kind"] for each in wanted}:
        try:
            api.delete(kind, service)
        except Refused as error:
            if error.status != 403:  # who may not delete one has made none
                refused.append(str(error))
    return refused


def _by_requests(cluster: Cluster, metadata: Object, app: str) -> Object:
    """KEDA's: requests that are answered or wait at the endpoint's pods, all of them together."""
    counted = {
        "url": f"http://{metadata['name']}.{cluster.namespace}.svc:{PORT}/metrics",
        "format": "prometheus",
        "valueLocation": "leastwise_in_flight",
        "aggregateFromKubeServiceEndpoints": "true",
        "aggregationType": "sum",
        "targetValue": str(cluster.in_flight_per_pod),
        "authMode": "bearer",
    }
    spec = {
        "scaleTargetRef": {"name": app},
        "minReplicaCount": cluster.replicas,
        "maxReplicaCount": cluster.most_replicas,
        "pollingInterval": 15,
        "cooldownPeriod": CALM_S,
        "triggers": [{"type": "metrics-api", "metadata": counted, "authenticationRef": {"name": READS_METRICS}}],
    }
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata, "spec": spec}


def _by_processors(cluster: Cluster, metadata: Object, app: str) -> Object:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": app},
        "minReplicas": cluster.replicas,
        "maxReplicas": cluster.most_replicas,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": BUSY_PERCENT}},
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": CALM_S}},
    }
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}
