"""What a model is shown fits its context: the least useful goes first, and a row that no context is left for
is refused.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from leastwise.answering.prompts import _Context, check_room, shot
from leastwise.answering.retrieval import Hit
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate, Prompt
from leastwise.rows.use_case_file import load
from tasks.session.workspace import prospect_of
from tests.parts import case_in, open_parts, questions


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """An open climb, shared: nothing here changes what another test reads."""
    with open_parts(tmp_path_factory.mktemp("parts")) as parts:
        yield parts


def test_documents_ranked_lowest_are_left_out_where_the_context_is_full_then_the_farthest_examples(
    work: Workspace,
) -> None:
    candidate = Candidate(stage="rag", model="openai:gpt-4o-mini", venue="api", prompt=Prompt(system="s"))
    context = _Context(
        work.catalogue, candidate
    )  # room for 388 tokens, counted here as 1,164 characters less 8 tokens a turn
    hits = [Hit(f"d{n}", "x" * 300, None, 1.0) for n in range(8)]
    shots = [shot(work.use_case.task, f"q{n}", f'["{"y" * 200}"]') for n in range(8)]
    assert context.fitted("Where?", [], hits[:2]).documents == ("d0", "d1")
    assert context.fitted("Where?", [], hits).documents == ("d0", "d1", "d2")
    crowded = context.fitted("Where?", shots, hits)
    assert crowded.documents == () and [turn.content for turn in crowded.turns if turn.role == "user"] == [
        "q4",
        "q5",
        "q6",
        "q7",
        "Where?",
    ]


def test_a_row_that_no_context_is_left_for_is_refused_before_anything_is_asked(tmp_path: Path, home: Path) -> None:
    case = load(case_in(tmp_path, task={"instruction": "Say where the part is from, and say it in a few words. " * 5}))
    pd.concat([questions(15, 34), questions(34, 35).assign(text="long " * 210)]).to_parquet(tmp_path / "gate.parquet")
    prospect = prospect_of(case)
    prospect.question.tables.check()
    with pytest.raises(BadInput, match=r"data\.gate: row 20: .* more than the 388 tokens that openai:gpt-4o-mini has"):
        check_room(prospect.question, prospect.catalogue)
