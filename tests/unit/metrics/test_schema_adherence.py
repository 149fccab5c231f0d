"""An answer keeps to its schema or it does not; a schema that cannot be checked is refused before anything is asked."""

import pytest

from leastwise.errors import BadInput
from leastwise.metrics.schema_adherence import adherence_of, parsed

SCHEMA = {
    "type": "object",
    "properties": {"zip": {"$ref": "#/$defs/zip"}},
    "required": ["zip"],
    "additionalProperties": False,
    "$defs": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
}


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"zip": "53113"}', 1),
        (' {"zip": "53113"}\n', 1),
        ('{"zip": 53113}', 0),
        ('{"zip": "53113", "x": 1}', 0),
        ("{}", 0),
        ('Sure: {"zip": "53113"}', 0),
        ("", 0),
        ("null", 0),
        ('{"zip": NaN}', 0),
        ('{"zip": "53113"', 0),
    ],
)
def test_an_answer_is_json_of_the_schema_as_it_stands_or_scores_0(answer: str, score: float) -> None:
    assert adherence_of(SCHEMA)(answer) == score


def test_what_does_not_parse_is_none() -> None:
    assert parsed("{") is None and parsed("Infinity") is None and parsed("[1]") == [1]


@pytest.mark.parametrize("schema", [{"type": "strin"}, {"$ref": "other.json"}, {"items": [{"$ref": "file:///etc/x"}]}])
def test_a_schema_that_is_none_or_refers_outside_itself_is_bad_input(schema: dict) -> None:
    with pytest.raises(BadInput, match="json_schema"):
        adherence_of(schema)
