"""Two machines that share nothing but the address of an MLflow server: what one makes the other judges, checked by
digest; a state directory may be deleted at any time.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating.cascade_offer import CascadeOffer, key_before
from leastwise.evaluating.proposal.checking import _check_weights
from leastwise.ladder.candidate import Candidate, Prompt, Weights
from leastwise.models import weights
from leastwise.record.client import connect
from leastwise.record.handover.handover import Handover
from leastwise.record.handover.publications import EXPERIMENT, Publications
from leastwise.record.handover.tables import brought, handed_over
from leastwise.record.published.candidate_files import load
from leastwise.record.upkeep_run import open_upkeep
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from leastwise.run_id import RunId
from leastwise.serving.registering import register
from leastwise.stores import storage
from leastwise.stores.made.naming import Made
from leastwise.stores.tables import table_files
from tasks import data
from tasks.climb import leave_climb
from tasks.distill import distill_student, label_with_teacher, student_candidate
from tasks.fine_tune import evaluate_fine_tune, fine_tune_adapter, tuned_candidate
from tasks.pretrain import continue_pretraining
from tasks.retrain import with_examples
from tasks.session.shown import show_rest
from tasks.session.workspace import open_workspace
from tests.cities import LABELS, open_cities
from tests.servers.mlflow_server import mlflow_server
from tests.stores.test_made import let_go
from tests.unit.use_cases import use_case
from tests.workspaces import log_stage, opened, quality

SHORT = {
    "max_examples": 8,
    "batch_size": 4,
    "dev_rows": 1,
    "dev_checks": 1,
    "usd_per_hour": 1.0,
    "pretrain_steps": 1,
    "teacher_labels": 100,
}
STUDENT = {"kind": "causal", "blocks": 1, "max_examples": 8, "rank": 4}
NOT_A_CACHE = ("ledger.db", "responses.db", "batches.db")  # without a shared state


class Machines:
    """Machines that share the address of a tracking server alone, and the folder of a use case's tables."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, converted: Path) -> None:
        self.folder, self._patch, self._converted = folder, patch, converted
        self._climbs: list[RunId] = []

    def on(self, name: str) -> Path:
        """From now on this process is that machine; what it used before is let go. The base is converted there: that
        takes seconds, and each machine has the same.
        """
        let_go(self.folder)
        home = self.folder / name
        if not (home / "gguf").exists():
            shutil.copytree(self._converted, home / "gguf", copy_function=os.link)
        self._patch.setenv("LEASTWISE_HOME", str(home))
        return home

    def open(self, work: Workspace) -> RunId:
        """The climb that was opened, left when the test ends."""
        self._climbs.append(work.run.id)
        return work.run.id

    def leave(self) -> None:
        """Nobody works on anything any longer."""
        self.on("climber")
        for climb in self._climbs:
            leave_climb(climb)
        let_go(self.folder)

    def delete(self, name: str) -> None:
        """Delete all of its state directory that is a cache."""
        for each in (self.folder / name).glob("*"):
            if not each.name.startswith(NOT_A_CACHE):
                shutil.rmtree(each) if each.is_dir() else each.unlink()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture
def machines(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, tiny_gguf: Path) -> Iterator[Machines]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    both = Machines(tmp_path, monkeypatch, tiny_gguf)
    yield both
    both.leave()


def files_of(folder: Path) -> dict[str, str]:
    return {str(each.relative_to(folder)): storage.sha256(each) for each in folder.rglob("*") if each.is_file()}


def paths_in(value: Any, folder: Path) -> list[str]:
    """The places in something as JSON that name a path below a folder."""
    written = json.dumps(value, default=str)
    return [word for word in written.replace('"', " ").split() if str(folder) in word]


def test_what_a_worker_makes_is_fetched_by_digest_and_judged_elsewhere_and_no_path_leaves(
    tmp_path: Path, tiny: Path, machines: Machines
) -> None:
    climber, worker = machines.on("climber"), machines.on("worker")
    machines.on("climber")
    climb = machines.open(open_cities(tmp_path, tiny, LABELS, STUDENT, **SHORT))

    machines.on("worker")
    adapter = fine_tune_adapter.fn(climb)
    assert adapter.uri.startswith("made://adapters/")

    machines.on("climber")
    work = open_workspace(climb)
    candidate = tuned_candidate(work, "fine_tune", adapter)
    log_stage(work, candidate, quality(0.8, 1.0, margin=0.3))
    assert candidate.weights == adapter == work.run.latest("fine_tune").candidate().weights
    assert files_of(work.trained(candidate)) == files_of(worker / "adapters" / Made.parse(adapter.uri).key)
    assert weights.directory_hash(work.trained(candidate)) == adapter.revision
    tags = {name: value for name, value in work.run.again().tags("leastwise.").items() if "at_work" not in name}
    logged = [candidate.model_dump(), tags, work.run.latest("fine_tune").tags("")]
    assert paths_in(logged, worker) == paths_in(logged, climber) == []

    machines.on("worker")
    labels = label_with_teacher.fn(climb)
    data.validate_teacher_labels.fn(climb, labels)
    machines.on("trainer")
    student = distill_student.fn(climb, labels)

    machines.on("climber")
    work = open_workspace(climb)
    taught = student_candidate(work, student)
    assert labels.startswith("made://labels/") and len(table_files.read_table(work.local(labels))) == 60
    assert student.uri.startswith("made://students/") and taught.model.startswith("made://bases/")
    here = work.handover.here(taught)
    assert here.weights is not None
    assert (climber / "students").as_uri() in here.weights.uri and (climber / "bases").as_uri() in here.model
    assert json.loads((work.model_dir(taught.model) / "config.json").read_text())["num_hidden_layers"] == 1
    assert weights.directory_hash(work.model_dir(taught.model)) == taught.revision

    spent = work.budget.usd_spent
    for name in ("worker", "trainer", "climber"):
        machines.delete(name)
    machines.on("trainer")
    assert (fine_tune_adapter.fn(climb), label_with_teacher.fn(climb), distill_student.fn(climb, labels)) == (
        adapter,
        labels,
        student,
    ), "what was published is fetched, and not made again"
    machines.on("climber")
    assert open_workspace(climb).budget.usd_spent == spent
    experiment = connect().get_experiment_by_name(EXPERIMENT)
    runs = connect().search_runs([experiment.experiment_id])
    names = [run.data.tags["leastwise.made"] for run in runs]
    assert len(names) == len(set(names)), "each is published once"


@pytest.mark.soak
def test_what_a_worker_trained_is_judged_registered_and_served_by_others(
    tmp_path: Path, tiny: Path, machines: Machines
) -> None:
    machines.on("climber")
    task = LABELS | {"instruction": "Name the city that is meant."}
    climb = machines.open(open_cities(tmp_path, tiny, task, {}, **SHORT))
    machines.on("worker")
    adapter = fine_tune_adapter.fn(climb)
    machines.on("climber")
    evaluate_fine_tune.fn(climb, adapter)
    machines.delete("worker")
    machines.delete("climber")
    machines.on("promoter")
    work = open_workspace(climb)
    run = work.run.latest("fine_tune")
    assert run.verdict and run.candidate().weights == adapter
    version = register(work, run)
    show_rest(work)
    machines.on("endpoint")
    said = load(f"models:/{work.use_case.name}/{version}").predict(pd.DataFrame({"text": ["Oslo 1"]}))
    judged = run.every_example().set_index("input")["answer"]
    assert list(said["answer"]) and len(judged)


def with_documents(folder: Path) -> Workspace:
    """The climb of a use case to which documents were added."""
    texts = [f"Oslo is a town, and number {n} of its trams goes on to the next one." for n in range(40)]
    pd.DataFrame({"id": [f"d{n}" for n in range(40)], "text": texts}).to_parquet(folder / "documents.parquet")
    case = yaml.safe_load((folder / "case.yaml").read_text())
    case["data"]["documents"] = "documents.parquet"
    (folder / "case.yaml").write_text(yaml.safe_dump(case))
    return opened(folder / "case.yaml")


def test_a_base_that_a_worker_trained_further_is_built_upon_elsewhere(
    tmp_path: Path, tiny: Path, machines: Machines
) -> None:
    machines.on("climber")
    machines.open(open_cities(tmp_path, tiny, LABELS | {"instruction": "Which city?"}, {}, **SHORT))
    climb = machines.open(with_documents(tmp_path))
    worker = machines.on("worker")
    base = continue_pretraining.fn(climb)
    machines.on("trainer")
    adapter = fine_tune_adapter.fn(climb, base)
    machines.on("climber")
    work = open_workspace(climb)
    candidate = tuned_candidate(work, "pretrain", adapter, base)
    assert candidate.model == base and base.startswith("made://bases/")
    assert files_of(work.model_dir(base)) == files_of(worker / "bases" / Made.parse(base).key)
    machines.delete("worker")
    machines.on("worker")
    assert (
        continue_pretraining.fn(climb) == base and not (worker / "bases" / f"{Made.parse(base).key}.adapter").exists()
    )


def test_a_state_directory_deleted_in_the_middle_of_a_training_costs_that_training_and_no_trial_before_it(
    tmp_path: Path, tiny: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.on("climber")
    task = LABELS | {"instruction": "Say which city it is."}
    search = {"ranks": [4, 8], "learning_rates": [0.001], "epochs": [1], "first_examples": 16}
    short = SHORT | {"max_examples": 32}
    climb = machines.open(open_cities(tmp_path, tiny, task, {}, search=search, **short))
    worker = machines.on("worker")
    trials = worker / "adapters" / "trials"
    deleted: dict[str, str] = {}

    def delete(*_: object) -> None:
        done = {str(each): each.read_text() for each in trials.glob("[!.]*/training.json")}
        if not deleted and len(done) == 2:  # the search is done
            deleted.update(done)
            machines.delete("worker")
            raise KeyboardInterrupt

    monkeypatch.setattr("tasks.session.console.Console.show_training", delete)
    with pytest.raises(KeyboardInterrupt):
        fine_tune_adapter.fn(climb)
    machines.on("worker")
    adapter = fine_tune_adapter.fn(climb)
    assert deleted and {name: Path(name).read_text() for name in deleted} == deleted, "fetched, not trained again"
    machines.on("climber")
    work = open_workspace(climb)
    assert weights.directory_hash(work.handover.weights_dir(adapter)) == adapter.revision
    assert (worker / "ledger.db").exists()


@pytest.mark.parametrize("is_shared", [True, False], ids=["two machines", "one machine"])
def test_the_examples_of_a_retraining_are_read_wherever_it_goes_on(
    tmp_path: Path,
    tiny: Path,
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
    empty_tracking: Path,
    is_shared: bool,
) -> None:
    one = machines.on("one")
    if not is_shared:
        shutil.copy(empty_tracking, one / "mlflow.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{one / 'mlflow.db'}")
    work = open_cities(tmp_path, tiny, LABELS | {"instruction": f"Which city of {is_shared}?"}, {}, **SHORT)
    machines.open(work)
    union = with_examples(work.use_case, None, "")
    assert union.data.train is not None and Path(union.data.train).parent == one / "retraining"
    run = open_upkeep(connect(), union, "retrain", f"key {is_shared}")
    run.log_data(Question(union, Tables(union)).data_sets("train"))
    assert str(one / "retraining") not in json.dumps([run.read_json("use_case.json"), _inputs(run.id)])
    machines.on("other" if is_shared else "one")
    read = open_workspace(run.id).use_case.data.train
    assert read is not None and storage.sha256(read) == storage.sha256(union.data.train)
    assert (tmp_path / "other" in Path(read).parents) == is_shared
    assert len(open_workspace(run.id).tables.need("train")) == 40


def test_a_table_in_the_state_directory_that_a_use_case_names_is_read_in_that_of_whoever_reads(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = use_case()
    here = case.model_copy(update={"data": case.data.model_copy(update={"gate": str(own_home / "data" / "g.parquet")})})
    recorded = handed_over(connect(), here)
    assert recorded.data.gate == "${LEASTWISE_HOME}/data/g.parquet"
    client = connect()
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "other"))
    assert brought(client, recorded).data.gate == str(tmp_path / "other" / "data" / "g.parquet")


def _inputs(run_id: str) -> list[str]:
    return [each.dataset.source for each in connect().get_run(run_id).inputs.dataset_inputs]


def a_thing(home: Path, key: str, text: str = "x") -> Path:
    folder = home / "students" / key
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(text)
    return folder


def test_who_makes_the_same_later_goes_by_what_was_published_first(machines: Machines) -> None:
    one, other = machines.on("one"), machines.folder / "other"
    a_thing(one, "first", "made at 9")
    first = Handover(connect(), one).hand_over("students", "first")
    a_thing(other, "first", "made at 10")
    handover = Handover(connect(), other)
    assert handover.hand_over("students", "first") == first
    assert (handover.path(first.uri) / "model.safetensors").read_text() == "made at 9"


def test_what_was_published_and_is_damaged_there_is_refused(machines: Machines, server: str) -> None:
    one, other = machines.on("one"), machines.folder / "other"
    folder = a_thing(one, "damaged")
    made = Handover(connect(), one).hand_over("students", "damaged")
    (folder / "model.safetensors").write_text("y")
    publication = Publications(connect()).of(made)
    assert publication is not None
    connect().log_artifact(publication.run_id, str(folder / "model.safetensors"), "files")
    with pytest.raises(BadInput, match=r"made://students/damaged.*is not what was made.*students/damaged"):
        Handover(connect(), other).path(made.uri)


def test_a_publication_that_a_kill_broke_off_is_deleted_once_its_maker_is_surely_gone(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = machines.on("one")
    a_thing(home, "broken")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("mlflow.MlflowClient.log_artifacts", killed)
            Handover(connect(), home).hand_over("students", "broken")
    made = Handover(connect(), home).hand_over("students", "broken")
    client = connect()
    monkeypatch.setattr("leastwise.record.handover.publications.BROKEN_OFF_S", 0.0)
    (experiment,) = [each.experiment_id for each in client.search_experiments() if each.name == "leastwise-made"]
    runs = client.search_runs([experiment], "tags.`leastwise.made` = 'students/broken'")
    assert sorted(run.info.status for run in runs) == ["FINISHED", "RUNNING", "RUNNING"], "they may live"
    Publications(client).publish(made, home / "students" / "broken")
    runs = client.search_runs([experiment], "tags.`leastwise.made` = 'students/broken'")
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    assert (Handover(connect(), machines.folder / "other").path(made.uri) / "model.safetensors").exists()


def test_a_file_that_runs_code_is_not_handed_on(machines: Machines) -> None:
    home = machines.on("one")
    (a_thing(home, "pickled") / "optimizer.pt").write_bytes(b"\x80")
    with pytest.raises(BadInput, match=r"optimizer\.pt: is no file of weights"):
        Handover(connect(), home).hand_over("students", "pickled")
    assert not Handover(connect(), machines.folder / "other").bring("students", "pickled")


def test_what_is_nowhere_is_told_with_what_to_do(machines: Machines) -> None:
    home = machines.on("one")
    made = Made("adapters", "gone", "0" * 64)
    with pytest.raises(BadInput, match=r"it is not here .* not published .* run what made it once more"):
        Handover(connect(), home).path(made.uri)


# -- one machine ------------------------------------------------------------------------------------------------------


def test_on_one_machine_nothing_is_copied_and_what_is_made_again_is_the_same_thing(own_home: Path) -> None:
    folder = a_thing(own_home, "key")
    (folder / "report.json").write_text('{"seconds": 1}')
    handover = Handover(connect(), own_home)
    made = handover.hand_over("students", "key")
    assert not handover.is_shared and connect().get_experiment_by_name(EXPERIMENT) is None
    assert handover.path(made.uri) == folder and handover.bring("students", "key")
    (folder / "report.json").write_text('{"seconds": 2}')
    again = Weights(kind="student", uri=made.uri, revision=weights.directory_hash(folder))
    assert handover.weights_dir(again) == folder
    (folder / "model.safetensors").write_text("other weights")
    with pytest.raises(BadInput, match="its files are not those that were made"):
        handover.weights_dir(again)


def test_a_proposal_on_weights_that_were_made_is_held_to_their_revision(own_home: Path) -> None:
    folder = a_thing(own_home, "key")
    made = Handover(connect(), own_home).hand_over("students", "key")
    trained = Weights(kind="adapter", uri=made.uri, revision=weights.directory_hash(folder))
    proposed = Candidate(stage="fine_tune", model="package://base", venue="managed", weights=trained)
    _check_weights(proposed, "", own_home)
    other = proposed.model_copy(update={"weights": trained.model_copy(update={"revision": "0" * 16})})
    with pytest.raises(BadInput, match=r"weights\.revision: 0+ is written, and made://students/key"):
        _check_weights(other, "", own_home)
    shutil.rmtree(folder)
    with pytest.raises(BadInput, match="it is not here"):
        _check_weights(proposed, "", own_home)


def test_a_key_is_the_same_whoever_has_the_files_and_that_of_a_path_is_as_it_was(tmp_path: Path) -> None:
    adapter = Weights(kind="adapter", uri="file:///s/adapters/a1", revision="r1")
    old = Candidate(
        stage="fine_tune",
        model="package://base",
        revision="b",
        venue="managed",
        prompt=Prompt(system="Label it."),
        weights=adapter,
    )
    assert old.key == "625dc0a77ca977b2", "a key that was given out stays"

    def named(sha256: str) -> Candidate:
        uri = Made("adapters", "a1", sha256 * 64).uri
        return old.model_copy(update={"weights": adapter.model_copy(update={"uri": uri})})

    assert named("0").key == named("f").key != old.key
    assert key_before(named("0"), Path("/s")) == old.key and key_before(old, Path("/s")) == old.key
    cascade = CascadeOffer("distill", named("0"), named("0"))
    assert key_before(cascade, Path("/s")) == CascadeOffer("distill", old, old).key


def test_weights_on_s3_are_held_to_their_revision_and_two_of_one_name_are_kept_apart(
    tmp_path: Path, own_home: Path, machines: Machines
) -> None:
    from tests.servers.s3_server import s3_server

    handover = Handover(connect(), own_home)
    with s3_server(tmp_path / "s3") as s3, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        made = []
        for where in ("a", "b"):
            folder = a_thing(tmp_path / where, "adapter", where)
            storage.write_bytes(f"s3://{s3.bucket}/{where}/adapter/model.safetensors", where.encode())
            revision = weights.directory_hash(folder)
            made.append(Weights(kind="adapter", uri=f"s3://{s3.bucket}/{where}/adapter", revision=revision))
        found = [(handover.weights_dir(each) / "model.safetensors").read_text() for each in made]
        assert found == ["a", "b"]
        with pytest.raises(BadInput, match="holds other weights"):
            handover.weights_dir(made[0].model_copy(update={"revision": "0" * 16}))
        # A whole model goes to the prefix that the use case names, an adapter beside it to MLflow's own files.
        one, other, prefix = machines.on("one"), machines.folder / "other", f"s3://{s3.bucket}/models"
        whole, adapter = a_thing(one, "whole"), a_thing(one, "adapter")
        (adapter / "adapter_config.json").write_text("{}")
        for key in ("whole", "adapter"):
            name = Handover(connect(), one, prefix).hand_over("students", key)
            publication = Publications(connect()).of(name)
            assert publication is not None and publication.place.startswith(f"{prefix}/students") == (key == "whole")
            assert files_of(Handover(connect(), other).path(name.uri)) == files_of(one / "students" / key)
        assert len(storage.files_below(prefix)) == len(list(whole.iterdir()))
