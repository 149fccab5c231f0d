"""The house: rooms of few files, short files and functions, few `Any`, and a map that says what is there.

What imports may do is held by import-linter (pyproject.toml), types by mypy, lines and format by ruff.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("leastwise", "tasks", "flows")
VENDORED = ROOT / "leastwise" / "vendored"  # copies of others' code as it is, imported nowhere
MOST_FILES, MOST_LINES, MOST_FUNCTION_LINES, MOST_MEDIAN_LINES, MOST_ANY_PER_1000 = 16, 300, 50, 6, 4
MOST_FLOWS = 21  # one deployable flow a file, run as `python -m flows.NAME`: a sub-room cannot take any of them
SLOW = {"torch", "transformers", "sentence_transformers", "sklearn", "scipy", "great_expectations", "matplotlib"}
SLOW |= {"mlflow", "pandas", "accelerate", "peft", "onnxruntime", "boto3", "openai", "anthropic", "pydantic_ai"}
IMPORTED_LATE = {  # files that others import in the function that needs them
    *(f"leastwise/training/{name}.py" for name in ("fused_lora", "completion_trainer", "causal/checkpoints")),
    *("leastwise/record/student_model.py", "leastwise/serving/candidate_model.py"),  # MLflow runs these two
    "leastwise/evidence/drift.py",  # the flow of that name alone
}
LONG_FILES: dict[str, str] = {}  # at most three, each with the reason why


def files() -> list[Path]:
    found = (path for top in CODE for path in (ROOT / top).rglob("*.py"))
    return sorted(path for path in found if not path.is_relative_to(VENDORED))


def rooms() -> list[Path]:
    return sorted({path.parent for path in files()})


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without signature and docstring."""
    body = function.body
    first = body[0].value if isinstance(body[0], ast.Expr) else None
    has_docstring = isinstance(first, ast.Constant) and isinstance(first.value, str) and len(body) > 1
    return (body[-1].end_lineno or 0) - body[1 if has_docstring else 0].lineno + 1


@pytest.mark.parametrize("room", rooms(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_holds_few_files(room: Path) -> None:
    most = MOST_FLOWS if room == ROOT / "flows" else MOST_FILES
    assert len(list(room.glob("*.py"))) <= most


@pytest.mark.parametrize("room", rooms(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_says_what_it_holds_and_what_it_never_does(room: Path) -> None:
    words = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert len(words) > 80 and "\n\n" in words, f"{room}/__init__.py says too little"


def test_a_file_is_short_but_for_those_that_say_why() -> None:
    lines = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in files()}
    long_files = {name for name, count in lines.items() if count > MOST_LINES}
    assert long_files == set(LONG_FILES) and len(LONG_FILES) <= 3


def test_every_file_says_what_it_is_for_and_what_it_does_not_do() -> None:
    words = {path: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in files()}
    assert [path for path, text in words.items() if not text] == []


def test_a_function_is_short() -> None:
    long_ones = [
        f"{path.relative_to(ROOT)}:{each.lineno} {each.name}"
        for path in files()
        for each in functions(path)
        if (each.end_lineno or 0) - each.lineno + 1 > MOST_FUNCTION_LINES
    ]
    assert long_ones == []


def test_most_functions_are_a_few_lines() -> None:
    assert median(body_lines(each) for path in files() for each in functions(path)) <= MOST_MEDIAN_LINES


def test_any_stays_at_the_borders_of_untyped_libraries() -> None:
    texts = [path.read_text(encoding="utf-8") for path in files()]
    uses = sum(len(re.findall(r"\bAny\b", text)) for text in texts)
    assert 1000 * uses / sum(text.count("\n") for text in texts) <= MOST_ANY_PER_1000


def test_an_ignored_type_error_has_a_code_and_a_reason() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "type: ignore" in line and not re.search(r"# type: ignore\[[a-z-]+(?:, [a-z-]+)*\]  ?# \S", line)
    ]
    assert bare == []


def test_nothing_is_probed_for_what_it_is() -> None:
    probes = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr"
    ]
    assert probes == []


def imported_at_the_top(path: Path) -> set[str]:
    """Packages that importing a file imports, those for types alone left out."""
    tops = ast.parse(path.read_text(encoding="utf-8")).body
    names = [each.name for node in tops if isinstance(node, ast.Import) for each in node.names]
    names += [node.module or "" for node in tops if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names}


def test_packages_that_take_long_to_import_are_imported_where_they_are_needed() -> None:
    found = {str(path.relative_to(ROOT)) for path in files() if imported_at_the_top(path) & SLOW}
    assert found == IMPORTED_LATE, "every command would pay for it at its start"


def test_the_map_in_the_readme_is_the_tree() -> None:
    table = set(re.findall(r"^\| `([\w/-]+)/` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    tree = {str(room.relative_to(ROOT)) for room in rooms()} - {"leastwise"}
    tree |= {"expectations", "infra", "use_cases", "benchmarks", "docs", "tests"}
    assert table == tree


def test_every_room_of_the_contract_is_in_the_map_and_the_other_way_round() -> None:
    contract = (
        (ROOT / "pyproject.toml")
        .read_text(encoding="utf-8")
        .partition("containers = ")[2]
        .partition("]\nexhaustive")[0]
    )
    listed = set(re.findall(r'^    "(\w+)",', contract, re.MULTILINE))
    assert listed == {room.name for room in (ROOT / "leastwise").iterdir() if (room / "__init__.py").exists()}


def test_no_code_that_comes_with_a_model_is_run() -> None:
    trusting = re.compile(r"trust_remote_code[\"']?\s*[=:]\s*True")
    own = [path for path in (ROOT / "leastwise").rglob("*.py") if trusting.search(path.read_text(encoding="utf-8"))]
    assert not own, "vendored code included"
