"""A stage's run in MLflow, or one try of a stage, or the judged reference: written, and read back as it was written.

It decides nothing: the verdict is judged from what `evaluation` reads back (rule 3).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from leastwise.content import content_key
from leastwise.evidence.measurement import Measurement
from leastwise.ladder import Evaluation, Record, Verdict, judge
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.measured import Measured
from leastwise.metrics.grades import Grades
from leastwise.record.handover.tables import handed_over
from leastwise.record.published.candidate_files import save_candidate
from leastwise.record.reports import answered_by
from leastwise.record.run import (
    ANSWERED_BY,
    CANDIDATE,
    ERROR,
    FINDING,
    GATE_HASH,
    KEY,
    MAY_TEACH,
    MEASURED,
    MODEL_ID,
    NOTE,
    OPEN_WEIGHTS,
    OVERRIDE,
    PARKED,
    REASON,
    RESOLUTION,
    REUSED_FROM,
    RUN_NAME,
    SPENT,
    STAGE,
    VENUE,
    VERDICT,
    RecordedRun,
)
from leastwise.use_case import Stage, UseCase
from leastwise.use_case.requirements import Requirement

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.ladder.history import Resolution

EXAMPLES_HASH = "leastwise.examples"  # of the table as it was written
GRADES = "judge_grades.json"  # people's and the judge's grades of the same answers
EXAMPLES, INTERVALS, CANDIDATE_FILE = "examples.json", "intervals.json", "candidate.json"
SHOWN = "mlflow.loggedArtifacts"  # which files MLflow's UI shows as tables
SKIPPED = "SKIPPED"
COUNTS = ("n", "lost")
LOGGED = ("lower", "upper", "bound", "margin", *COUNTS, "alpha_pass", "alpha_fail")  # as a reviewer reads them
TOKENS = ("input_tokens", "cached_tokens", "output_tokens")
SELDOM = ("adherence", "judged", "scope", "kind", "timed", "unmetered", "answered_by")  # not in every table
READ_LAST = ("tokens.", "calls.", "rows.")  # MLflow shows figures in the order in which they were logged


@dataclass(frozen=True)
class JudgedEvaluation:
    """An evaluation as it was read back, and the verdict on it."""

    evaluation: Evaluation
    verdict: Verdict


class StageRun(RecordedRun):
    """One run that measured a candidate, or that says why a stage was skipped."""

    @property
    def stage(self) -> Stage | Literal["reference"]:
        """The stage it belongs to."""
        return cast("Stage | Literal['reference']", self.tag(STAGE))

    @property
    def verdict(self) -> str:
        """PASS, FAIL, UNDECIDED, ERROR or SKIPPED as logged; empty while it runs."""
        return self.tag(VERDICT)

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        return self.tag(REASON)

    @property
    def resolution(self) -> Resolution | None:
        """How UNDECIDED was resolved; None where it was not."""
        return cast("Resolution | None", self.tag(RESOLUTION) or None)

    @property
    def is_overridden(self) -> bool:
        """Whether a person resolved what the gate was not sure of."""
        return bool(self.tag(OVERRIDE))

    @property
    def has_open_weights(self) -> bool:
        """Whether its candidate's weights can be served by oneself."""
        return self.tag(OPEN_WEIGHTS) == "yes"

    @property
    def venue(self) -> str:
        """Where its candidate answers."""
        return self.tag(VENUE)

    @property
    def is_judged(self) -> bool:
        """Whether it holds a verdict on something measured."""
        return self.verdict not in ("", SKIPPED)

    @property
    def is_evidence(self) -> bool:
        """Whether it holds a verdict that is no ERROR."""
        return self.verdict in ("PASS", "FAIL", "UNDECIDED")

    @property
    def origin(self) -> StageRun:
        """The run whose files these are: itself, or the one it links to, over however many links."""
        linked = self.tag(REUSED_FROM)
        return StageRun.read(self.client, linked).origin if linked else self

    def evaluation(self) -> Evaluation:
        """The evaluation as it was logged; a measurement with a missing metric is left out, so that judging it is
        ERROR.
        """
        names = filter(None, self.tag(MEASURED).split(","))
        measurements = {name: each for name in names if (each := self._measurement(name)) is not None}
        return Evaluation(
            stage=self.tag(STAGE),
            candidate=self.tag(CANDIDATE),
            gate_hash=self.tag(GATE_HASH),
            measurements=measurements,
            usd_spent=self.figures.get(SPENT, 0.0),
            error=self.tag(ERROR) or None,
            parked=self.tag(PARKED),
            finding=self.tag(FINDING),
        )

    def _measurement(self, name: str) -> Measurement | None:
        logged = {field: self.figures[f"{name}.{field}"] for field in LOGGED if f"{name}.{field}" in self.figures}
        if name not in self.figures or len(logged) < len(LOGGED):
            return None
        whole = {field: int(logged.pop(field)) for field in COUNTS}
        rows = int(self.figures.get(f"{name}.rows", 0))
        return Measurement.model_validate(
            {"name": name, "estimate": self.figures[name], "rows": rows, **whole, **logged}, strict=False
        )

    def judged(self, requirements: Iterable[Requirement]) -> JudgedEvaluation:
        """What is in MLflow by now, judged: the record decides (rule 3)."""
        evaluation = self.again().evaluation()
        return JudgedEvaluation(evaluation, judge(evaluation, tuple(requirements)))

    def record(self, requirements: tuple[Requirement, ...]) -> Record:
        """This run as a row of its climb's history, judged anew."""
        if self.verdict == SKIPPED:
            return Record(stage=self.stage, skipped=self.reason or "skipped")
        evaluation = self.evaluation()
        return Record(
            stage=self.stage,
            evaluation=evaluation,
            verdict=judge(evaluation, requirements),
            resolution=self.resolution,
            by_person=self.is_overridden,
            open_weights=self.has_open_weights,
            may_teach=self.tag(MAY_TEACH) != "no",
            usd_per_1k=self.figures.get("usd_per_1k_requests", float("inf")),
        )

    def candidate(self) -> Candidate:
        """The candidate it measured."""
        return Candidate.model_validate(self.read_json(CANDIDATE_FILE))

    def examples(self) -> pd.DataFrame:
        """The per-example table of its gate rows; for a reused run, of the one it links to."""
        frame = self.every_example()
        return frame[frame["set"] == "gate"]

    @property
    def has_examples_as_logged(self) -> bool:
        """Whether the table of examples is the one that was logged; True where no hash of it was kept."""
        logged = self.tag(EXAMPLES_HASH)
        return not logged or logged == content_key(json.dumps(self.origin.read_json(EXAMPLES)))

    def every_example(self) -> pd.DataFrame:
        """The per-example table of all rows it was measured on, the set of each in column `set`."""
        import pandas as pd

        table = cast("dict[str, list[list[object]]]", self.origin.read_json(EXAMPLES))
        return pd.DataFrame(table["data"], columns=table["columns"])

    def grades(self) -> Grades | None:
        """People's and the judge's grades, where a judge gated."""
        if not self.origin.has_file(GRADES):
            return None
        logged = cast("dict[str, list[float]]", self.origin.read_json(GRADES))
        ids, human, judged = (tuple(logged[name]) for name in ("ids", "human", "judge"))
        return Grades(tuple(map(str, ids)), human, judged)

    def log_evaluation(
        self, evaluation: Evaluation, more: Mapping[str, float] | None = None, model_id: str | None = None
    ) -> None:
        """Every measurement as metrics linked to the candidate's logged model, those the verdict rests on first."""
        figures: dict[str, float] = {}
        tags = {
            CANDIDATE: evaluation.candidate,
            GATE_HASH: evaluation.gate_hash,
            ERROR: evaluation.error or "",
            FINDING: evaluation.finding,
            MEASURED: ",".join(evaluation.measurements),
        } | ({PARKED: evaluation.parked} if evaluation.parked else {})
        for name, measured in evaluation.measurements.items():
            fields = measured.model_dump(include=set(LOGGED))
            figures |= {name: measured.estimate, **{f"{name}.{field}": float(fields[field]) for field in LOGGED}}
            if measured.rows:
                figures[f"{name}.rows"] = float(measured.rows)
            tags[f"{name}.better"] = Requirement(name=name, bound=measured.bound, margin=measured.margin).better
        rest = sorted((more or {}).items(), key=lambda each: each[0].startswith(READ_LAST))
        self.write({**figures, SPENT: evaluation.usd_spent, **dict(rest)}, tags, model_id)

    def log_verdict(self, name: str, verdict: Verdict, tags: Mapping[str, str], note: str) -> None:
        """A verdict as tags, the gate table as description and the verdict in the run's name."""
        requirements = {f"{each.name}.verdict": each.outcome for each in verdict.requirements}
        written = {VERDICT: verdict.outcome, REASON: verdict.reason, NOTE: note, RUN_NAME: name}
        self.write(tags={**written, **requirements, **tags})

    def log_left_out(self, name: str, reason: str) -> None:
        """That this try was left out, and why: it holds no evidence."""
        self.write(tags={VERDICT: SKIPPED, REASON: reason, NOTE: f"**Left out**: {reason}", RUN_NAME: name[:250]})
        self.close()

    @property
    def is_whole(self) -> bool:
        """Whether its verdict may stand: a PASS, or one below which no try ended in ERROR when it was last measured."""
        if self.verdict in ("PASS", SKIPPED):
            return True
        tries = {
            run.data.tags.get(KEY): run.data.tags.get(VERDICT) for run in self.origin.children()
        }  # the last counts
        return "ERROR" not in tries.values()

    def log_candidate(self, candidate: Candidate, use_case: UseCase, bundle: Path | None = None) -> str:
        """A candidate as an MLflow model of this run, which answers from the `bundle`; gives back the model's id."""
        existing = self.tag(MODEL_ID)
        if existing:
            return existing
        model = self.client.create_logged_model(
            self.experiment_id,
            name=f"{candidate.stage}-{candidate.key[:8]}",
            source_run_id=self.id,
            tags={CANDIDATE: candidate.key, STAGE: candidate.stage, VENUE: candidate.venue},
            model_type="leastwise-candidate",
        )
        with tempfile.TemporaryDirectory() as scratch:
            save_candidate(candidate, handed_over(self.client, use_case), Path(scratch, "model"), bundle)
            self.client.log_model_artifacts(model.model_id, f"{scratch}/model")
        self.client.finalize_logged_model(model.model_id, "READY")
        self.log_text(candidate.model_dump_json(indent=2), CANDIDATE_FILE)
        self.write(tags={MODEL_ID: model.model_id})
        return str(model.model_id)

    def log_examples(self, measured: Measured) -> None:
        """The per-example table, a judge's grades and the intervals look by look, as files.

        Every figure is written to its last digit, and over what a killed process may have written: MLflow's `log_table`
        rounds to ten places and appends.
        """
        columns = ["id", "input", "expected", "answer", "score", "latency_ms", "usd", *TOKENS, "from_store"]
        columns[5:5] = [name for name in SELDOM if any(name in row for row in measured.rows)]
        columns += ["set", "error", "unit"]
        rows = [[_cell(dict(row).get(name)) for name in columns] for row in measured.rows]
        written = json.dumps({"columns": columns, "data": rows}, default=str)
        # Not MLflow's log_table: that adds to a table that a killed process left, and every row would count twice.
        self.log_text(written, EXAMPLES)
        shown = {SHOWN: json.dumps([{"path": EXAMPLES, "type": "table"}]), EXAMPLES_HASH: content_key(written)}
        self.write(tags=shown | ({ANSWERED_BY: names} if (names := answered_by(measured.rows)) else {}))
        if measured.grades:
            self.client.log_dict(self.id, asdict(measured.grades), GRADES)
        narrowing: list[object] = [asdict(each) for each in measured.intervals]
        self.client.log_dict(self.id, cast("dict[str, object]", narrowing), INTERVALS)


def _cell(value: object) -> object:
    """A value as JSON has it: numpy's scalars as Python's, nothing for what is no number, a ? for half a character."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
