"""The newcomer's path of the README: its commands do what stands below them, line by line where nothing is measured."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from flows.running.command_line import _arguments
from leastwise.part import changed
from leastwise.rows.preparing.settings import Wanted
from leastwise.rows.use_case_file import load
from use_cases.build_raw_alerts import CONTRADICTED, EACH, TACTICS, TWICE

REPOSITORY = Path(__file__).parents[2]
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY")
TITLE = "## From a raw table to an endpoint"
PYTHON = ".venv/bin/python -m "


def section() -> str:
    return (REPOSITORY / "README.md").read_text(encoding="utf-8").partition(f"\n{TITLE}\n")[2].partition("\n## ")[0]


def steps() -> dict[str, tuple[list[str], list[str]]]:
    """By module: the words of its command in the README, and the lines shown below it, those that are cut left out."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for block in re.findall(r"```console\n(.*?)```", section(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            if command.startswith(PYTHON):
                words = shlex.split(command.removeprefix(PYTHON).partition("#")[0])
                found[words[0]] = (
                    [word for word in words[1:] if word != "&"],
                    [line for line in shown if line.strip()],
                )
    return found


def test_the_path_is_prepare_advise_climb_promote_serve_and_short() -> None:
    names = [
        "use_cases.build_raw_alerts",
        *(f"flows.{each}" for each in ("prepare", "advise", "customize", "promote", "serve")),
    ]
    assert list(steps()) == names
    assert section().count("\n") <= 60


@pytest.mark.parametrize("module", ["flows.prepare", "flows.advise", "flows.customize", "flows.promote", "flows.serve"])
def test_every_command_of_the_path_is_one_that_its_flow_takes(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, _ = steps()[module]
    name = module.removeprefix("flows.")
    flow = getattr(import_module(module), name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    given = dict(_arguments(inspect.signature(flow.fn), name))
    assert set(given) <= set(inspect.signature(flow.fn).parameters)
    if module == "flows.prepare":
        assert changed(Wanted(), str(given["changes"])).bound == 0.6


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, triage_data: Path) -> dict[str, str]:
    """What the first three commands print when they are given as they stand, in a copy of what they need to find."""
    folder, home = tmp_path_factory.mktemp("newcomer"), tmp_path_factory.mktemp("state")
    shutil.copytree(triage_data, home / "data" / "alert-triage")
    cases = REPOSITORY / "use_cases"
    environment = {name: value for name, value in os.environ.items() if name not in (*KEYS, "MLFLOW_TRACKING_URI")}
    environment |= {"LEASTWISE_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    said: dict[str, str] = {}
    for module in ("use_cases.build_raw_alerts", "flows.prepare", "flows.advise"):
        words = list(steps()[module][0])
        if module == "flows.prepare":
            words += ["--out", str(folder / "alerts.yaml")]  # so that no test writes into use_cases/
        elif module == "flows.advise":
            assert words[0] == "alerts" and not (cases / "alerts.yaml").exists()
            words[0] = str(folder / "alerts.yaml")
        command = [sys.executable, "-m", module, *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        said[module] = done.stderr + done.stdout
    said["labels"] = json.dumps(list(load(str(folder / "alerts.yaml")).task.labels))
    return said


@pytest.mark.parametrize("module", ["use_cases.build_raw_alerts", "flows.prepare", "flows.advise"])
def test_what_is_shown_below_a_command_is_what_it_prints(walked: dict[str, str], module: str) -> None:
    printed = " ".join(walked[module].split())
    shown = steps()[module][1]
    assert shown
    for line in shown:
        for piece in line.split("…"):
            assert " ".join(piece.split()) in printed, line


def test_the_raw_table_has_what_it_says(walked: dict[str, str]) -> None:
    rows = EACH * len(TACTICS)
    assert json.loads(walked["labels"]) == sorted(TACTICS)
    assert re.match(r"\d+ rows", walked["use_cases.build_raw_alerts"])
    read = int(walked["use_cases.build_raw_alerts"].split()[0])
    assert read <= rows + TWICE + CONTRADICTED
    assert f"{TWICE} exact duplicates" in walked["flows.prepare"]
    assert f"{2 * CONTRADICTED} put aside: the same text under two labels" in walked["flows.prepare"]
