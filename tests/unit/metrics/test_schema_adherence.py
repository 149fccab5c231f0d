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


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (
            {"properties": {"city": {"$ref": "#/$defs/town"}}},
            r"#/\$defs/town at \$\.properties\.city.*no such definition",
        ),
        ({"properties": {"enum": {"$ref": "#/$defs/x"}}}, r"#/\$defs/x at \$\.properties\.enum"),
        (
            {"properties": {"a": {"items": {"$ref": "https://e.com/s"}}}},
            r"https://e\.com/s at \$\.properties\.a\.items",
        ),
        ({"$ref": "#"}, "refers back to itself for ever"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "refers back to itself"),
        ({"properties": {"a": {"type": "strin"}}}, r"\$\.properties\.a\.type"),
        ({"properties": {"a": {"pattern": "("}}}, r"\$\.properties\.a\.pattern"),
    ],
)
def test_a_reference_that_leads_nowhere_or_round_is_named_with_its_place(schema: dict, words: str) -> None:
    with pytest.raises(BadInput, match=f"json_schema: .*{words}"):
        adherence_of(schema)


def test_a_record_may_hold_records_of_its_own_kind_and_name_a_field_as_a_keyword() -> None:
    tree = {
        "type": "object",
        "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}, "$ref": {"type": "string"}},
    }
    assert adherence_of(tree)('{"kids": [{"kids": []}], "$ref": "x"}') == 1
    assert adherence_of(tree)('{"kids": [3]}') == 0
    assert adherence_of({"const": {"$ref": "#/none"}})('{"$ref": "#/none"}') == 1


@pytest.mark.parametrize(
    "answer",
    ["[" * 50_000, "[" * 500 + "]" * 500, '{"a":' * 900 + "1" + "}" * 900, "1" * 5000, '{"zip": 1e999}', '"\\ud800"'],
)
def test_an_answer_of_any_shape_is_scored_and_never_raises(answer: str) -> None:
    tree = {"properties": {"a": {"$ref": "#"}, "zip": {"multipleOf": 0.1}}}
    assert adherence_of(tree)(answer) in (0, 1)
