"""infra/kubernetes and self_host against a real API server with its controllers, and pods that really run: on demand,
by `make kube-apiserver`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from infra.deployments import make_pools
from infra.kube_check import FOLDER, OVERLAYS, built
from leastwise.record.deployed.load_report import load_of
from leastwise.record.run import DEPLOYED
from leastwise.serving.cluster import keeping
from leastwise.serving.cluster.leading import Lead
from leastwise.serving.cluster.manifests import Served
from leastwise.serving.cluster.residency import ways_out
from leastwise.stores.shipped import ROOT
from leastwise.use_case.settings import Cluster as Settings
from tasks.promote import promote_run, roll_back
from tests.infra.test_kubernetes import SECRETS
from tests.servers.apiserver import BINARIES, NAMESPACE, ApiServer, api_server, applied
from tests.servers.kubelet import Kubelet, kubelet, services
from tests.servers.mlflow_server import mlflow_server
from tests.servers.web_server import chat_completion, served
from tests.serving.test_cluster import SERVICE, climb_at, judged, right, wrong

pytestmark = pytest.mark.skipif(not os.environ.get(BINARIES), reason="on demand: make kube-apiserver")

KEY = "a-key-of-sixteen-characters"
RIGHT, AGAIN, WRONG = "Odd or even?", "Is it odd or even?", "Say the wrong one."
Object = dict[str, Any]


@dataclass
class Stand:
    """What all tests of this file share."""

    server: ApiServer
    node: Kubelet
    address: str
    engine: str
    client: httpx.Client

    def of(self, kind: str, name: str = "", group: str = "apis/apps/v1") -> Any:
        place = f"/{group}/namespaces/{NAMESPACE}/{kind}/{name}".rstrip("/")
        reply = self.client.get(place)
        return reply.json() if reply.is_success else None

    def led_to(self) -> str:
        return str(self.of("services", SERVICE, "api/v1")["spec"]["selector"]["app"])

    def apps(self) -> set[str]:
        held = self.client.get(
            f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments", params={"labelSelector": "leastwise/use-case"}
        )
        return {each["metadata"]["name"] for each in held.json()["items"]}

    def climb(self, folder: Path, system: str, **changes: Any) -> Any:
        settings = {"context": "run", "rollout_s": 600, "replicas": 1, **changes}
        return climb_at(folder, f"{self.address}/{{service}}", self.engine, system, **settings)


async def odd_or_even(request: web.Request) -> web.Response:
    messages = (await request.json())["messages"]
    text, says = str(messages[-1]["content"]), wrong if WRONG in str(messages) else right
    return chat_completion("m", says(text) if text.startswith("number") else "even", 20, 1)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        tracking = stack.enter_context(mlflow_server(folder / "mlflow"))
        engine = stack.enter_context(served(web.post("/v1/chat/completions", odd_or_even)))
        server = stack.enter_context(api_server(folder / "apiserver"))
        client = stack.enter_context(server.client())
        overrides = {"MLFLOW_TRACKING_URI": tracking, "PREFECT_API_AUTH_STRING": ""}
        node = stack.enter_context(kubelet(server, folder / "pods", ("run", "endpoint"), overrides))
        address = stack.enter_context(services(server))
        secrets = dict.fromkeys(SECRETS, KEY)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "leastwise"}, "stringData": secrets}
        assert applied(server, client, secret) == "applied"
        patch.setenv("KUBECONFIG", str(server.kubeconfig("run", "worker", "admin")))
        patch.setenv("MLFLOW_TRACKING_URI", tracking)
        patch.setenv("LEASTWISE_ENDPOINT_KEYS", KEY)
        yield Stand(server, node, address, f"{engine}/v1", client)
        assert node.failures == [] or print("\n".join(node.failures[:20])) is None


@pytest.fixture
def state(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A flow run's own state directory, which shares nothing with the pods but MLflow's address."""
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "state"))
    return tmp_path


def wait_for(is_so: Callable[[], object], within_s: float) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.3)


def test_the_server_takes_every_overlay_but_what_it_says_it_does_not_know(stand: Stand) -> None:
    became: dict[str, set[str]] = {}
    for overlay in OVERLAYS:
        for each in built(FOLDER / "overlays" / overlay):
            how = applied(stand.server, stand.client, each)
            became.setdefault(how, set()).add(f"{each['kind']} {each['metadata']['name']}")
    for how, objects in sorted(became.items()):
        print(f"{how}: {len(objects)} ({', '.join(sorted(objects))})")
    refused = [f"{how}: {objects}" for how, objects in became.items() if how.startswith("refused")]
    assert refused == [] and len(became["applied"]) > 30
    unknown = {each for how, objects in became.items() if how.startswith("not known") for each in objects}
    assert unknown <= {"ScaledObject vllm", "TriggerAuthentication vllm", "TriggerAuthentication candidates"}


def test_a_training_over_nodes_is_taken_and_its_pods_are_made(stand: Stand) -> None:
    """1.20 has no Indexed Jobs: there the rest of it is taken, and `make kube-check` holds the whole."""
    objects = built(FOLDER / "training")
    job = next(each for each in objects if each["kind"] == "Job")
    version = stand.client.get("/version").json()
    if int(version["minor"].rstrip("+")) < 21:
        assert "field not declared in schema" in applied(stand.server, stand.client, job)
        print(f"{version['gitVersion']}: completionMode is not known and left out")
        del job["spec"]["completionMode"]
    for each in objects:
        assert applied(stand.server, stand.client, each) == "applied", each["metadata"]["name"]
    jobs = f"/api/v1/namespaces/{NAMESPACE}/pods"

    def pods() -> list[Object]:
        made: list[Object] = stand.client.get(jobs, params={"labelSelector": "app=training"}).json()["items"]
        return made

    wait_for(lambda: len(pods()) == 1, 60)
    limits = pods()[0]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "8"
    place = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/training"
    stand.client.request("DELETE", place, json={"propagationPolicy": "Background"})


def test_what_passes_is_switched_to_what_fails_is_not_and_a_rollback_takes_under_5_s(stand: Stand, state: Path) -> None:
    run = judged(stand.climb(state, RIGHT, loads=2))
    assert run.verdict == "PASS", run.reason
    assert run.figures["load.requests_per_s"] > 0 and run.figures["load.errors"] == 0
    print(f"one pod under load:\n{load_of(run)}")
    one = stand.led_to()
    assert "is being served at" in run.tag(DEPLOYED) and stand.apps() == {one}
    assert answer(stand)["leastwise"]["version"] == run.candidate().key

    failed = judged(stand.climb(state, WRONG))
    assert failed.verdict == "FAIL" and stand.led_to() == one
    assert stand.apps() == {one}, "what failed is taken away"

    two = judged(stand.climb(state, AGAIN))
    assert two.verdict == "PASS" and stand.led_to() != one, two.tag(DEPLOYED)
    wait_for(lambda: answers_with(stand, two.candidate().key), 30)
    promote_run.fn(str(state / "case.yaml"), two.id)
    began = time.monotonic()
    roll_back.fn(str(state / "case.yaml"))
    wait_for(lambda: answers_with(stand, run.candidate().key), 5)
    took_s = time.monotonic() - began
    print(f"rolled back, answering with what served before after {took_s:.1f} s")
    assert took_s < 5 and stand.led_to() == one


def test_a_rollout_that_never_gets_ready_is_an_error_with_the_reason_and_the_old_one_serves(
    stand: Stand, state: Path
) -> None:
    before, apps = stand.led_to(), stand.apps()
    run = judged(stand.climb(state, "Even or odd?", image="missing:1", rollout_s=8))
    assert run.verdict == "ERROR" and "ErrImagePull: missing:1: no such image" in str(run.reason), run.reason
    assert stand.led_to() == before and stand.apps() == apps


def test_a_pod_that_cannot_serve_says_why_in_the_verdict(
    stand: Stand, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stand.node.overrides, "MLFLOW_TRACKING_URI", f"sqlite:///{state}/empty.db")  # type: ignore[arg-type]
    before = stand.led_to()
    run = judged(stand.climb(state, "Even, or odd?"))
    assert run.verdict == "ERROR" and "it is not here" in str(run.reason), run.reason
    assert stand.led_to() == before


def test_what_a_kill_left_is_taken_up_and_goes_with_its_pod_where_nobody_comes_back(
    stand: Stand, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stand.apps()
    pod = {"containers": [{"name": "c", "image": "leastwise:cpu"}]}
    body = {"metadata": {"name": "flow-run", "labels": {"role": "nobody"}}, "spec": pod}
    owner = stand.client.post(f"/api/v1/namespaces/{NAMESPACE}/pods", json=body).json()["metadata"]
    monkeypatch.setenv("LEASTWISE_POD_NAME", owner["name"])
    monkeypatch.setenv("LEASTWISE_POD_UID", owner["uid"])
    work = stand.climb(state, "Which is it?")

    def killed() -> str:
        code = f"from tests.serving.test_cluster import judged_by; judged_by({str(work.run.id)!r})"
        child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        wait_for(lambda: stand.apps() - before, 240)
        child.send_signal(signal.SIGKILL)
        child.wait()
        (left,) = stand.apps() - before
        return left

    left = killed()
    assert stand.of("deployments", left)["metadata"]["ownerReferences"][0]["uid"] == owner["uid"]
    stand.client.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/flow-run", json={"gracePeriodSeconds": 0})
    wait_for(lambda: left not in stand.apps(), 180)
    monkeypatch.delenv("LEASTWISE_POD_NAME")
    left = killed()
    uid = stand.of("deployments", left)["metadata"]["uid"]
    run = judged(work)
    assert run.verdict == "PASS" and stand.led_to() == left
    assert stand.of("deployments", left)["metadata"]["uid"] == uid, "what the kill left was gone on with"


def test_flow_runs_may_do_this_and_no_more(stand: Stand) -> None:
    lead = Lead.of(Settings(context="run"), "own")
    assert lead.line().serving
    with stand.server.client("run") as run:
        for place in ("api/v1/namespaces/leastwise/secrets", "apis/batch/v1/namespaces/leastwise/jobs", "api/v1/nodes"):
            assert run.get(f"/{place}").status_code == 403, place
        assert run.get("/apis/apps/v1/namespaces/default/deployments").status_code == 403
        policies = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
        opens = {"metadata": {"name": "way-out"}, "spec": {"podSelector": {}, "egress": [{}]}}
        assert run.get(policies).is_success and run.post(policies, json=opens).status_code == 403


def test_what_keeps_the_pods_is_taken_from_a_flow_run(stand: Stand) -> None:
    """1.20 has budget and autoscaler under older versions; there self_host says that it serves without them."""
    settings = Settings(context="run", most_replicas=3, scale_by="cpu")
    with stand.server.client("run") as run:
        became = {
            each["kind"]: applied(stand.server, run, each)
            for each in keeping.objects(settings, SERVICE, stand.led_to())
        }
    print(became)
    assert len(became) == 2 and all(how.startswith("applied") for how in became.values())
    said = keeping.keep(Lead.of(settings, "own").api, settings, SERVICE, stand.led_to())
    version = int(stand.client.get("/version").json()["minor"].rstrip("+"))
    assert len(said) == (0 if version >= 23 else 1 if version >= 21 else 2), said


def test_policies_of_the_overlays_hold_back_who_is_held_to_a_list(stand: Stand) -> None:
    api = Lead.of(Settings(context="run"), "own").api
    held, other = (Served("own", "own-1", "k", "made://bundles/k", is_held).pod_labels for is_held in (True, False))
    assert ways_out(api, held) == "" and "lets its pods out to 0.0.0.0/0" in ways_out(api, other)


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_a_pools_job_runs_a_flow_and_how_it_ended_arrives_in_prefect(
    stand: Stand, prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setitem(stand.node.overrides, "PREFECT_API_URL", prefect_api)  # type: ignore[arg-type]
    make_pools("kubernetes")
    runs = {name: flow_run(pool, name) for name in ("ends_well", "ends_badly")}
    environment = os.environ | {
        "KUBECONFIG": str(stand.server.kubeconfig("worker")),
        "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": NAMESPACE,
        "PREFECT_INTEGRATIONS_KUBERNETES_CLUSTER_UID": NAMESPACE,
    }
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "kubernetes"]
    log = tmp_path / "worker.log"
    with log.open("wb") as said:
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
    try:
        ended: dict[str, str] = {}
        until = time.monotonic() + 240
        while set(ended) != set(runs):
            assert time.monotonic() < until and worker.poll() is None, log.read_text()[-4000:]
            ended = {name: kind for name, run in runs.items() if (kind := kind_of(run)) in ("COMPLETED", "FAILED")}
            time.sleep(1)
    finally:
        worker.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # how a worker ends is not what is looked at
            worker.wait(60)
        worker.kill()
        stand.server.kubeconfig("run", "worker", "admin")
    assert ended == {"ends_well": "COMPLETED", "ends_badly": "FAILED"}
    jobs = stand.of("jobs", group="apis/batch/v1")["items"]
    asked = [each["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] for each in jobs]
    if pool == "gpu":
        assert {each.get("nvidia.com/gpu") for each in asked} >= {"1"}


def flow_run(pool: str, name: str) -> Any:
    from prefect.client.orchestration import get_client

    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name(name.replace("_", "-"))
        deployment = client.create_deployment(
            flow_id=flow_id,
            name=f"{name}-{pool}",
            entrypoint=f"tests.infra.kube_flows:{name}",
            work_pool_name=pool,
            pull_steps=steps,
        )
        return client.create_flow_run_from_deployment(deployment).id


def kind_of(run: Any) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        return state.type.value if state else ""


def answer(stand: Stand) -> Any:
    body = {"model": "own", "messages": [{"role": "user", "content": "number 3"}]}
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{stand.address}/{SERVICE}/v1/chat/completions"
    reply = httpx.post(url, json=body, headers=headers, timeout=30)
    return reply.json() if reply.is_success else {"leastwise": {"version": reply.text}}


def answers_with(stand: Stand, version: str) -> bool:
    return bool(answer(stand)["leastwise"]["version"] == version)
