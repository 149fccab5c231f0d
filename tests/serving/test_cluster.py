"""self_host in a cluster: judged in a pod of its own, callers led to what passed alone, and back in one step."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import certifi
import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput, problems_of
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.record.deployed.load_report import load_of
from leastwise.record.published.pin import Pin
from leastwise.record.registry import Registry
from leastwise.record.run import DEPLOYED, ENDPOINT, ENGINE
from leastwise.record.stage_run import StageRun
from leastwise.run_id import RunId
from leastwise.serving.cluster import access, asked, place, rollout
from leastwise.serving.cluster.asked import load_key_of
from leastwise.serving.cluster.kubernetes import Refused
from leastwise.serving.cluster.leading import Lead
from leastwise.serving.cluster.manifests import Owner, Served, app_name, service_name
from leastwise.serving.cluster.place import ClusterPlace
from leastwise.serving.deployed import measuring
from leastwise.serving.deployed.load import Asked
from leastwise.use_case.requirements import Residency
from leastwise.use_case.settings import Cluster as Settings
from leastwise.use_case.settings import Hosting
from tasks import self_host as stage
from tasks.promote import _lead_to, promote_run, roll_back
from tasks.serving import deploy as deploying
from tasks.session.destinations import destinations
from tasks.session.endpoint import check_cluster
from tests.servers.kubernetes_server import Cluster, running_cluster
from tests.serving.endpoints import Aliases, running_endpoint
from tests.serving.relay import running_engine
from tests.workspaces import case_file, log_stage, opened, quality

TEXTS = [f"number {n}" for n in range(30)]
PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}
SERVICE, KEY = "endpoint-own", "a-key-of-sixteen-characters"


def right(text: str) -> str:
    return "odd" if int(text.rsplit(maxsplit=1)[-1]) % 2 else "even"


def wrong(text: str) -> str:
    return "even" if right(text) == "odd" else "odd"


@pytest.fixture
def cluster(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("LEASTWISE_ENDPOINT_KEYS", KEY)
    monkeypatch.setattr(rollout, "POLL_S", 0.02)
    with running_cluster() as running:
        running.answers = right
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump(kubeconfig(running.address)))
        monkeypatch.setenv("KUBECONFIG", str(file))
        yield running


def kubeconfig(server: str, **user: Any) -> dict[str, Any]:
    return {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "a-token"}}],
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
    }


def climb(folder: Path, cluster: Cluster, system: str = "Odd or even?", **changes: Any) -> Workspace:
    """As `climb_at`, in the stand-in, whose pods ask no model."""
    return climb_at(folder, f"{cluster.address}/svc/{{service}}", "http://127.0.0.1:9/v1", system, **changes)


def climb_at(folder: Path, address: str, base_url: str, system: str, loads: int = 0, **changes: Any) -> Workspace:
    """A climb whose best candidate so far failed; self_host comes next. `loads`: most in flight while it is measured
    under load.
    """
    ids = [f"r{n}" for n in range(len(TEXTS))]
    pd.DataFrame({"id": ids, "text": TEXTS, "label": list(map(right, TEXTS))}).to_parquet(folder / "gate.parquet")
    model = {"uri": "hf://team/model", "base_url": base_url, "venue": "self_host", "price": PRICE}
    settings = {"context": "test", "address": address, "rollout_s": 2, **changes}
    case = {
        "name": "own",
        "task": {"instruction": system, "labels": ["odd", "even"]},
        "data": {"gate": "gate.parquet", "population": "this_set"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [model | {"served_name": "m"}]},
        "hosting": {"endpoint": "cluster", "cluster": settings, "load_concurrency": loads, "load_seconds": 0.2},
        "approvals": {"self_host": "granted"},
        "allow_no_test": True,
    }
    work = opened(case_file(folder, case))
    log_stage(
        work,
        Candidate(stage="prompt", model="hf://team/model", venue="self_host", prompt=Prompt(system=system)),
        quality(0.1, 0.5),
    )
    return work


def judged(work: Workspace) -> StageRun:
    """The stage as its flow carries it out, and what it leaves."""
    return work.run.stage(judged_by(work.run.id))


def judged_by(climb_id: RunId) -> RunId:
    """The same in any process; gives back the stage's run."""
    run_id = stage.measured_already(climb_id)
    if run_id is None:
        stage.smoke_test.fn(climb_id)
        run_id = stage.evaluate_self_host.fn(climb_id)
    if deploying.may_be_deployed(climb_id, run_id):
        deploying.deploy.fn(climb_id, run_id)
    return run_id


def served_before(folder: Path, cluster: Cluster, app: str = "own-1", version: str = "1") -> str:
    """An app to which callers are led."""
    settings = Settings(context="test")
    lead = Lead.of(settings, "own")
    for each in Served("own", app, f"key-{app}", "made://bundles/k?sha256=0").objects(settings, 2, version=version):
        lead.api.apply(each)
    lead.to(app)
    return app


@pytest.fixture(autouse=True)
def nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registering asks the candidate's own model, which is nowhere here; it is held in test_registering.py."""
    monkeypatch.setattr("leastwise.serving.registering._check", lambda *_: None)


def test_what_passes_in_the_cluster_is_what_callers_are_led_to_and_back_in_one_step(
    cluster: Cluster, tmp_path: Path
) -> None:
    run = judged(first := climb(tmp_path, cluster))
    assert run.verdict == "PASS" and "a pod in the cluster" in run.tag(ENGINE)
    one = cluster.led_to(SERVICE)
    assert run.tag(ENDPOINT).endswith(f"/svc/{SERVICE}") and "2 pods" in run.tag(DEPLOYED)
    assert {app for app, _ in cluster.texts} == {one} and len(cluster.texts) > 25, "judged over its own Service"
    assert cluster.names("Deployment") == {one} and cluster.names("Service") == {one, SERVICE}
    held = cluster.objects["Deployment", one]
    assert held["spec"]["replicas"] == 2 and "ownerReferences" not in held["metadata"]

    before = list(cluster.asked)
    deploying.deploy.fn(first.run.id, run.id)
    assert cluster.led_to(SERVICE) == one and len(cluster.asked) > len(before), "once more is no change"

    run = judged(climb(tmp_path, cluster, "Is it odd?"))
    two = cluster.led_to(SERVICE)
    assert run.verdict == "PASS" and two != one and "is kept to go back to" in run.tag(DEPLOYED)
    assert cluster.objects["Deployment", one]["spec"]["replicas"] == 1, "kept, so that going back is a switch"

    began = time.monotonic()
    ending = roll_back.fn(str(tmp_path / "case.yaml"))
    assert time.monotonic() - began < 5 and ending.outcome == "rolled_back"
    assert cluster.led_to(SERVICE) == one and cluster.objects["Deployment", one]["spec"]["replicas"] == 2
    with pytest.raises(BadInput, match="nothing served before"):
        roll_back.fn(str(tmp_path / "case.yaml"))

    deploying.deploy.fn(run.parent_id or "", run.id)
    assert cluster.led_to(SERVICE) == one and "was rolled back from" in run.again().tag(DEPLOYED)
    ending = promote_run.fn(str(tmp_path / "case.yaml"), run.id)
    assert cluster.led_to(SERVICE) == two and f"{SERVICE} leads to it" in ending.reason
    registry = Registry(run.client, "own")
    assert registry.aliases()["champion"] == "2"

    three = judged(climb(tmp_path, cluster, "Odd?"))
    assert cluster.names("Deployment") == {two, cluster.led_to(SERVICE)}, "what served before that is gone"
    promote_run.fn(str(tmp_path / "case.yaml"), three.id)
    assert "champion: version 3 → 2" in roll_back.fn(str(tmp_path / "case.yaml")).reason, "alias and callers together"
    assert cluster.led_to(SERVICE) == two and registry.aliases()["champion"] == "2"


def test_what_fails_is_taken_away_and_callers_never_met_it(cluster: Cluster, tmp_path: Path) -> None:
    one = served_before(tmp_path, cluster)
    writes = cluster.written("Service").count(("PATCH", SERVICE))
    cluster.answers = wrong
    run = judged(climb(tmp_path, cluster, "Is it odd?"))
    assert run.verdict == "FAIL" and not run.tag(DEPLOYED)
    assert cluster.led_to(SERVICE) == one and cluster.names("Deployment") == {one}
    assert cluster.names("Service") == {one, SERVICE}
    assert cluster.written("Service").count(("PATCH", SERVICE)) == writes, "the Service was not touched"


CRASHED = {"name": "endpoint", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
CRASHED |= {"lastState": {"terminated": {"exitCode": 2, "message": "made://bundles/x: it is not here"}}}


def test_pods_that_never_come_up_are_an_error_with_the_clusters_reason_and_the_old_one_serves(
    cluster: Cluster, tmp_path: Path
) -> None:
    one = served_before(tmp_path, cluster)
    cluster.breaks["ours:9"] = CRASHED
    run = judged(climb(tmp_path, cluster, "Is it odd?", image="ours:9"))
    assert run.verdict == "ERROR" and "ended with status 2: made://bundles/x: it is not here" in str(run.reason)
    assert cluster.led_to(SERVICE) == one and cluster.names("Deployment") == {one}


NO_IMAGE = {"name": "endpoint", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image: ours:9"}}}
NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: nvidia.com/gpu"}
NO_QUOTA = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
SILENT = {"name": "endpoint", "state": {"running": {}}, "ready": False}


@pytest.mark.parametrize(
    ("pod", "deployment", "said"),
    [
        ({"containerStatuses": [NO_IMAGE]}, {}, "waiting: ErrImagePull: no such image: ours:9"),
        ({"conditions": [NO_NODE]}, {}, "not scheduled: Unschedulable: 0/3 nodes: nvidia.com/gpu"),
        ({}, {"conditions": [NO_QUOTA]}, "ReplicaFailure: FailedCreate: exceeded quota"),
        ({"containerStatuses": [SILENT]}, {}, "it runs and does not answer at /health"),
        ({}, {}, "its pods do not say why"),
    ],
    ids=["no image", "no node", "no quota", "silent", "nothing"],
)
def test_why_pods_do_not_come_up_is_said_in_the_clusters_words(
    pod: dict[str, Any], deployment: dict[str, Any], said: str
) -> None:
    assert rollout.reason({"status": deployment}, [{"status": pod}]) == said


class Killed(BaseException):
    """As SIGKILL: nothing after it happens."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("where", ["judged", "passed", "led"])
def test_a_kill_at_any_step_is_taken_up_and_ends_the_same(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    work = climb(tmp_path, cluster)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        if where == "judged":
            patch.setattr(ClusterPlace, "take_away", lambda *_: None)  # nobody is there to do it
        target: tuple[object, str] = {
            "judged": (asked.EndpointAnswerer, "answer"),
            "passed": (deploying.deploy, "fn"),
            "led": (Lead, "tidy"),
        }[where]
        patch.setattr(*target, killed)
        judged(work)
    done = stage.measured_already(work.run.id)
    assert (done is not None) == (where != "judged")
    run = judged(work)
    assert run.verdict == "PASS" and run.tag(DEPLOYED)
    assert cluster.names("Deployment") == {cluster.led_to(SERVICE)}
    assert [each.stage for each in work.run.stage_runs()].count("self_host") == 1


def test_an_interrupted_rollback_is_finished_and_takes_no_second_step(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, registry = str(tmp_path / "case.yaml"), Registry(climb(tmp_path, cluster).run.client, "own")
    registry._create_model()
    for version in ("1", "2"):
        registry.client.create_model_version("own", source="file:///nowhere", run_id=f"run{version}")
        registry.promote(version, "it passed")
        served_before(tmp_path, cluster, f"own-{version}", version)
    two = cluster.led_to(SERVICE)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Registry, "rollback", killed)
        roll_back.fn(path)
    one = cluster.led_to(SERVICE)
    assert one != two, "callers first"
    assert "champion: version 2 → 1" in roll_back.fn(path).reason
    assert cluster.led_to(SERVICE) == one


def test_an_answer_of_another_candidate_counts_as_none(cluster: Cluster, tmp_path: Path) -> None:
    """A Service that leads elsewhere for a moment must not lend its pods' quality to the candidate."""
    work = climb(tmp_path, cluster)
    candidate, where = stage.self_host_candidate(work), ClusterPlace(work)
    with where.serving(candidate) as answerer:
        app = next(iter(cluster.names("Deployment")))
        variables = cluster.objects["Deployment", app]["spec"]["template"]["spec"]["containers"][0]["env"]
        next(each for each in variables if each["name"] == "LEASTWISE_BUNDLE_VERSION")["value"] = "another"
        (answer,) = answerer.answer(work.question.gate.rows.head(1))
    assert answer.text is None and "another, which is not judged" in str(answer.error)


def test_a_real_endpoint_is_read_as_it_answers_and_what_was_lost_is_tried_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "FIRST_WAIT_S", 0.0)
    monkeypatch.setenv("LEASTWISE_ENDPOINT_KEYS", KEY)
    work: Any = SimpleNamespace(use_case=SimpleNamespace(name="toy"))
    judged_: Any = SimpleNamespace(key="1")
    with running_engine(), running_endpoint(Aliases()) as endpoint, ExitStack() as stack:
        answerer = asked.EndpointAnswerer(work, judged_, asked.Door(endpoint.url, KEY, ("here",)), stack)
        answer = answerer.ask("yes")
        assert (answer.text, answer.input_tokens, answer.cached_tokens) == ("1: yes", 7, 2)
        assert answer.confidence == 0.5 and answer.usd == 0 and answer.from_store and answer.latency_ms is not None
        stranger = asked.EndpointAnswerer(
            work, judged_, asked.Door(endpoint.url, "another-key-of-16", ("here",)), stack
        )
        assert "401" in str(stranger.ask("yes").error), "a key that does not open it is no answer, and not tried again"
    lost = answerer.__class__(work, judged_, asked.Door(endpoint.url, KEY, ("here",)), ExitStack()).ask("yes")
    assert lost.text is None and lost.latency_ms is None and "Connect" in str(lost.error)


def test_what_a_pod_would_pay_by_the_call_or_remember_is_not_judged_there(cluster: Cluster, tmp_path: Path) -> None:
    work = climb(tmp_path, cluster)
    cached = {"cache": {"exact": True, "ttl_s": 60, "most_bytes": 1000}}
    for change, why in (({"venue": "api"}, "held to no cap"), (cached, "remember the rows")):
        candidate = Candidate.model_validate(stage.self_host_candidate(work).model_dump() | change)
        with pytest.raises(place.CannotBeAsked, match=why), ClusterPlace(work).serving(candidate):
            pass
    assert cluster.written("Deployment") == []


def test_cost_is_by_what_one_pod_carries_and_kept_for_that_machine_alone(cluster: Cluster, tmp_path: Path) -> None:
    keys = set()
    for gpus in (0, 1):
        work = climb(tmp_path, cluster, gpus=gpus)
        with ClusterPlace(work).serving(stage.self_host_candidate(work)) as answerer:
            assert answerer.fixed_usd_per_request == 0 and answerer.figures()["requests_per_s"] > 1
            assert cluster.objects["Deployment", max(cluster.names("Deployment"))]["spec"]["replicas"] == 1
        keys |= {file.name for file in (work.home / "capacity").glob("*.json")}
        assert ClusterPlace(work).name[-1].endswith(f"{gpus} gpus")
    assert len(keys) == 2


def test_what_cannot_be_done_in_the_cluster_undoes_no_verdict_and_no_promotion(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = served_before(tmp_path, cluster, version="7")
    cluster.answers = wrong
    cluster.fails_at["DELETE", "Deployment"] = 403
    work = climb(tmp_path, cluster)
    assert judged(work).verdict == "FAIL" and "is not taken away" in caplog.text
    words = {version: _lead_to(work.use_case, version) for version in ("7", "8")}
    assert words["7"].endswith("leads to it") and f"so {one} goes on serving" in words["8"]
    cluster.fails_at["GET", "Deployment"] = 403
    assert "are not led to it (GET Deployment list: 403" in _lead_to(work.use_case, "7")
    assert cluster.led_to(SERVICE) == one


def test_residency_holds_for_the_cluster_too(cluster: Cluster, tmp_path: Path) -> None:
    case = climb_at(tmp_path, Settings().address, "http://127.0.0.1:9/v1", "Odd or even?").use_case

    def checked(*hosts: str) -> tuple[str, ...]:
        limits = Residency(venues=("self_host",), hosts=hosts)
        required = case.requirements.model_copy(update={"residency": limits})
        return problems_of(destinations(case.model_copy(update={"requirements": required})))

    (problem,) = checked("prefect")
    assert "hosting.cluster.address: texts would go to endpoint-own.leastwise.svc" in problem
    assert checked("prefect", "endpoint-own.leastwise.svc") == ()


def test_another_writer_of_the_service_is_not_overwritten_unseen(cluster: Cluster, tmp_path: Path) -> None:
    settings = Settings(context="test")
    lead = Lead.of(settings, "own")
    lead.to("a")
    cluster.fails_at["PATCH", "Service"] = 409
    assert lead.to("b").former == "a" and cluster.led_to(SERVICE) == "b"
    assert lead.to("b").former == "a", "again is no change"
    cluster.fails_at["PATCH", "Service"] = 403
    with pytest.raises(Refused, match="403: as the test wants it"):
        lead.to("c")
    assert cluster.led_to(SERVICE) == "b"


def test_a_cluster_that_cannot_be_used_is_bad_input_before_anything_is_paid(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = climb(tmp_path, cluster)
    case = work.use_case
    check_cluster(case, ["self_host"])

    def check(words: str, **settings: Any) -> None:
        changed = case.hosting.cluster.model_copy(update=settings)
        hosting = case.hosting.model_copy(update={"cluster": changed})
        with pytest.raises(BadInput, match=words):
            check_cluster(case.model_copy(update={"hosting": hosting}), ["self_host"])

    check("contexts are test", context="prod")
    check("this is no pod with a service account", context="")
    cluster.fails_at["GET", "Service"] = 403
    check("hosting.cluster: GET Service endpoint-own: 403")
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig("https://127.0.0.1:9", exec={"command": "aws"})))
    check("logging in by a command is not done here")
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig("http://127.0.0.1:9")))
    check("the API server http://127.0.0.1:9 was not reached")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    check("there is no kubeconfig at")
    monkeypatch.delenv("LEASTWISE_ENDPOINT_KEYS")
    monkeypatch.setenv("LEASTWISE_POOLS", "1")
    check_cluster(case, ["self_host"])
    assert cluster.written("Deployment") == cluster.written("Service") == []


def test_in_a_pod_the_service_account_is_read_anew_at_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "ACCOUNT", tmp_path)
    monkeypatch.setenv(access.HOST, "fd00::1")
    (tmp_path / "token").write_text("one\n")
    shutil.copy(certifi.where(), tmp_path / "ca.crt")
    found = access.by_account()
    assert found.server == "https://[fd00::1]:443" and found.headers == {"Authorization": "Bearer one"}
    (tmp_path / "token").write_text("two\n")
    assert found.headers == {"Authorization": "Bearer two"}


def test_a_judged_candidate_goes_with_the_pod_of_its_flow_run_and_a_serving_one_with_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = Served("own", "own-1", "key", "made://bundles/k?sha256=0")
    assert Owner.of_this_pod() is None
    monkeypatch.setenv("LEASTWISE_POD_NAME", "run-1")
    monkeypatch.setenv("LEASTWISE_POD_UID", "u-1")
    owner = Owner.of_this_pod()
    for each in served.objects(Settings(), 1, owner):
        assert each["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Pod", "name": "run-1", "uid": "u-1"}
        ]
    judged_, serving = (
        served.objects(Settings(gpus=2), 1, each, version)[0] for each, version in ((owner, ""), (None, "3"))
    )
    assert "ownerReferences" not in serving["metadata"]
    assert judged_["spec"]["template"] == serving["spec"]["template"], "what was judged is what serves"
    limits = serving["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "2"


def test_a_pod_serves_its_bundle_whatever_is_promoted_and_no_predecessor_in_its_place() -> None:
    fixed, until_moved = Pin(version="key", is_fixed=True), Pin(version="key")
    moved = {"champion": "3"}
    assert fixed.aliases(moved, list)["champion"] == "key" and until_moved.aliases(moved, list)["champion"] == "3"
    assert fixed.predecessor("2") == "key" and until_moved.predecessor("2") == "2"


@pytest.mark.parametrize("name", ["a" * 61, "x" * 52 + "-", "7up", "own"])
def test_names_are_what_kubernetes_takes_and_no_two_use_cases_share_one(name: str) -> None:
    made = {service_name(name), app_name(name, "0123456789abcdef"), service_name(f"{name[:-1]}z")}
    assert len(made) == 3
    for each in made:
        assert len(each) <= 63 and each[0].isalpha() and each[-1].isalnum() and each == each.lower()


def test_a_use_case_without_a_cluster_keeps_its_key_and_an_address_names_the_service() -> None:
    assert "cluster" not in Hosting().model_dump() and "cluster" in Hosting(cluster=Settings(gpus=1)).model_dump()
    assert Settings().address_of("endpoint-own") == "http://endpoint-own.leastwise.svc:8100"
    for address in ("http://fixed:8100", "http://{service}/{pod}", "ftp://{service}"):
        with pytest.raises(ValueError, match="address"):
            Settings(address=address)


def test_what_one_pod_carries_is_measured_before_callers_meet_it_and_reported(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods: list[tuple[int, bool]] = []
    measure = measuring.measure

    def seen(work: Workspace, run: StageRun, asked: Asked) -> None:
        (app,) = cluster.names("Deployment")
        assert asked.url.endswith(app) and asked.key == KEY and asked.load_key == load_key_of(KEY)
        pods.append((cluster.objects["Deployment", app]["spec"]["replicas"], SERVICE in cluster.names("Service")))
        measure(work, run, asked)

    monkeypatch.setattr(measuring, "measure", seen)
    work = climb(tmp_path, cluster, loads=4)
    run = judged(work)
    assert run.verdict == "PASS" and pods == [(1, False)]
    assert run.figures["load.requests_per_s"] > 1 and "| in flight | requests/s | p50 ms |" in load_of(run)
    assert "2 pods" in run.tag(DEPLOYED)
    deploying.deploy.fn(work.run.id, run.id)
    assert len(pods) == 1, "once measured it is not measured again"
    ClusterPlace(work).measured_by(lambda _: pytest.fail("callers' requests would be counted"), run.candidate())


def test_an_endpoint_that_is_lost_under_load_costs_the_report_and_not_the_verdict(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(measuring, "carried", lambda *_: 1 / 0)
    run = judged(climb(tmp_path, cluster, loads=4))
    assert run.verdict == "PASS" and "2 pods" in run.tag(DEPLOYED) and "load.requests_per_s" not in run.figures
    assert "what the endpoint carries is not known (ZeroDivisionError" in caplog.text


def test_what_serves_has_a_disruption_budget_and_an_autoscaler_that_a_rollback_takes_along(
    cluster: Cluster, tmp_path: Path
) -> None:
    path = str(tmp_path / "case.yaml")
    judged(climb(tmp_path, cluster, most_replicas=6))
    one = cluster.led_to(SERVICE)
    budget, scaler = (cluster.objects[kind, SERVICE]["spec"] for kind in ("PodDisruptionBudget", "ScaledObject"))
    labels = cluster.objects["Deployment", one]["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1 and budget["selector"]["matchLabels"].items() <= labels.items()
    assert (scaler["scaleTargetRef"]["name"], scaler["minReplicaCount"], scaler["maxReplicaCount"]) == (one, 2, 6)
    cluster.objects["Deployment", one]["spec"]["replicas"] = 5  # as KEDA does
    run = judged(work := climb(tmp_path, cluster, most_replicas=6))
    deploying.deploy.fn(work.run.id, run.id)
    assert cluster.objects["Deployment", one]["spec"]["replicas"] == 5, "applied again is not scaled back"

    judged(climb(tmp_path, cluster, "Is it odd?", most_replicas=6))
    two = cluster.led_to(SERVICE)
    assert cluster.objects["ScaledObject", SERVICE]["spec"]["scaleTargetRef"]["name"] == two != one
    assert cluster.objects["Deployment", one]["spec"]["replicas"] == 1, "the former is scaled by nobody"
    roll_back.fn(path)
    assert cluster.objects["ScaledObject", SERVICE]["spec"]["scaleTargetRef"]["name"] == one

    judged(climb(tmp_path, cluster, "Odd?", most_replicas=6, scale_by="cpu"))
    assert cluster.names("ScaledObject") == set() and cluster.names("HorizontalPodAutoscaler") == {SERVICE}
    judged(climb(tmp_path, cluster, "Even?"))
    assert cluster.names("HorizontalPodAutoscaler") == set(), "always `replicas` again"
    assert cluster.names("PodDisruptionBudget") == {SERVICE}
    with pytest.raises(ValidationError, match="most_replicas: 3 is less than replicas, 4"):
        Settings(replicas=4, most_replicas=3)


def test_a_cluster_without_keda_serves_all_the_same_and_says_what_is_missing(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.fails_at["PATCH", "ScaledObject"] = 404
    run = judged(climb(tmp_path, cluster, most_replicas=6))
    assert run.verdict == "PASS" and "2 pods, up to 6" in run.tag(DEPLOYED)
    assert "serves without what the cluster refused (PATCH ScaledObject endpoint-own: 404" in caplog.text


CLOSED = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
PROVIDERS = [
    {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"protocol": "TCP", "port": 443}]}
]
ROLES = {"key": "role", "operator": "In", "values": ["run", "endpoint"]}
NOT_HELD = {"key": "leastwise/residency", "operator": "DoesNotExist"}
LISTED = [{"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}, {"podSelector": {"matchLabels": {"role": "mlflow"}}}]}]


def policy(*expressions: dict[str, Any], egress: list[Any]) -> dict[str, Any]:
    return {"podSelector": {"matchExpressions": [*expressions]}, "policyTypes": ["Egress"], "egress": egress}


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ([], "no NetworkPolicy of namespace leastwise holds its pods back"),
        ([policy({"key": "role", "operator": "In", "values": ["run"]}, egress=[])], "holds its pods back"),
        ([CLOSED | {"policyTypes": ["Ingress"]}], "holds its pods back"),
        ([CLOSED, policy(ROLES, egress=PROVIDERS)], "lets its pods out to 0.0.0.0/0"),
        ([CLOSED, policy(ROLES, egress=[{"ports": [{"port": 443}]}])], "lets its pods out to everywhere"),
        ([CLOSED, policy(egress=[{"to": [{"ipBlock": {"cidr": "::/0"}}]}])], "lets its pods out to ::/0"),
        ([CLOSED, policy(ROLES, NOT_HELD, egress=PROVIDERS), policy(ROLES, egress=LISTED)], ""),
    ],
    ids=["none", "of others", "ingress alone", "providers", "any", "all of IPv6", "held"],
)
def test_texts_that_must_not_leave_are_judged_where_the_policies_hold_them_and_nowhere_else(
    cluster: Cluster, tmp_path: Path, policies: list[dict[str, Any]], said: str
) -> None:
    work = climb(tmp_path, cluster)
    hosts = Residency(venues=("self_host",), hosts=("endpoint-own.leastwise.svc",))
    required = work.use_case.requirements.model_copy(update={"residency": hosts})
    held = work.use_case.model_copy(update={"requirements": required})
    for number, each in enumerate(policies):
        cluster.objects["NetworkPolicy", f"p{number}"] = {"metadata": {"name": f"p{number}"}, "spec": each}
    place.check_reachable(work.use_case)
    there = ClusterPlace(replace(work, question=replace(work.question, use_case=held)))
    if not said:
        place.check_reachable(held)
        with there.serving(stage.self_host_candidate(work)):
            (app,) = cluster.names("Deployment")
            labels = cluster.objects["Deployment", app]["spec"]["template"]["metadata"]["labels"]
            assert labels["leastwise/residency"] == "listed"
        return
    with pytest.raises(BadInput, match=said):
        place.check_reachable(held)
    with pytest.raises(place.CannotBeAsked, match=said), there.serving(stage.self_host_candidate(work)):
        pass
    assert cluster.written("Deployment") == [] and not cluster.written("NetworkPolicy")
