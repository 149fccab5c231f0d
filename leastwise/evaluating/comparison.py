"""Two candidates on the same gate rows: is the challenger surely not worse? The comparison is of quality alone.

It promotes nothing. Cost and latency are those of the same architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leastwise import ladder
from leastwise.answering.workspace import Workspace
from leastwise.evaluating.scorer import Scorer
from leastwise.evidence import PairedTest
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.metrics import Score
from leastwise.record.stage_run import StageRun
from leastwise.rows.gate_rows import looks, unit_count, unit_scores, whole_units
from leastwise.use_case import UseCase

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.answering.answerer import Answerer

DEFAULT_MARGIN = 0.05  # where the use case sets no requirement on quality


def paired_margin(use_case: UseCase) -> float:
    """How much worse a challenger may be: the tolerance of the requirement on quality, where there is one."""
    quality = use_case.requirements.quality
    return quality.margin if quality and quality.margin else DEFAULT_MARGIN


@dataclass(frozen=True)
class PairedComparison:
    """Challenger minus champion in quality on the same rows, with an interval valid at every look."""

    outcome: str
    difference: float
    lower: float
    upper: float
    n: int
    lost: int
    champion_quality: float
    challenger_quality: float
    too_many_lost: bool = False  # so many pairs that nothing may be concluded

    @property
    def figures(self) -> dict[str, float]:
        """The metrics of the retraining's run."""
        return {
            "paired.difference": self.difference,
            "paired.lower": self.lower,
            "paired.upper": self.upper,
            "paired.n": float(self.n),
            "paired.lost": float(self.lost),
            "paired.champion_quality": self.champion_quality,
            "paired.challenger_quality": self.challenger_quality,
        }


def compare(
    scorer: Scorer, judged: pd.DataFrame, champion: Answerer, challenger: Answerer, test: PairedTest
) -> PairedComparison:
    """Both answer the same rows look by look until the test is decided or the rows run out.

    A row that the infrastructure lost for either counts against both outcomes; more than 1% of the rows end it at once,
    before the other side is paid for what can no longer be concluded. Where rows share a unit, a unit is one pair: the
    means over its rows; it is lost with any of them. Where a judge grades, the difference is between its grades.
    """
    theirs: list[float] = []
    ours: list[float] = []
    lost_rows, too_many_lost = 0, False
    for rows in looks(judged):
        old = scorer.score(rows, champion.answer(rows))
        too_many_lost = lost_rows + old.count(None) > max(1.0, MAX_LOST_SHARE * len(judged))
        new = [None] * len(rows) if too_many_lost else scorer.score(rows, challenger.answer(rows))
        lost_rows += sum(a is None or b is None for a, b in zip(old, new, strict=True))
        too_many_lost = lost_rows > max(1.0, MAX_LOST_SHARE * len(judged))
        whole = whole_units(rows, [a is None or b is None for a, b in zip(old, new, strict=True)])
        kept, before = rows.iloc[whole], len(ours)
        theirs += _quality(kept, [old[at] for at in whole])
        ours += _quality(kept, [new[at] for at in whole])
        if len(ours) > before:
            test.add(ours[before:], theirs[before:])
        if len(kept) < len(rows):
            test.add_lost(unit_count(rows) - unit_count(kept))
        if test.outcome != "undecided" or too_many_lost:
            break
    n, interval = max(len(ours), 1), (test.lower, test.upper)
    means = sum(theirs) / n, sum(ours) / n
    return PairedComparison(test.outcome, test.estimate, *interval, len(ours), test.lost, *means, too_many_lost)


def _quality(rows: pd.DataFrame, scores: list[Score | None]) -> list[float]:
    return [float(mean) for mean in unit_scores(rows, [score.quality for score in scores if score is not None])]


@dataclass(frozen=True)
class TeacherComparison:
    """A student beside its teacher on the gate rows both answered; `figures` is empty where they have none in
    common.
    """

    teacher_stage: str
    figures: dict[str, float]


def compare_with_teacher(work: Workspace, run: StageRun) -> TeacherComparison | None:
    """Agreement, and how much worse the student may be at most; None where no stage below may teach.

    As in the gate, rows that share a unit count once, and a unit of which either lost a row does not count.
    """
    below = [each for each in work.run.history(work.use_case.gate_requirements) if each.stage != "distill"]
    best = ladder.teacher(below)
    if best is None:
        return None
    both = _answered_by_both(work, run, work.run.latest(best.stage))
    if both.empty:
        return TeacherComparison(best.stage, {})
    ours, theirs = (unit_scores(both, both[name].tolist()) for name in ("score", "score_teacher"))
    quality = work.use_case.requirements.bounds.get("quality")
    test = PairedTest(quality.margin if quality else DEFAULT_MARGIN, work.use_case.alpha, work.use_case.alpha)
    test.add(ours, theirs)
    figures = {
        "teacher.n": float(ours.size),
        "teacher.agreement": float((both["answer"] == both["answer_teacher"]).mean()),
        "teacher.quality": float(theirs.mean()),
        "teacher.difference": test.estimate,
        "teacher.difference.lower": test.lower,
        "teacher.difference.upper": test.upper,
    }
    return TeacherComparison(best.stage, figures)


def _answered_by_both(work: Workspace, run: StageRun, teacher_run: StageRun) -> pd.DataFrame:
    """The gate rows, in their order, of units that both answered whole, with the answer and score of each."""
    answers = run.examples().merge(teacher_run.examples(), on="id", suffixes=("", "_teacher"))
    columns = ["id", "answer", "score", "answer_teacher", "score_teacher"]
    rows = work.question.gate.rows.merge(answers[columns], on="id", how="left")
    lost = rows["score"].isna() | rows["score_teacher"].isna()
    return rows.iloc[whole_units(rows, lost.tolist())]
