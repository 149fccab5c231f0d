"""Kubernetes' own schemas, strictly: every overlay as kustomize builds it, the Job that each pool's worker makes, a
training's over several nodes, and what self_host applies of a candidate.

`make kube-check` runs it with the packages of infra/kubernetes/*.lock; it needs `kubectl` (1.21 or newer), and no
cluster. What has no schema there (KEDA's) is named, and held by tests/infra/test_kubernetes.py alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import flows  # noqa: F401 - keeps Prefect quiet and its state under the state directory

FOLDER = Path(__file__).parent / "kubernetes"
OVERLAYS = sorted(each.name for each in (FOLDER / "overlays").iterdir())
POOLS = sorted(each.stem for each in (FOLDER / "pools").glob("*.json"))
WITHOUT_SCHEMA = frozenset({"keda.sh/v1alpha1"})


def built(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send. Raises RuntimeError with kustomize's words."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{folder}: {done.stderr.strip()}")
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def job_of(pool: str) -> dict[str, Any]:
    """The Job that prefect-kubernetes makes of a pool's template for a flow run that sets nothing."""
    import asyncio

    from prefect.client.schemas.objects import FlowRun
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    template = json.loads((FOLDER / "pools" / f"{pool}.json").read_text(encoding="utf-8"))
    made = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(template, {}))
    made.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="gentle-owl"))
    manifest: dict[str, Any] = json.loads(json.dumps(made.job_manifest))
    return manifest


def self_hosted() -> list[dict[str, Any]]:
    """What self_host applies of a candidate: while it is judged, and once it serves."""
    from leastwise.serving.cluster import keeping
    from leastwise.serving.cluster.manifests import Owner, Served, service
    from leastwise.use_case.settings import Cluster

    bundle, name = f"made://bundles/key?sha256={'0' * 64}", "endpoint-alert-triage"
    served = Served("alert-triage", f"{name}-1", "key", bundle, is_held=True)
    judged = served.objects(Cluster(), 1, Owner("run", str(uuid.uuid4())))
    callers = service(name, served.app, {"labels": {}})
    by_cpu, by_requests = (Cluster(most_replicas=8, scale_by=how) for how in ("cpu", "requests"))
    kept = [*keeping.objects(by_cpu, name, served.app), keeping.objects(by_requests, name, served.app)[-1]]
    return [*judged, *served.objects(Cluster(gpus=1), 2, version="1"), callers, *kept]


def checked() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object, with where it comes from."""
    for overlay in OVERLAYS:
        yield from ((f"overlay {overlay}", each) for each in built(FOLDER / "overlays" / overlay))
    yield from (("training", each) for each in built(FOLDER / "training"))
    yield from ((f"pool {pool}", job_of(pool)) for pool in POOLS)
    yield from (("self_host", each) for each in self_hosted())


def faults(manifest: dict[str, Any]) -> Iterator[str]:
    """What a strict API server would refuse of it."""
    import kubernetes_validate

    # The validator asks for a name, which the server makes of generateName.
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "generateName"}
    named = manifest | {"metadata": metadata | {"name": metadata.get("name", "made")}}
    try:
        kubernetes_validate.validate(named, "1.37", strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{manifest['kind']} {named['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message[:300]}"


def main() -> int:
    """Exit status: 0 all would be taken, 1 something would not."""
    found, count, skipped = [], 0, set()
    for where, each in checked():
        if each["apiVersion"] in WITHOUT_SCHEMA:
            skipped.add(f"{each['kind']} {each['metadata']['name']}")
            continue
        count += 1
        found += [f"{where}: {fault}" for fault in faults(each)]
    for line in found:
        print(line, file=sys.stderr)
    unseen = ", ".join(sorted(skipped)) or "none"
    print(f"{count} objects checked strictly, {len(found)} faults; no schema for {unseen}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
