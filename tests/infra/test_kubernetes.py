"""The Kubernetes files agree with each other, with compose and the code; `make kube-check` holds them to the schemas.

They are put together here as kustomize does, as far as these files need it: resources, components, JSON patches.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonpatch
import pytest
import yaml

from infra import env_file, local
from infra.deployments import TEMPLATES, template
from leastwise.errors import BadInput
from leastwise.part import changed
from leastwise.serving.cluster import keeping, residency
from leastwise.serving.cluster.manifests import RESIDENCY, Served
from leastwise.serving.settings import EndpointSettings
from leastwise.stores.shipped import ROOT
from leastwise.use_case.settings import Cluster

KUBERNETES = ROOT / "infra" / "kubernetes"
OVERLAYS = ("cpu", "gpu", "residency", "self-host")
SECRETS = set(env_file.EMPTY.findall(env_file.EXAMPLE.read_text()))
Object = dict[str, Any]


def put_together(folder: Path) -> list[Object]:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    made: list[Object] = []
    for name in [*kustomization.get("resources", ()), *kustomization.get("components", ())]:
        path = folder / name
        if not path.is_dir():
            made += [each for each in yaml.safe_load_all(path.read_text()) if each]
        elif "component" not in name:
            made += put_together(path)
        else:
            made += put_together(path)
            made = patched(made, yaml.safe_load((path / "kustomization.yaml").read_text()).get("patches", ()))
    return made


def patched(objects: list[Object], patches: list[Object]) -> list[Object]:
    for patch in patches:
        found = [each for each in objects if is_meant(each, patch["target"])]
        assert found, patch["target"]
        for each in found:
            jsonpatch.apply_patch(each, yaml.safe_load(patch["patch"]), in_place=True)
    return objects


def is_meant(each: Object, target: Object) -> bool:
    return (each["kind"], each["metadata"]["name"]) == (target["kind"], target["name"])


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return put_together(KUBERNETES / "overlays" / request.param)


def of(objects: list[Object], *kinds: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] in kinds}


def pool_pods() -> dict[str, Object]:
    """Pods of flow runs."""
    read = {pool: json.loads((TEMPLATES / f"{pool}.json").read_text()) for pool in local.POOLS}
    return {f"run-{pool}": each["job_configuration"]["job_manifest"]["spec"]["template"] for pool, each in read.items()}


def pods(objects: list[Object]) -> dict[str, Object]:
    return {name: each["spec"]["template"] for name, each in of(objects, "Deployment", "Job").items()} | pool_pods()


def containers(pod: Object) -> Iterator[Object]:
    yield from (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])


def policies(objects: list[Object], role: str) -> list[Object]:
    """Those that hold for pods of a role."""
    return [
        each["spec"] for each in of(objects, "NetworkPolicy").values() if selects(each["spec"]["podSelector"], role)
    ]


def selects(selector: Object, role: str) -> bool:
    return residency.selects(selector, {"role": role})


def rules(objects: list[Object], role: str, way: str) -> list[Object]:
    return [rule for each in policies(objects, role) for rule in each.get(way.lower(), ())]


def test_every_file_is_part_of_an_installation() -> None:
    named = {KUBERNETES / "overlays" / each for each in OVERLAYS} | {KUBERNETES / "training"}
    for file in KUBERNETES.rglob("kustomization.yaml"):
        read = yaml.safe_load(file.read_text())
        named |= {(file.parent / each).resolve() for each in (*read.get("resources", ()), *read.get("components", ()))}
    files = {each for each in KUBERNETES.rglob("*.yaml") if each.name != "kustomization.yaml"}
    folders = {each.parent for each in KUBERNETES.rglob("kustomization.yaml")}
    assert files | folders == named


def test_every_secret_and_setting_that_is_named_is_there(objects: list[Object]) -> None:
    settings = of(objects, "ConfigMap")["leastwise"]["data"]
    for pod in pods(objects).values():
        for container in containers(pod):
            sources = [each for each in container.get("envFrom", ()) if not each.get("secretRef", {}).get("optional")]
            assert all(each == {"configMapRef": {"name": "leastwise"}} for each in sources)
            known = set(settings) if sources else set()
            for each in container["env"]:
                secret = each.get("valueFrom", {}).get("secretKeyRef")
                assert not secret or (secret["name"] == "leastwise" and secret["key"] in SECRETS), each
                assert set(re.findall(r"\$\((\w+)\)", each.get("value", ""))) <= known, each
                known.add(each["name"])


def test_no_manifest_holds_a_secret() -> None:
    for file in (*KUBERNETES.rglob("*.yaml"), *KUBERNETES.rglob("*.json")):
        text = file.read_text()
        assert "kind: Secret\n" not in text
        for line in text.splitlines():
            assert not re.search(
                r"(PASSWORD|_KEY|AUTH_STRING)\b[\"']?, value: \"(?!\$\(|PREFECT_API_AUTH_STRING)", line
            ), line


def test_services_lead_to_pods_by_the_ports_that_addresses_name(objects: list[Object]) -> None:
    services = of(objects, "Service")
    for name, service in services.items():
        (target,) = [
            pod
            for pod in pods(objects).values()
            if pod["metadata"]["labels"].get("app") == service["spec"]["selector"]["app"]
        ]
        (port,) = service["spec"]["ports"]
        named = {each["name"]: each["containerPort"] for each in target["spec"]["containers"][0]["ports"]}
        assert named[port["targetPort"]] == port["port"], name
    text = "".join(file.read_text() for file in KUBERNETES.rglob("*.yaml"))
    for host, number in re.findall(r"https?://([a-z][a-z0-9-]*)(?:\.leastwise\.svc)?:(\d+)", text):
        if host in {*services, "vllm"} and host in services:
            assert services[host]["spec"]["ports"][0]["port"] == int(number)
    settings = changed(
        EndpointSettings(),
        of(objects, "Deployment")["endpoint"]["spec"]["template"]["spec"]["containers"][0]["args"][4],
    )
    assert (settings.host, settings.port) == ("0.0.0.0", services["endpoint"]["spec"]["ports"][0]["port"])
    assert (
        settings.drain_s
        < of(objects, "Deployment")["endpoint"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    )


def test_flow_runs_get_what_workers_get_on_one_machine() -> None:
    compose = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())
    wanted = set(compose["x-worker"]["environment"]) - {
        "PREFECT_API_AUTH_STRING"
    }  # the worker hands it on, by reference
    settings = set(of(put_together(KUBERNETES / "base"), "ConfigMap")["leastwise"]["data"])
    for pod in pool_pods().values():
        (container,) = containers(pod)
        assert wanted <= settings | {each["name"] for each in container["env"]}
    worker = of(put_together(KUBERNETES / "base"), "Deployment")["worker-cpu"]["spec"]["template"]["spec"][
        "containers"
    ][0]
    handed = {each["name"]: each.get("value") for each in worker["env"]}
    prefix = "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET"
    assert (handed[f"{prefix}_NAME"], handed[f"{prefix}_KEY"]) == ("leastwise", "PREFECT_API_AUTH_STRING")


def test_every_variable_of_ours_is_one_that_the_code_reads(objects: list[Object]) -> None:
    code = "".join(
        file.read_text() for top in ("leastwise", "tasks", "flows", "infra") for file in (ROOT / top).rglob("*.py")
    )
    named = {each["name"] for pod in pods(objects).values() for c in containers(pod) for each in c["env"]}
    named |= set(of(objects, "ConfigMap")["leastwise"]["data"])
    ours = {name for name in named if name.startswith("LEASTWISE_")}
    assert len(ours) >= 3
    assert [name for name in ours if f'"{name}"' not in code] == []


def test_every_pod_gives_up_its_rights_and_says_what_it_needs(objects: list[Object]) -> None:
    for name, pod in pods(objects).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"], name
        assert mounts_token(name, spec) == name.startswith("worker-"), name
        for container in containers(pod):
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"], name
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert {each["name"] for each in container["volumeMounts"]} <= {each["name"] for each in spec["volumes"]}
    for name, each in of(objects, "Deployment").items():
        (container,) = each["spec"]["template"]["spec"]["containers"]
        assert {"startupProbe", "livenessProbe"} <= set(container), name


def mounts_token(name: str, spec: Object) -> bool:
    mounts: Any = spec.get("automountServiceAccountToken", True)
    if not name.startswith("run-"):
        return bool(mounts)
    variables = json.loads((TEMPLATES / f"{name.removeprefix('run-')}.json").read_text())["variables"]["properties"]
    assert mounts == "{{ mounts_token }}"
    return bool(variables["mounts_token"]["default"])


def test_every_module_that_is_run_is_there_and_images_name_no_registry(objects: list[Object]) -> None:
    for pod in pods(objects).values():
        for container in containers(pod):
            words = container.get("args", ())
            if list(words[:2]) == ["python", "-m"]:
                assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file()
            assert "." not in container["image"].partition("/")[0] or "/" not in container["image"]


def test_all_is_closed_that_is_not_opened_both_ways(objects: list[Object]) -> None:
    closed = of(objects, "NetworkPolicy")["closed"]["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    roles = {pod["metadata"]["labels"]["role"] for pod in pods(objects).values()}
    asked = {"prefect": ("worker", "run", "endpoint", "setup"), "mlflow": ("worker", "run", "endpoint", "setup")}
    for server, askers in asked.items():
        for role in roles:
            opened = any(
                selects(to.get("podSelector", {"matchLabels": {"role": ""}}), server)
                for rule in rules(objects, role, "Egress")
                for to in rule.get("to", ())
                if "namespaceSelector" not in to and "ipBlock" not in to
            )
            assert opened == (role in askers), (role, server)


@pytest.mark.parametrize("overlay", ["gpu", "residency"])
def test_vllm_is_reached_by_the_endpoint_alone_and_reaches_nobody(overlay: str) -> None:
    objects = put_together(KUBERNETES / "overlays" / overlay)
    (incoming,) = rules(objects, "vllm", "Ingress")
    assert incoming["from"] == [{"podSelector": {"matchLabels": {"role": "endpoint"}}}]
    assert [each for each in rules(objects, "vllm", "Egress") if each["ports"][0]["port"] != 53] == []
    vllm = of(objects, "Deployment")["vllm"]["spec"]["template"]["spec"]
    words = vllm["containers"][0]["args"]
    assert int(words[words.index("--shutdown-timeout") + 1]) < vllm["terminationGracePeriodSeconds"]
    assert "VLLM_API_KEY" in {each["name"] for each in vllm["containers"][0]["env"]}


def test_with_residency_no_pod_has_a_way_out_but_to_what_is_listed() -> None:
    objects = put_together(KUBERNETES / "overlays" / "residency")
    for name, pod in pods(objects).items():
        for rule in rules(objects, pod["metadata"]["labels"]["role"], "Egress"):
            assert rule.get("to"), f"{name}: a rule without `to` opens its ports to everywhere"
            for to in rule["to"]:
                cidr = to.get("ipBlock", {}).get("cidr", "192.0.2.0/32")
                assert cidr.endswith("/32"), f"{name}: {cidr}"
    without = put_together(KUBERNETES / "overlays" / "gpu")
    ways = [to for rule in rules(without, "run", "Egress") for to in rule["to"] if "ipBlock" in to]
    assert [way["ipBlock"]["cidr"] for way in ways] == ["0.0.0.0/0"]
    assert "169.254.0.0/16" in ways[0]["ipBlock"]["except"]  # where clouds hand out credentials


@pytest.mark.parametrize("pool", local.POOLS)
def test_a_pools_job_is_what_the_worker_takes_and_what_a_strict_server_takes(pool: str) -> None:
    job = json.loads((TEMPLATES / f"{pool}.json").read_text())["job_configuration"]["job_manifest"]
    # As prefect-kubernetes 0.8.0 looks at it: these two are wanted in the pod, where no server knows them; it counts
    # those of the Job, since the difference is then a move.
    wanted = {"parallelism": 1, "completions": 1, "restartPolicy": "Never", "containers": [{"name": "prefect-job"}]}
    base = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"annotations": {}, "labels": {}}}
    filled = job | {"metadata": job["metadata"] | {"annotations": {}, "labels": {}}}
    difference = jsonpatch.JsonPatch.from_diff(filled, base | {"spec": {"template": {"spec": wanted}}})
    assert [each for each in difference if each["op"] in ("add", "replace")] == []
    assert not {"parallelism", "completions"} & set(job["spec"]["template"]["spec"])
    assert (job["spec"]["parallelism"], job["spec"]["completions"], job["spec"]["backoffLimit"]) == (1, 1, 0)
    gpus = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
    assert gpus == ("{{ gpus }}" if pool == "gpu" else None)


@pytest.mark.parametrize("pool", local.POOLS)
def test_every_blank_of_a_pools_template_is_a_variable_that_can_be_set(pool: str) -> None:
    text = (TEMPLATES / f"{pool}.json").read_text()
    assert set(re.findall(r"\{\{ (\w+) \}\}", text)) == set(json.loads(text)["variables"]["properties"])


def test_pools_get_the_image_of_the_cluster_and_an_unknown_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_IMAGE", "ours:7")
    made = {pool: template("kubernetes", pool) or {} for pool in local.POOLS}
    images = {pool: each["variables"]["properties"]["image"]["default"] for pool, each in made.items()}
    assert images == {"cpu": "leastwise:cpu", "gpu": "ours:7"}
    assert template("process", "gpu") is None
    with pytest.raises(BadInput, match="POOL_TYPE"):
        template("docker", "gpu")


def test_what_scales_and_what_is_kept_alive_is_there(objects: list[Object]) -> None:
    deployments = of(objects, "Deployment")
    for each in of(objects, "PodDisruptionBudget").values():
        assert each["spec"]["selector"]["matchLabels"]["app"] in deployments, "candidates' are applied with them"
    for each in of(objects, "HorizontalPodAutoscaler", "ScaledObject").values():
        assert each["spec"]["scaleTargetRef"]["name"] in deployments
    assert deployments["endpoint"]["spec"]["replicas"] > 1
    for scaled in of(objects, "ScaledObject").values():
        (trigger,) = scaled["spec"]["triggers"]
        counters = (ROOT / "leastwise" / "serving" / "counters.py").read_text()
        assert f'"{trigger["metadata"]["valueLocation"].removeprefix("leastwise_")}"' in counters
        known = {each["spec"]["secretTargetRef"][0]["key"] for each in of(objects, "TriggerAuthentication").values()}
        assert known == {"METRICS_KEY"} <= SECRETS


def test_flow_runs_have_rights_in_the_cluster_where_self_host_is_judged_there_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for overlay in OVERLAYS:
        objects = put_together(KUBERNETES / "overlays" / overlay)
        settings, bound = of(objects, "ConfigMap")["leastwise"]["data"], of(objects, "RoleBinding")
        holders = {each["subjects"][0]["name"] for each in bound.values()}
        is_there = overlay == "self-host"
        assert ("run" in holders, "RUN_SERVICE_ACCOUNT" in settings) == (is_there, is_there), overlay
        reaches = selects(of(objects, "NetworkPolicy")["to-kubernetes"]["spec"]["podSelector"], "run")
        assert reaches == is_there, overlay
    rules_ = of(objects, "Role")["self-host"]["rules"]
    assert not [each for each in rules_ if {"secrets", "pods/exec", "*"} & {*each["resources"], *each["verbs"]}]
    monkeypatch.setenv("RUN_SERVICE_ACCOUNT", settings["RUN_SERVICE_ACCOUNT"])
    for pool in local.POOLS:
        variables = (template("kubernetes", pool) or {})["variables"]["properties"]
        assert (variables["service_account"]["default"], variables["mounts_token"]["default"]) == ("run", True)
        (container,) = containers(pool_pods()[f"run-{pool}"])
        assert {"LEASTWISE_POD_NAME", "LEASTWISE_POD_UID", "LEASTWISE_ENDPOINT_KEYS"} <= {
            each["name"] for each in container["env"]
        }


def test_what_self_host_applies_gives_up_what_the_endpoint_gives_up_and_asks_for_what_is_there() -> None:
    """A candidate's pod is the endpoint's but for what it serves."""
    objects = put_together(KUBERNETES / "overlays" / "self-host")
    endpoint = of(objects, "Deployment")["endpoint"]["spec"]["template"]
    made = Served("alert-triage", "endpoint-alert-triage-1", "k", "made://bundles/k?sha256=0").objects(Cluster(), 1)
    pod = made[0]["spec"]["template"]
    (own,), (its,) = containers(pod), containers(endpoint)
    for name in ("securityContext", "automountServiceAccountToken", "terminationGracePeriodSeconds"):
        assert pod["spec"][name] == endpoint["spec"][name], name
    assert own["securityContext"] == its["securityContext"] and own["ports"] == its["ports"]
    assert own["envFrom"] == its["envFrom"] and pod["metadata"]["labels"]["role"] == "endpoint"
    secrets = {each["valueFrom"]["secretKeyRef"]["key"] for each in own["env"] if "valueFrom" in each}
    assert secrets <= SECRETS and own["readinessProbe"]["httpGet"] == its["readinessProbe"]["httpGet"]
    assert pod["metadata"]["labels"]["app"] != "endpoint", "the Service of the endpoint must not lead to it"
    for role, way, other in (("run", "Egress", "endpoint"), ("endpoint", "Ingress", "run")):
        peers = [
            peer for rule in rules(objects, role, way) for peer in rule.get("to" if way == "Egress" else "from", ())
        ]
        assert {"podSelector": {"matchLabels": {"role": other}}} in peers


def test_candidates_that_are_held_to_a_list_have_no_way_out_in_any_overlay_and_policies_are_made_by_nobody() -> None:
    for overlay in OVERLAYS:
        objects = put_together(KUBERNETES / "overlays" / overlay)
        api: Any = SimpleNamespace(
            namespace="leastwise", labelled=lambda *_, objects=objects: of(objects, "NetworkPolicy").values()
        )
        held, other = (Served("own", "own-1", "k", "made://bundles/k", is_held).pod_labels for is_held in (True, False))
        assert RESIDENCY in held and residency.ways_out(api, held) == "", overlay
        assert bool(residency.ways_out(api, other)) == (overlay != "residency"), "others reach providers"
    rights = {
        name: each
        for rule in of(put_together(KUBERNETES / "overlays" / "self-host"), "Role")["self-host"]["rules"]
        for name in rule["resources"]
        for each in [set(rule["verbs"])]
    }
    assert rights["networkpolicies"] == {"list"}
    for cluster in (Cluster(most_replicas=8), Cluster(most_replicas=8, scale_by="cpu")):
        for each in keeping.objects(cluster, "endpoint-own", "own-1"):
            assert {"create", "patch", "delete"} <= rights[f"{each['kind'].lower()}s"]


def test_what_keda_asks_of_candidates_is_what_their_endpoint_counts_behind_a_key_that_is_there() -> None:
    objects = put_together(KUBERNETES / "overlays" / "self-host")
    _, scaler = keeping.objects(Cluster(most_replicas=8, in_flight_per_pod=5), "endpoint-own", "own-1")
    (mine,), (vllms,) = scaler["spec"]["triggers"], of(objects, "ScaledObject")["vllm"]["spec"]["triggers"]
    assert mine["authenticationRef"]["name"] in of(objects, "TriggerAuthentication")
    assert mine["metadata"] | {"url": "", "targetValue": ""} == vllms["metadata"] | {"url": "", "targetValue": ""}
    assert mine["metadata"]["url"] == "http://endpoint-own.leastwise.svc:8100/metrics"
    assert scaler["spec"].keys() == of(objects, "ScaledObject")["vllm"]["spec"].keys()


def test_the_nodes_of_a_training_meet_by_name_and_reach_nobody_but_mlflow_and_s3() -> None:
    objects = put_together(KUBERNETES / "training")
    job = of(objects, "Job")["training"]["spec"]
    assert (job["completionMode"], job["completions"], job["backoffLimit"]) == ("Indexed", job["parallelism"], 0)
    (container,), service = containers(job["template"]), of(objects, "Service")["training"]["spec"]
    said = subprocess.run(  # as the shell of a pod reads it
        [*container["args"][:2], container["args"][2].replace("exec", "echo", 1)],
        env={"REQUEST": "s3://b/r", "JOB_COMPLETION_INDEX": "2"},
        capture_output=True,
        text=True,
    ).stdout.split()
    assert said == [
        "python",
        "-m",
        "leastwise.training.training_worker",
        "s3://b/r",
        "--join",
        "3",
        "--within",
        "86400",
        "--stay",
    ]
    assert service["publishNotReadyAddresses"] and service["clusterIP"] == "None"
    labels = json.loads((KUBERNETES / "pools" / "gpu.json").read_text())["job_configuration"]["job_manifest"]["spec"]
    assert service["selector"].items() <= labels["template"]["metadata"]["labels"].items()
    assert container["resources"]["requests"]["nvidia.com/gpu"] == container["resources"]["limits"]["nvidia.com/gpu"]
    peers = [peer for rule in rules(objects, "training", "Egress") for peer in rule["to"]]
    assert {peer["podSelector"]["matchLabels"]["role"] for peer in peers} == {"training", "run", "mlflow", "s3"}
