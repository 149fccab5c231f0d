"""What YAML reads as something else than was written is refused with its place, before it becomes a bound or a cap."""

from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.rows.use_case_file import load

FILE = """name: one
task: {instruction: x, labels: [a, b]}
data: {gate: gate.csv}
requirements:
  quality: {bound: 0.9, margin: 0.1}
traffic: {requests_per_month: 10}
models: {candidates: [{uri: "openai:m", price: {input: 1, output: 2}}]}
allow_no_test: true
budget_usd: 5
"""


def changed(folder: Path, old: str, new: str) -> str:
    path = folder / "case.yaml"
    path.write_text(FILE.replace(old, new, 1))
    return str(path)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("bound: 0.9", "bound: yes", r"requirements\.quality\.bound"),
        ("budget_usd: 5", "budget_usd: true", "budget_usd"),
        ("requests_per_month: 10", "requests_per_month: on", r"traffic\.requests_per_month"),
        ("input: 1", "input: true", r"models\.candidates\.0\.price\.input"),
        ("budget_usd: 5", "confirm_rows: true", "confirm_rows"),
    ],
)
def test_a_truth_value_is_no_number(tmp_path: Path, old: str, new: str, place: str) -> None:
    with pytest.raises(BadInput, match=rf"case\.yaml: {place}: YAML reads a truth value \(true\).*write the number"):
        load(changed(tmp_path, old, new))


@pytest.mark.parametrize("value", ["inf", "1e400", '"Infinity"'])
def test_a_cap_without_end_is_none(tmp_path: Path, value: str) -> None:
    for field in ("budget_usd", "budget_usd_per_month", "ask_above_usd"):
        with pytest.raises(BadInput, match=rf"case\.yaml: {field}: .* is no number that can be used"):
            load(changed(tmp_path, "budget_usd: 5", f"{field}: {value}"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("budget_usd: 5", "budget_usd: 010", "line 9: 010 is 8 to YAML"),
        ("budget_usd: 5", "budget_usd: 1:30", "line 9: 1:30 is 90 to YAML"),
        ("requests_per_month: 10", "requests_per_month: 0100", "line 6: 0100 is 64 to YAML"),
        ("labels: [a, b]", "labels: [01, 02]", "line 2: 01 is 1 to YAML.*in quotes"),
    ],
)
def test_a_number_that_yaml_counts_to_another_base_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(BadInput, match=rf"case\.yaml: {words}"):
        load(changed(tmp_path, old, new))


def test_numbers_as_people_write_them_are_read_as_they_are(tmp_path: Path) -> None:
    case = load(changed(tmp_path, "budget_usd: 5", 'budget_usd: "0.5"\nconfirm_rows: 1_000\nask_above_usd: 1e2'))
    assert (case.budget_usd, case.confirm_rows, case.ask_above_usd) == (0.5, 1000, 100.0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[a, b]", "[null, b]", r"task\.labels\.0: YAML reads nothing \(null\) as no text; write it in quotes$"),
        ("[a, b]", "[{a: 1}, b]", r"task\.labels\.0: YAML reads a mapping \(\{'a': 1\}\); a text is wanted$"),
        ("[a, b]", '"a, b"', r"task\.labels: is no list; write one.*\(given: 'a, b'\)$"),
        ("[a, b]", "{a: 1, b: 2}", r"task\.labels: is no list; write one"),
        ('[{uri: "openai:m", price: {input: 1, output: 2}}]', "['openai:m']", r"models\.candidates\.0: is no mapping;"),
        ('[{uri: "openai:m", price: {input: 1, output: 2}}]', "openai:m", r"models\.candidates: is no list"),
        ("{gate: gate.csv}", "[gate.csv]", "data: is no mapping; write fields"),
    ],
)
def test_what_is_wanted_is_said_where_something_else_stands(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(BadInput, match=rf"case\.yaml: {words}"):
        load(changed(tmp_path, old, new))


def test_the_address_of_a_model_on_azure_is_read_from_the_environment_before_residency_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = "  quality: {bound: 0.9, margin: 0.1}\n  residency: {venues: [api], hosts: [eu.openai.azure.com]}"
    (tmp_path / "case.yaml").write_text(FILE)
    path = changed(tmp_path, "  quality: {bound: 0.9, margin: 0.1}", limits)
    Path(path).write_text(Path(path).read_text().replace("openai:m", "azure:m"))
    for name in ("AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadInput, match=r"models\.candidates\.0: azure:m has no address.*AZURE_OPENAI_ENDPOINT"):
        load(path)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://us.openai.azure.com")
    with pytest.raises(BadInput, match=r"residency: none of models\.candidates.*us\.openai\.azure\.com"):
        load(path)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://eu.openai.azure.com/")
    assert load(path).models.candidates[0].base_url == "https://eu.openai.azure.com/"
