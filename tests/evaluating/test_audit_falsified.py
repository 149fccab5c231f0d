"""Whatever is changed afterwards in the record of a real climb, the audit finds it and says what."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.evaluating.audit import differences
from leastwise.evaluating.stage import evaluate_stage
from leastwise.record.client import connect
from leastwise.record.judged_runs import use_case_above
from leastwise.record.stage_run import EXAMPLES, StageRun
from tasks.prompt import prompt_candidates
from tests.toys import served_toy
from tests.workspaces import case_file, opened

Row = dict[str, Any]
PRICE = {"input": 1.0, "cached": 0.1, "output": 4.0, "illustrative": True}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[str]:
    """The id of a stage run that a real endpoint was asked for, in a state directory of this module."""
    folder = tmp_path_factory.mktemp("falsified")
    (folder / "state").mkdir()
    shutil.copy(empty_tracking, folder / "state" / "mlflow.db")
    numbers = range(10, 410)
    rows = pd.DataFrame({"id": [f"r{n}" for n in numbers], "text": [f"number {n}" for n in numbers]})
    rows.assign(label=["odd" if n % 2 else "even" for n in numbers]).to_parquet(folder / "gate.parquet")
    limits = {"quality": (0.84, 0.1), "adherence": (0.84, 0.1), "p95_latency_ms": (4e3, 2e3)}
    limits["usd_per_1k_requests"] = (0.1, 0.05)
    with pytest.MonkeyPatch.context() as patch, served_toy() as endpoint:
        patch.setenv("LEASTWISE_HOME", str(folder / "state"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("OPENAI_API_KEY", "none")
        case = {
            "name": "falsified",
            "task": {"instruction": "Odd or even?", "labels": ["odd", "even"]},
            "data": {"gate": "gate.parquet"},
            "requirements": {name: {"bound": bound, "margin": margin} for name, (bound, margin) in limits.items()},
            "traffic": {"requests_per_month": 1000, "concurrency": 4, "output_tokens": 8},
            "models": {
                "candidates": [{"uri": "openai:toy", "base_url": endpoint, "price": PRICE, "context_tokens": 200}]
            },
            "retrieval": {"fixed_examples": 0},
            "allow_no_test": True,
        }
        work = opened(case_file(folder, case))
        result = evaluate_stage(work, "prompt", prompt_candidates(work)[:1])
        assert result.verdict.outcome == "PASS", result.verdict.reason
        assert result.run.figures["quality.lost"] >= 1
        yield str(result.run.id)


@pytest.fixture
def run(measured: str) -> Iterator[StageRun]:
    """That run, put back as it was afterwards."""
    logged = StageRun.read(connect(), measured)
    table, tags = json.dumps(logged.read_json(EXAMPLES)), {name: logged.tag(name) for name in logged.run.data.tags}
    yield logged
    logged.log_text(table, EXAMPLES)
    logged.write(logged.figures, {name: value for name, value in tags.items() if name.startswith("leastwise.")})
    logged.write(tags={name: value for name, value in tags.items() if name.endswith(".verdict")})


def said_of(run: StageRun) -> str:
    return " | ".join(differences(run.again(), use_case_above(run)))


def rewrite(run: StageRun, change: Callable[[list[Row]], list[Row]]) -> None:
    table: Any = run.read_json(EXAMPLES)
    rows = change([dict(zip(table["columns"], row, strict=True)) for row in table["data"]])
    table["data"] = [[row[name] for name in table["columns"]] for row in rows]
    run.log_text(json.dumps(table), EXAMPLES)


def in_row(which: Callable[[Row], bool], **values: Any) -> Callable[[StageRun], None]:
    """Change the first such row."""

    def change(rows: list[Row]) -> list[Row]:
        next(row for row in rows if which(row)).update(values)
        return rows

    return lambda run: rewrite(run, change)


def in_rows(change: Callable[[list[Row]], list[Row]]) -> Callable[[StageRun], None]:
    return lambda run: rewrite(run, change)


def figures(**values: float) -> Callable[[StageRun], None]:
    return lambda run: run.write({name.replace("__", "."): value for name, value in values.items()})


def remove_examples(run: StageRun) -> None:
    Path(run.run.info.artifact_uri.removeprefix("file://"), EXAMPLES).unlink()


def is_wrong(row: Row) -> bool:
    return row["score"] == 0


def is_lost(row: Row) -> bool:
    return row["error"] is not None


def slow(row: Row) -> bool:
    return bool(row["timed"])


FALSIFICATIONS: dict[str, tuple[Callable[[StageRun], None], str]] = {
    "score changed": (in_row(is_wrong, score=1.0), "scored otherwise than the answer"),
    "answer changed": (in_row(is_wrong, answer="odd", score=1.0, expected="odd"), "quality: logged"),
    "interval changed": (figures(quality__lower=0.9), "quality: logged"),
    "estimate changed": (figures(adherence__estimate=0.99, adherence=0.99), "adherence: logged 0.99"),
    "verdict tag": (lambda run: run.write(tags={"leastwise.verdict": "FAIL"}), "logged FAIL, the interval gives PASS"),
    "requirement's verdict tag": (lambda run: run.write(tags={"quality.verdict": "FAIL"}), "quality: logged FAIL"),
    "row removed": (in_rows(lambda rows: rows[:-1]), "rows of gate"),
    "row removed and the count with it": (
        lambda run: (rewrite(run, lambda rows: rows[1:]), run.write({"rows.gate": len(run.examples())}))[0],
        "quality: logged",
    ),
    "row duplicated": (in_rows(lambda rows: [*rows, rows[-1]]), "more than once"),
    "rows in another order": (in_rows(lambda rows: sorted(rows, key=lambda row: str(row["score"]))), "quality: logged"),
    "latency lowered": (in_rows(lambda rows: [row | {"latency_ms": 1.0} for row in rows]), "p95_latency_ms: logged"),
    "latency of one row lowered": (in_row(slow, latency_ms=0.5), "not the table that was logged"),
    "input changed": (in_row(slow, input="number 0"), "not the table that was logged"),
    "p95 lowered": (figures(p95_latency_ms=1.0, p95_latency_ms__upper=1.0), "p95_latency_ms: logged"),
    "usd lowered": (
        in_rows(lambda rows: [row | {"usd": row["usd"] / 2} for row in rows]),
        "usd_per_1k_requests: logged",
    ),
    "usd of one row lowered": (in_row(slow, usd=0.0), "usd.per_request: logged"),
    "alpha changed": (figures(quality__alpha_pass=0.05), "alpha_pass 0.05 is more than the 0.0"),
    "alpha changed everywhere, within what was drawn": (
        figures(**{f"{name}__alpha_pass": 0.02 for name in ("quality", "adherence")}),
        "quality: logged",
    ),
    "alpha to fail changed": (figures(quality__alpha_fail=0.05), "alpha_fail 0.05 is not 0.0125"),
    "bound changed": (figures(quality__bound=0.7), "quality was measured against 0.7"),
    "margin changed": (figures(usd_per_1k_requests__margin=0.5), "usd_per_1k_requests was measured against"),
    "lost row made a success": (in_row(is_lost, answer="odd", score=1.0, error=None), "quality: logged"),
    "lost row scored": (in_row(is_lost, answer="odd", score=1.0), "lost, and scored all the same"),
    "every row removed": (remove_examples, "examples.json was logged and is gone"),
    "losses hidden": (figures(quality__lost=0), "quality: 0 lost rows were logged"),
}


def test_a_record_as_it_was_logged_agrees_with_the_audit(run: StageRun) -> None:
    assert said_of(run) == ""


@pytest.mark.parametrize("name", FALSIFICATIONS)
def test_a_planted_falsification_is_found_and_named(run: StageRun, name: str) -> None:
    falsify, said = FALSIFICATIONS[name]
    falsify(run)
    assert said in said_of(run)


def test_a_table_that_a_killed_process_had_written_is_written_over_not_added_to(run: StageRun) -> None:
    table: Any = run.read_json(EXAMPLES)
    assert len(table["data"]) == run.figures["rows.gate"]
    assert any(len(repr(row[table["columns"].index("latency_ms")])) > 14 for row in table["data"])  # to the last digit
