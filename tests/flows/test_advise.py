"""`advise` checks, explains and logs without spending, also for models that cannot run here."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from flows.advise import advise
from flows.running.command_line import run
from leastwise.errors import BadInput
from leastwise.ladder.ending import AdviceEnding
from leastwise.money.model_book import ModelBook, ModelEntry
from leastwise.record import alpha_account
from leastwise.record.client import connect, tracking_uri
from leastwise.record.run import RecordedRun
from leastwise.rows.use_case_file import Overrides, load, saved
from leastwise.stores.shipped import MODEL_BOOK, USE_CASES
from leastwise.use_case import UseCase
from tasks.advise import give_advice
from tasks.session import workspace
from tests.workspaces import home_with_triage

SAVED = ("alert-triage", "alert-triage-strict", "alert-triage-cheap")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, triage_data: Path, empty_tracking: Path) -> Iterator[Path]:
    """A state directory of its own with the embedded data in it."""
    folder = tmp_path_factory.mktemp("home")
    with home_with_triage(folder, triage_data, empty_tracking) as home:
        yield home


def advised(use_case: str, overrides: Overrides | None = None) -> tuple[AdviceEnding, dict[str, Any]]:
    """What the task gives back, and the advice as logged."""
    ending = give_advice.fn(use_case, overrides)
    return ending, RecordedRun.read(connect(), ending.mlflow_run_id).read_json("advice.json")


def statuses(logged: dict[str, Any]) -> dict[str, str]:
    return {each["stage"]: each["status"] for each in logged["stages"]}


def test_advice_is_one_run_in_the_use_cases_experiment_and_spends_nothing(home: Path) -> None:
    ending, _ = advised("alert-triage")
    client = MlflowClient(tracking_uri())
    run = client.get_run(ending.mlflow_run_id)
    assert (ending.outcome, ending.usd_spent, ending.calls_paid) == ("advice", 0.0, 0)
    assert client.get_experiment(run.info.experiment_id).name == "alert-triage"
    assert run.data.tags["leastwise.kind"] == "advice"
    assert "| rag | possible |" in run.data.tags["mlflow.note.content"]
    assert "the price book 20" in run.data.tags["mlflow.note.content"]
    assert (run.data.metrics["usd.spent"], run.info.status) == (0.0, "FINISHED")
    assert not any((home / name).exists() for name in ("ledger.db", "responses.db", "models", "indexes"))
    accounts = client.get_experiment_by_name(alpha_account.EXPERIMENT)
    assert accounts is None  # nothing is drawn on the gate set's alpha account


def test_the_shipped_use_cases_expect_to_stop_where_they_should(capsys: pytest.CaptureFixture[str]) -> None:
    demo, cheap = advised("alert-triage")[1], advised("alert-triage-cheap")[1]
    assert statuses(demo)["pretrain"] == "ruled_out"
    assert statuses(demo)["fine_tune"] == statuses(cheap)["self_host"] == "possible"
    assert (demo["expected_stop"], cheap["expected_stop"]) == ("rag", "self_host")
    shown = capsys.readouterr()
    assert "pretrain     – ruled out" in shown.err
    assert shown.out == ""


def test_the_gate_set_of_the_shipped_use_cases_is_large_enough_for_their_margins() -> None:
    for name in SAVED:
        assert all(need["examples"] <= need["rows"] for need in advised(name)[1]["gate"])


def test_strict_wants_more_than_the_demo_of_the_same_task_and_data_and_trains_on_more_to_reach_it() -> None:
    demo, strict = (load(name) for name in SAVED[:2])
    differing = {name for name, value in demo if value != getattr(strict, name)}
    assert differing == {"name", "description", "requirements", "training", "search", "confirm_rows"}
    wanted = [each.requirements.bounds for each in (demo, strict)]
    assert wanted[0].pop("quality").bound < wanted[1]["quality"].bound - wanted[1].pop("quality").margin
    assert wanted[0] == wanted[1]
    assert demo.training.max_examples < strict.training.max_examples


def test_a_use_case_for_vllm_and_three_providers_is_validated_and_costed_here() -> None:
    ending, logged = advised("support-llama-vllm")
    assert statuses(logged)["fine_tune"] == "ruled_out"
    assert "30 training examples" in ending.reason or "fine_tune" in ending.reason
    assert all(each["estimate_usd"] > 0 for each in logged["stages"] if each["status"] == "possible")
    assert any("quality: about" in text for text in logged["missing"])
    schemes = {model.uri.split(":")[0] for model in load("support-llama-vllm").models.candidates}
    assert schemes == {"hf", "openai", "anthropic", "google"}


def test_a_model_that_is_retired_or_retires_before_a_training_is_paid_back_is_warned_of_and_refused_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, today = ModelBook.model_validate(yaml.safe_load(MODEL_BOOK.read_text())), datetime.now(UTC).date()
    of = {"basis": "announced", "source": "p", "checked": today}
    going = [("anthropic:going", today + timedelta(days=300)), ("anthropic:gone", today - timedelta(days=1))]
    entries = tuple(ModelEntry.model_validate({"uri": uri, "retires": day, **of}) for uri, day in going)
    monkeypatch.setattr(workspace, "_models_of", lambda _: book.model_copy(update={"models": entries}))
    raw = yaml.safe_load((USE_CASES / "alert-triage.yaml").read_text())
    price = {"input": 1.0, "output": 2.0}
    raw["models"]["candidates"] = [{"uri": uri, "price": price, "training_on_output": False} for uri, _ in going]
    raw["traffic"]["requests_per_month"], raw["training"] = 100, raw.get("training", {}) | {"usd_per_hour": 50.0}
    raw["hosting"] = raw.get("hosting", {}) | {"managed_minimum_usd_per_month": 0.0}
    raw["budget_usd"] = raw["budget_usd_per_month"] = 10_000
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    _, logged = advised(str(tmp_path / "case.yaml"))
    said = "\n".join(logged["warnings"])
    assert f"anthropic:gone is gone since {today - timedelta(days=1)}" in said
    assert f"anthropic:going retires on {today + timedelta(days=300)}, and these" in said and "fine_tune (" in said
    assert not logged["refused"]


def test_an_override_changes_the_advice() -> None:
    _, logged = advised("alert-triage", Overrides(last_stage="rag"))
    assert statuses(logged)["fine_tune"] == "ruled_out"


def test_an_unknown_use_case_is_named_with_those_there_are() -> None:
    with pytest.raises(BadInput, match=r"no saved use case 'alert-tirage'; there are .*alert-triage"):
        give_advice.fn("alert-tirage")


def test_missing_data_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path))
    with pytest.raises(BadInput, match=r"data\.gate: .* does not exist; build it \(`make data`"):
        give_advice.fn("alert-triage")


def test_every_saved_use_case_is_valid() -> None:
    assert {"alert-triage", "support-llama-vllm"} <= set(saved())
    for name in saved():
        assert isinstance(load(name), UseCase)


def test_the_flow_ends_with_one_line_of_json_and_an_artifact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.client.orchestration import get_client

    monkeypatch.setattr(sys, "argv", ["advise", "use_cases/support-llama-vllm.yaml"])
    with pytest.raises(SystemExit) as exit_:
        run(advise)
    with get_client(sync_client=True) as client:
        keys = [artifact.key for artifact in client.read_artifacts()]
    printed = capsys.readouterr().out.strip().splitlines()
    assert (exit_.value.code, len(printed)) == (0, 1)
    assert json.loads(printed[0])["outcome"] == "advice"
    assert keys.count("advice-support-llama-vllm") == 1


def test_advice_reads_the_checks_of_prepare_and_ends_with_what_would_make_it_cheaper_to_decide(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ending, logged = advised("alert-triage")
    shown = capsys.readouterr().err
    assert "data: groups of near duplicates that lie in two splits: none;" in shown
    assert any(text.startswith("shares of labels off by") for text in logged["data"])
    said = [saving["said"] for saving in logged["cheaper"]]
    assert said and ending.fields()["cheaper"] == tuple(said)
    last = [line.strip() for line in shown.rstrip().splitlines()[-len(said) - 1 :]]
    assert last[0].startswith("What would make this cheaper to decide") and last[1:] == said
    margin = next(saving for saving in logged["cheaper"] if "requirements.adherence.margin" in saving["change"])
    assert margin["examples"] < margin["examples_before"] and margin["usd"] < margin["usd_before"]
    note = MlflowClient(tracking_uri()).get_run(ending.mlflow_run_id).data.tags["mlflow.note.content"]
    assert all(f"- {text}" in note for text in said)
