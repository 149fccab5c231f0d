"""Where runs are kept, and who is at work on one: a run belongs to one process, whatever machine it is on."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from leastwise.errors import BadInput
from leastwise.record import client as tracking
from leastwise.record.alpha_account import EXPERIMENT, AlphaAccount
from leastwise.record.climb_run import ClimbRun, open_climb
from leastwise.record.registry import Registry
from leastwise.record.run import FINISHED
from leastwise.record.upkeep_run import open_upkeep
from leastwise.rows.use_case_file import load
from leastwise.stores import lease
from tasks.session.workspace import prospect_of
from tests.parts import case_in
from tests.servers.s3_server import S3, s3_server
from tests.unit.use_cases import use_case

ROOT = Path(__file__).parents[2]
CASE = use_case()


@pytest.fixture
def client(home: Path) -> MlflowClient:
    return tracking.connect()


def elsewhere(client: MlflowClient, run_id: str, heard_s_ago: float, **changes: object) -> None:
    """The sign of a process of another machine, on a run."""
    sign = replace(lease.Sign("other", "workstation", 41, "another kernel"), **changes)  # type: ignore[arg-type]
    text = json.dumps({**vars(sign), "heard_unix_s": time.time() - heard_s_ago})
    client.set_tag(run_id, tracking.AT_WORK + sign.owner, text)


def signs(client: MlflowClient, run_id: str) -> list[str]:
    return [name for name in client.get_run(run_id).data.tags if name.startswith(tracking.AT_WORK)]


def test_a_climb_that_another_machine_works_on_is_refused_with_who_and_where(client: MlflowClient) -> None:
    run = open_climb(client, CASE, "key").run
    tracking.leave(client, run.id)
    elsewhere(client, run.id, heard_s_ago=12)
    with pytest.raises(
        BadInput, match=r"climb of triage is at work already: process 41 on workstation, heard of 1\d s"
    ):
        open_climb(client, CASE, "key")
    open_climb(client, CASE, "another question of the same use case has a run of its own")


def test_a_climb_whose_machine_gave_no_sign_for_the_stated_time_is_taken_up(client: MlflowClient) -> None:
    run = open_climb(client, CASE, "key").run
    elsewhere(client, run.id, heard_s_ago=lease.STALE_S + 1)
    again = open_climb(client, CASE, "key")
    assert again.is_resumed and again.run.id == run.id
    assert signs(client, run.id) == [tracking.AT_WORK + lease.sign(Path(os.environ["LEASTWISE_HOME"], "leases")).owner]


def test_a_climb_whose_process_was_killed_on_this_machine_is_free_at_once(client: MlflowClient) -> None:
    run = open_climb(client, CASE, "key").run
    folder = Path(os.environ["LEASTWISE_HOME"], "leases")
    (folder / "other").write_text("left behind, locked by nobody")
    elsewhere(client, run.id, heard_s_ago=1, kernel=lease.sign(folder).kernel)
    assert open_climb(client, CASE, "key").run.id == run.id


def test_who_is_at_work_says_no_path_of_its_machine(client: MlflowClient) -> None:
    run = open_climb(client, CASE, "key").run
    ((name, value),) = [
        each for each in client.get_run(run.id).data.tags.items() if each[0].startswith(tracking.AT_WORK)
    ]
    assert name == tracking.AT_WORK + json.loads(value)["owner"] and os.environ["LEASTWISE_HOME"] not in value


def test_a_climb_whose_state_directory_was_deleted_in_the_middle_goes_on_and_is_left_as_any_other(
    client: MlflowClient,
) -> None:
    run = open_climb(client, CASE, "key").run
    before = signs(client, run.id)
    shutil.rmtree(Path(os.environ["LEASTWISE_HOME"], "leases"))
    assert open_climb(client, CASE, "key").run.id == run.id and signs(client, run.id) == before
    tracking.leave(client, run.id)
    assert signs(client, run.id) == []


def test_who_has_ended_a_climb_leaves_no_sign(client: MlflowClient) -> None:
    run = open_upkeep(client, CASE, "retrain", "key")
    assert len(signs(client, run.id)) == 1
    run.end("budget", "too dear", 0.0, 0)
    assert signs(client, run.id) == []


@pytest.mark.parametrize("kind", ["retrain", "rebaseline"])
def test_two_upkeep_runs_of_one_question_do_not_share_a_run(client: MlflowClient, kind: str) -> None:
    run = open_upkeep(client, CASE, kind, "key")  # type: ignore[arg-type]
    elsewhere(client, run.id, heard_s_ago=1)
    with pytest.raises(BadInput, match=f"a {kind} of triage is at work already"):
        open_upkeep(client, CASE, kind, "key")  # type: ignore[arg-type]


OPENS = """
import sys, time
from leastwise.errors import BadInput
from leastwise.record.client import connect
from leastwise.record.climb_run import open_climb
from tests.unit.use_cases import use_case
client = connect()
client.search_experiments()
print("ready", flush=True)
sys.stdin.readline()
try:
    print("opened", open_climb(client, use_case(), "key").run.id, flush=True)
except BadInput as refused:
    print("refused", refused, flush=True)
sys.stdin.readline()
"""


def test_of_climbs_that_are_opened_at_once_on_machines_that_share_only_mlflow_at_most_one_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENS],
            cwd=ROOT,
            env={**os.environ, **shared, "LEASTWISE_HOME": str(tmp_path / f"machine {number}")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for each in processes:
        assert each.stdout is not None and each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    said = [each.stdout.readline().split()[0] for each in processes if each.stdout]
    for each in processes:
        each.communicate("end\n", timeout=60)
    assert said.count("opened") <= 1 and said.count("opened") + said.count("refused") == 2
    client = MlflowClient(shared["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("triage")
    assert experiment is None or len(client.search_runs([experiment.experiment_id])) <= 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared["MLFLOW_TRACKING_URI"])
    if "opened" in said:  # its own machine knows at once that it has ended, whatever another was told of it
        monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / f"machine {said.index('opened')}"))
    assert not open_climb(tracking.connect(), CASE, "key").run.is_finished


def test_a_deleted_experiment_is_named_with_how_to_restore_or_remove_it(client: MlflowClient, tmp_path: Path) -> None:
    account, registry = AlphaAccount(client), Registry(client, CASE.name)
    question = prospect_of(load(case_in(tmp_path))).question
    account.draw(question, "question", 0.05)
    open_climb(client, CASE, "key")
    for name in (CASE.name, EXPERIMENT):
        client.delete_experiment(client.get_experiment_by_name(name).experiment_id)
    remedy = r"experiment {} \(id \d+ in sqlite:.*was deleted; restore it with `mlflow experiments restore"
    with pytest.raises(BadInput, match=remedy.format(CASE.name)):
        open_climb(client, CASE, "key")
    with pytest.raises(BadInput, match=remedy.format(EXPERIMENT)):
        account.draw(question, "another", 0.05)
    with pytest.raises(BadInput, match=remedy.format(CASE.name)):
        registry.log()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as s3:
        yield s3


def test_a_tracking_database_keeps_its_runs_files_on_s3_where_that_is_its_artifact_root(
    client: MlflowClient, server: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", f"s3://{server.bucket}/runs")
    run = open_climb(client, CASE, "key").run
    assert run.run.info.artifact_uri.startswith(f"s3://{server.bucket}/runs/triage/")
    assert run.use_case() == CASE


def test_a_tracking_database_keeps_its_runs_files_in_the_state_directory_and_never_in_the_current_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere_home = tmp_path / "a state, 100% of it #1"
    monkeypatch.setenv("LEASTWISE_HOME", str(elsewhere_home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    run = open_climb(tracking.connect(), CASE, "key").run
    run.close(FINISHED)
    assert (elsewhere_home / "mlartifacts" / "triage").is_dir()
    assert ClimbRun.read(mlflow.MlflowClient(), run.id).use_case() == CASE


def test_a_damaged_tracking_database_is_named_with_the_remedy(home: Path) -> None:
    (home / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"rubbish" * 4000)
    with pytest.raises(BadInput, match=r"mlflow.db: this state file is damaged .*backup"):
        tracking.connect()


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "http"])
def test_a_tracking_server_nobody_serves_is_bad_input_without_its_password(
    home: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://user:hidden@127.0.0.1:9/mlflow")
    with pytest.raises(BadInput, match="MLFLOW_TRACKING_URI") as refused:
        tracking.connect()
    assert "hidden" not in str(refused.value)
