"""An answer of any shape or size has a score: it never ends a run."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leastwise.metrics.task_metric import agree, metric_of
from leastwise.use_case.task import Classification, Extraction, FreeText, Task

SHAPES = (
    "",
    "\x00yes\x00",
    "yes \ud800",
    '{"city": "\\ud800"}',
    '{"city": NaN}',
    '{"city": "x", "n": 1e999}',
    '{"city": "x", "n": ' + "9" * 5000 + "}",
    "[" * 200_000 + "]" * 200_000,
    '{"city":' * 900 + "1" + "}" * 900,
    '{"city":' * 300 + "1" + "}" * 300,
    "!" * 1_000_000,
    "\u202e\u200b\ufeff",
)
"""Answers of any shape: NUL, half a character, numbers that are none, nesting without end, text without a word."""

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "number"}}, "required": ["city"]}
OF_EVERY_KIND: tuple[tuple[Task, str], ...] = (
    (Classification(instruction="?", labels=("yes", "no"), decline_label="none"), "yes"),
    (Extraction(kind="extraction", instruction="?", json_schema=SCHEMA), '{"city": "Bonn", "n": 1}'),
    (FreeText(kind="free_text", instruction="?", metric="token_f1"), '["yes it is", "1.5"]'),
    (FreeText(kind="free_text", instruction="?", metric="exact_match"), '["yes it is", "1.5"]'),
)
anything = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
        max_leaves=20,
    ).map(json.dumps),
    st.sampled_from(SHAPES),
)


@settings(deadline=None, max_examples=150)
@given(answer=anything, of_kind=st.sampled_from(OF_EVERY_KIND), expected=st.booleans())
def test_an_answer_of_any_shape_is_scored(answer: str, of_kind: tuple[Task, str], expected: bool) -> None:
    task, right = of_kind
    score = metric_of(task)(answer, right if expected else None)
    assert all(0 <= each <= 1 for each in (score.quality, score.adherence, score.declined))
    assert 0 <= agree(task, [answer, answer, "yes"]) <= 1


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_an_answer_of_each_odd_shape_is_scored_by_every_metric(shape: int) -> None:
    for task, right in OF_EVERY_KIND:
        assert 0 <= metric_of(task)(SHAPES[shape], right).quality <= 1
        assert 0 <= agree(task, [SHAPES[shape], SHAPES[shape]]) <= 1
