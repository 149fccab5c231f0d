"""Pools, every deployment of prefect.yaml and the automations of infra/automations.yaml, made at the Prefect server of
PREFECT_API_URL.

`python -m infra.deployments` can be run again: a pool that is there keeps its limit and what people changed of it, an
automation is as its file says but for whether somebody switched it off.
POOL_TYPE is `process` (the default: runs are processes of a worker) or `kubernetes` (each is a Job made of
infra/kubernetes/pools/NAME.json, of the image that CPU_IMAGE or GPU_IMAGE names, with the rights of
RUN_SERVICE_ACCOUNT where that is set). It switches no schedule on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import flows  # noqa: F401 - keeps every process started here quiet and its state under the state directory
from infra.local import POOLS
from leastwise.errors import BadInput
from leastwise.redaction import redacted
from leastwise.stores.shipped import ROOT

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

TEMPLATES = Path(__file__).parent / "kubernetes" / "pools"
AUTOMATIONS = Path(__file__).parent / "automations.yaml"
WITHIN_S, POLL_S = 120.0, 1.0


def template(kind: str, pool: str) -> dict[str, Any] | None:
    """The base job template of a pool; None for Prefect's own. BadInput for an unknown kind."""
    if kind not in ("process", "kubernetes"):
        raise BadInput(f"POOL_TYPE: {kind!r} is neither process nor kubernetes")
    if kind == "process":
        return None
    read: dict[str, Any] = json.loads((TEMPLATES / f"{pool}.json").read_text(encoding="utf-8"))
    variables = read["variables"]["properties"]
    variables["image"]["default"] = os.environ.get(f"{pool.upper()}_IMAGE") or variables["image"]["default"]
    if account := os.environ.get("RUN_SERVICE_ACCOUNT"):
        variables["service_account"]["default"], variables["mounts_token"]["default"] = account, True
    return read


def make_pools(kind: str) -> list[str]:
    """The pools that were missing; BadInput where one is there and of another kind."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    made = []
    with get_client(sync_client=True) as client:
        for name, limit in POOLS.items():
            job = template(kind, name)
            try:
                there = client.read_work_pool(name)
            except ObjectNotFound:
                # Workers on machines have a limit each, so that one machine more takes one run more.
                most = int(limit) if job else None
                pool = WorkPoolCreate(name=name, type=kind, concurrency_limit=most, base_job_template=job or {})
                client.create_work_pool(pool)
                made.append(name)
                continue
            if there.type != kind:
                raise BadInput(f"pool {name} is of type {there.type}, not {kind}; delete it, or set POOL_TYPE")
            if job:
                client.update_work_pool(name, WorkPoolUpdate(base_job_template=job))
    return made


def deploy_all() -> None:
    """Every deployment of prefect.yaml; those that are there are brought up to date."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PWD": str(ROOT)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BadInput(f"prefect deploy: {redacted((done.stdout + done.stderr)[-1500:])}")


def make_automations() -> list[str]:
    """Those that were missing; those that are there are brought up to date. After `deploy_all`, for they name flows."""
    from prefect.client.orchestration import get_client
    from prefect.events.schemas.automations import AutomationCore

    declared = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8"))
    made = []
    with get_client(sync_client=True) as client:
        deployed = [client.read_deployment_by_name(f"{name}/{name}") for name in _deployed()]
        named = {
            "{flows}": [f"prefect.flow.{each.flow_id}" for each in deployed],
            "{resuming}": [f"prefect.deployment.{each.id}" for each in deployed if each.name in declared["resuming"]],
        }
        for each in declared["automations"]:
            related = each["trigger"]["match_related"]
            related["prefect.resource.id"] = named[related["prefect.resource.id"]]
            wanted = AutomationCore(**each)
            there = next(iter(client.read_automations_by_name(wanted.name)), None)
            if there is None:
                client.create_automation(wanted)
                made.append(wanted.name)
            elif _said(there) != _said(wanted):  # an update forgets who was heard of, so none without a change
                client.update_automation(there.id, wanted.model_copy(update={"enabled": there.enabled}))
    return made


def _said(automation: AutomationCore) -> dict[str, Any]:
    return automation.model_dump(include={"description", "trigger", "actions"})


def _deployed() -> list[str]:
    return [str(each["name"]) for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]]


def _once_it_answers(kind: str) -> list[str]:
    import httpx

    until = time.monotonic() + WITHIN_S
    while True:
        try:
            return make_pools(kind)
        except httpx.TransportError as error:
            if time.monotonic() > until:
                raise BadInput(f"PREFECT_API_URL: {redacted(str(error))[:500]}") from None
            time.sleep(POLL_S)


def main() -> int:
    """Exit status: 0 done, 2 what a person can put right."""
    try:
        made = _once_it_answers(os.environ.get("POOL_TYPE") or "process")
        print(f"leastwise: pools made: {', '.join(made) or 'none, all are there'}", file=sys.stderr)
        deploy_all()
        automated = make_automations()
        print(f"leastwise: automations made: {', '.join(automated) or 'none, all are there'}", file=sys.stderr)
    except BadInput as error:
        print(f"leastwise: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
