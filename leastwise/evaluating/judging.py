"""Asking a judge: every answer graded by the rubric, each grade stored and paid like any other call.

What a grade is worth is not decided here: where it gates, the people's grades go with it and
`leastwise.evidence.prediction_powered` corrects it. A reply that is no grade is a lost grade, never a 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from leastwise import metrics
from leastwise.answering import answering
from leastwise.endpoints import inference
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request
from leastwise.errors import BadInput
from leastwise.evaluating.scorer import ExactScorer, Score, Scorer
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.evidence.prediction_powered import error_interval
from leastwise.ladder.candidate import CachePolicy, Candidate
from leastwise.metrics.answer import Answer
from leastwise.metrics.grades import Grades
from leastwise.use_case.judge import LEAST_HUMAN_GRADES
from leastwise.use_case.task import completion_of

if TYPE_CHECKING:
    import pandas as pd

    from leastwise.answering.workspace import Workspace
    from leastwise.use_case import Stage

GRADE_TOKENS = 8


@contextmanager
def open_scorer(work: Workspace, stage: Stage | str) -> Iterator[Scorer]:
    """What scores this use case's answers; the calls of a judge are paid by `stage`."""
    if work.use_case.judge is None:
        yield ExactScorer(work.use_case.task)
        return
    with ExitStack() as stack:
        yield JudgeScorer(work, stage, stack)


class JudgeScorer:
    """Scores by the task's metric and has every labelled input's answer graded.

    Where `task.metric` is `judge` the grade is the quality, and `grades` holds people's and the judge's grades of the
    answers in `data.graded`; else the grade is only reported. The judge is connected to at the first grade.
    """

    def __init__(self, work: Workspace, stage: Stage | str, stack: ExitStack) -> None:
        self.work, self._stage, self._stack = work, stage, stack
        self._exact = ExactScorer(work.use_case.task)
        self._asker: inference.Asker | None = None
        self._replies: list[Reply] = []
        self._grades: list[float] = []
        self._known: Grades | None = None

    @property
    def gates(self) -> bool:
        """Whether the judge's grade is what quality means here."""
        return self.work.use_case.is_judged

    @property
    def grades(self) -> Grades | None:
        """The judge beside people on the same answers, where it gates."""
        return self._beside_people() if self.gates else None

    @property
    def usd_paid(self) -> float:
        """Dollars paid for grades so far."""
        return sum(reply.usd for reply in self._replies if not reply.from_store)

    def score(self, rows: pd.DataFrame, answers: Sequence[Answer], is_labelled: bool = True) -> list[Score | None]:
        """As `Scorer.score`; inputs that are to be declined are not graded."""
        exact = self._exact.score(rows, answers, is_labelled)
        if not is_labelled:
            return exact
        kept = [at for at, answer in enumerate(answers) if answer.text is not None]
        texts = [answers[at].text or "" for at in kept]
        graded = dict(zip(kept, self._graded(rows.iloc[kept], texts), strict=True))
        self._grades += [grade for grade in graded.values() if grade is not None]
        return [self._with_grade(score, graded.get(at)) for at, score in enumerate(exact)]

    def _with_grade(self, score: Score | None, grade: float | None) -> Score | None:
        if score is None or (grade is None and self.gates):
            return None
        return score.model_copy(update={"judged": grade} | ({"quality": grade} if self.gates else {}))

    def figures(self) -> dict[str, float]:
        """The judge's own record: its cost, its mean grade, and how it compares with people where they graded."""
        found = {
            "judge.usd": self.usd_paid,
            "judge.calls": float(sum(not reply.from_store for reply in self._replies)),
            "judge.lost": float(sum(self._read(reply) is None for reply in self._replies)),
        }
        if self._grades:
            found["judge.mean"] = sum(self._grades) / len(self._grades)
        if self.work.tables.rows("graded"):
            found |= _compared(self._beside_people(), self.work.alphas.to_pass, self.work.alphas.to_fail)
        return found

    def _beside_people(self) -> Grades:
        """The judge's grades of what people graded; asked once, for the store keeps them."""
        if self._known is None:
            rows = self.work.tables.need("graded")
            found = self._graded(rows, list(rows["answer"]))
            lost = sum(grade is None for grade in found)
            if lost > MAX_LOST_SHARE * len(found):
                raise RuntimeError(
                    f"the judge gave no grade to {lost} of the {len(found)} answers in data.graded; run again"
                )
            both = [
                (row, mark, got)
                for row, mark, got in zip(rows["id"], rows["grade"], found, strict=True)
                if got is not None
            ]
            ids, human, judge = zip(*both, strict=True)
            self._known = Grades(tuple(map(str, ids)), tuple(map(float, human)), judge)
        return self._known

    def _graded(self, rows: pd.DataFrame, texts: Sequence[str]) -> list[float | None]:
        """A grade a row: 0 without asking for an empty answer, None where no readable grade came."""
        asked = [at for at, text in enumerate(texts) if text.strip()]
        requests = self._requests(rows.iloc[asked], [texts[at] for at in asked])
        replies = self._client.ask(requests) if requests else []
        self._replies += replies
        found: list[float | None] = [0.0] * len(texts)
        for at, reply in zip(asked, replies, strict=True):
            found[at] = self._read(reply)
        return found

    def _read(self, reply: Reply) -> float | None:
        assert self.work.use_case.judge is not None
        return None if reply.error else self.work.use_case.judge.grade(reply.text)

    def _requests(self, rows: pd.DataFrame, texts: Sequence[str]) -> list[Request]:
        judge, task = self.work.use_case.judge, self.work.use_case.task
        assert judge is not None
        system = Message("system", judge.system(task.instruction))
        choices = judge.choices if self._client.offers_constraints else None
        wants = [None if label is None else completion_of(task, label) for label in rows["label"]]
        return [
            Request(
                row_id=str(row_id),
                messages=(system, Message("user", judge.message(text, answer, want))),
                max_tokens=GRADE_TOKENS,
                choices=choices,
            )
            for row_id, text, answer, want in zip(rows["id"], rows["text"], texts, wants, strict=True)
        ]

    @property
    def _client(self) -> inference.Asker:
        if self._asker is None:
            model = self.work.use_case.judge_model
            assert model is not None
            judge = Candidate(
                stage=self._stage,
                model=model.uri,
                revision=self.work.revision(model.uri),
                venue=model.venue,
                cache=CachePolicy(provider=True),
            )
            self._asker = answering.open_asker(self.work, judge, self._stack, answering.Payer(self._stage, "judge"))
        return self._asker


def _compared(grades: Grades, alpha_pass: float, alpha_fail: float) -> dict[str, float]:
    """How the judge's grades compare with people's: agreement, chance-corrected agreement, mean error and its interval."""
    alike = metrics.agreement(grades.judge, grades.human)
    least, most = error_interval(grades.human, grades.judge, alpha_pass / 2, alpha_fail / 2)
    return {
        "judge.human_grades": float(alike.n),
        "judge.agreement": alike.share,
        "judge.kappa": alike.kappa,
        "judge.mean_error": grades.mean_error,
        "judge.error.lower": least,
        "judge.error.upper": most,
    }


def check_grades(work: Workspace) -> None:
    """What must hold before a judge may gate; BadInput says how many more grades are needed."""
    graded = work.tables.rows("graded") or 0
    if work.use_case.is_judged and graded < LEAST_HUMAN_GRADES:
        raise BadInput(
            f"data.graded: {graded} graded answers, a judge gates only with at least {LEAST_HUMAN_GRADES}; have people grade "
            f"{LEAST_HUMAN_GRADES - graded} more, or set task.metric to token_f1 or exact_match and let the judge report"
        )
