"""Scoring by a judge: every answer graded by the rubric, each grade stored and paid like any other call.

What a grade is worth is not decided here: where it gates, the people's grades go with it and
`leastwise.evidence.prediction_powered` corrects it. A reply that is no grade is a lost grade, never a 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Literal, Self

from leastwise import metrics
from leastwise.answering.answerer import Outage, Payer
from leastwise.answering.reaching.reached import open_asker
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request
from leastwise.errors import BadInput, CannotBeAsked
from leastwise.evaluating.scorer import ExactScorer, Scorer
from leastwise.evidence.measurement import MAX_LOST_SHARE
from leastwise.evidence.prediction_powered import error_interval
from leastwise.ladder.alphas import Alphas
from leastwise.ladder.candidate import CachePolicy, Candidate
from leastwise.metrics import Score
from leastwise.metrics.answer import Answer
from leastwise.metrics.grades import Grades
from leastwise.rows.question import Question
from leastwise.use_case import Stage
from leastwise.use_case.judge import LEAST_HUMAN_GRADES, Judge
from leastwise.use_case.model import Model
from leastwise.use_case.task import completion_of

if TYPE_CHECKING:
    import pandas as pd

JudgingStage = Stage | Literal["reference"]
FIRST_GRADES = 10  # people's graded answers that are asked first: a judge that cannot grade is found out by them


@contextmanager
def open_scorer(work: Workspace, stage: JudgingStage, before: Scorer | None = None) -> Iterator[Scorer]:
    """What scores this use case's answers; a judge's calls are paid by `stage`. `before`: the one to go on with."""
    judge = work.use_case.judge
    if isinstance(before, JudgeScorer):
        with ExitStack() as stack:
            yield before.connecting_in(stack)
        return
    if judge is None:
        yield ExactScorer(work.use_case.task)
        return
    with ExitStack() as stack:
        yield JudgeScorer(work, judge, stage, stack)


class JudgeScorer:
    """Scores by the task's metric and has every labelled input's answer graded.

    Where `task.metric` is `judge` the grade is the quality, and `grades` holds people's and the judge's grades of the
    answers in `data.graded`; else the grade is only reported. The judge is connected to at the first grade.
    """

    def __init__(self, work: Workspace, judge: Judge, stage: JudgingStage, stack: ExitStack) -> None:
        self._work, self._judge, self._stage, self._stack = work, judge, stage, stack
        self._exact = ExactScorer(work.use_case.task)
        self._asker: Asker | None = None
        self._replies: list[Reply] = []
        self._grades: list[float] = []
        self._people: Grades | None = None

    def connecting_in(self, stack: ExitStack) -> Self:
        """This scorer, which connects to its judge anew, until that stack ends; all it was told it still knows."""
        self._stack, self._asker = stack, None
        return self

    @property
    def gates(self) -> bool:
        """Whether the judge's grade is what quality means here."""
        return self._work.use_case.is_graded

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
        return score.model_copy(update={"grade": grade} | ({"quality": grade} if self.gates else {}))

    def figures(self) -> dict[str, float]:
        """The judge's own record: its cost, its mean grade, and how it compares with people where they graded."""
        reported = {
            "judge.usd": self.usd_paid,
            "judge.calls": float(sum(not reply.from_store for reply in self._replies)),
            "judge.lost": float(sum(self._read(reply) is None for reply in self._replies)),
        }
        if self._grades:
            reported["judge.mean"] = sum(self._grades) / len(self._grades)
        if self._work.tables.rows("graded"):
            reported |= _compared(self._beside_people(), self._work.alphas)
        return reported

    def _beside_people(self) -> Grades:
        """The judge's grades of what people graded; asked once, for the store keeps them."""
        if self._people is None:
            rows = self._work.tables.need("graded")
            first = self._graded(rows.head(FIRST_GRADES), list(rows["answer"].head(FIRST_GRADES)))
            if not any(grade is not None for grade in first):
                raise self._useless(len(first), len(first))
            rest = rows.iloc[FIRST_GRADES:]
            grades = first + self._graded(rest, list(rest["answer"]))
            lost = sum(grade is None for grade in grades)
            if lost > MAX_LOST_SHARE * len(grades):
                raise self._useless(lost, len(grades))
            both = zip(rows["id"], rows["grade"], grades, strict=True)
            ids, human, judge = zip(
                *((row, mark, grade) for row, mark, grade in both if grade is not None), strict=True
            )
            self._people = Grades(tuple(map(str, ids)), tuple(map(float, human)), judge)
        return self._people

    def _useless(self, lost: int, of: int) -> BadInput | Outage:
        """What to raise of a judge without grades: BadInput where its cap cut them off, for no rerun changes that."""
        cut = [reply for reply in self._replies if self._read(reply) is None and reply.finish_reason == "length"]
        if 2 * len(cut) > sum(self._read(reply) is None for reply in self._replies):
            uri, cap = self._model.uri, self._model.most_output_tokens(self._judge.output_tokens)
            return BadInput(
                f"judge: {len(cut)} of {of} replies of {uri} were cut off by its cap of {cap} tokens before a grade "
                "(finish_reason length); set reasoning on that model of judge.models (low, medium, high or a number of "
                "tokens), or raise judge.output_tokens"
            )
        return Outage(f"the judge gave no grade to {lost} of {of} answers in data.graded{self._what_came()}")

    def _what_came(self) -> str:
        """The first reply that is no grade, or why there was none."""
        first = next((reply for reply in self._replies if self._read(reply) is None), None)
        if first is None:
            return ""
        if first.error:
            return f" ({first.error}); run again when it answers"
        return f" (it said {first.text[:60]!r}, finish_reason {first.finish_reason or 'unknown'}); choose another judge"

    def _graded(self, rows: pd.DataFrame, texts: Sequence[str]) -> list[float | None]:
        """A grade a row: 0 without asking for an empty answer, None where no readable grade came."""
        worded = [at for at, text in enumerate(texts) if text.strip()]
        replies = self._asked(rows.iloc[worded], [texts[at] for at in worded]) if worded else []
        self._replies += replies
        grades: list[float | None] = [0.0] * len(texts)
        for at, reply in zip(worded, replies, strict=True):
            grades[at] = self._read(reply)
        return grades

    def _asked(self, rows: pd.DataFrame, texts: Sequence[str]) -> list[Reply]:
        """The judge's replies, held to the grades where it takes that, else in its own words.

        BadInput where it cannot be asked at all: there is no other to ask instead.
        """
        is_held = self._client.offers_constraints
        try:
            return self._client.ask(self._requests(rows, texts))
        except CannotBeAsked as error:
            if is_held and not self._client.offers_constraints:
                return self._client.ask(self._requests(rows, texts))
            raise BadInput(f"judge.models: {error}") from None

    def _read(self, reply: Reply) -> float | None:
        return None if reply.error else self._judge.grade(reply.text)

    def _requests(self, rows: pd.DataFrame, texts: Sequence[str]) -> list[Request]:
        judge, task = self._judge, self._work.use_case.task
        system = Message("system", judge.system(task.instruction))
        choices = judge.choices if self._client.offers_constraints else None
        expected = [None if label is None else completion_of(task, label) for label in rows["label"]]
        return [
            Request(
                row_id=str(row_id),
                messages=(system, Message("user", judge.message(text, answer, reference))),
                max_tokens=judge.output_tokens,
                choices=choices,
                reasoning_tokens=self._model.reasoning_tokens,
            )
            for row_id, text, answer, reference in zip(rows["id"], rows["text"], texts, expected, strict=True)
        ]

    @property
    def _model(self) -> Model:
        model = self._work.use_case.judge_model
        assert model is not None
        return model

    @property
    def _client(self) -> Asker:
        if self._asker is None:
            model = self._model
            judge = Candidate(
                stage=self._stage,
                model=model.uri,
                revision=self._work.catalogue.asked_revision(model),
                venue=model.venue,
                cache=CachePolicy(provider=True),
            )
            self._asker = open_asker(self._work, judge, self._stack, Payer(self._stage, "judge"))
        return self._asker


def _compared(grades: Grades, alphas: Alphas) -> dict[str, float]:
    """How the judge's grades compare with people's: agreement, chance-corrected agreement, mean error and its
    interval.
    """
    alike = metrics.agreement(grades.judge, grades.human)
    least, most = error_interval(grades.human, grades.judge, alphas.to_pass / 2, alphas.to_fail / 2)
    return {
        "judge.human_grades": float(alike.n),
        "judge.agreement": alike.share,
        "judge.kappa": alike.kappa,
        "judge.mean_error": grades.mean_error,
        "judge.error.lower": least,
        "judge.error.upper": most,
    }


def check_grades(question: Question) -> None:
    """What must hold before a judge may gate; BadInput says how many more grades are needed."""
    graded = question.tables.rows("graded") or 0
    if question.use_case.is_graded and graded < LEAST_HUMAN_GRADES:
        raise BadInput(
            f"data.graded: {graded} graded answers, a judge gates only with at least {LEAST_HUMAN_GRADES}; have people "
            f"grade {LEAST_HUMAN_GRADES - graded} more, or set task.metric to token_f1 or exact_match and let the "
            "judge report"
        )
