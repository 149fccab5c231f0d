"""Of several tries one stands for the stage."""

from leastwise.evaluating.tries import Try
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.gate import judge
from leastwise.ladder.measured import Measured
from leastwise.use_case.requirements import Requirement
from tests.workspaces import evaluation_of, quality

QUALITY = Requirement(name="quality", bound=0.8, margin=0.2)


def test_of_two_tries_that_both_surely_fail_the_likelier_one_stands_for_the_stage() -> None:
    def tried(estimate: float) -> Try:
        measured = evaluation_of("prompt", quality(0.0, 0.3, 25).model_copy(update={"estimate": estimate}))
        candidate = Candidate(stage="prompt", model="openai:m", venue="api")
        return Try(candidate, judge(measured, (QUALITY,)), Measured(measured))

    weak, better = tried(0.02), tried(0.21)
    assert min([weak, better], key=lambda each: each.rank) is better
