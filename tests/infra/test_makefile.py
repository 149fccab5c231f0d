"""What make says of a target before it begins; nothing is run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


def commands(target: str, *words: str) -> list[str]:
    """What make would run for a target where nothing is there yet."""
    done = subprocess.run(["make", "-n", target, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("target", [each for each in TARGETS if each not in ("help", "env", "clean")])
def test_a_target_says_what_it_takes_on_standard_error_before_it_begins(target: str) -> None:
    (said,) = (line for line in commands(target) if f"make {target} takes " in line)
    own = commands(target)[commands(target).index(said) + 1 :]
    assert said.endswith(">&2") and re.search(r"takes \S*.*(\d|hours|seconds)", said)
    assert own, "it is said before what it says"


def test_the_environment_says_what_it_takes_only_where_it_is_set_up(tmp_path: Path) -> None:
    lines = commands("env", f"VENV={tmp_path / 'none'}")
    (said,) = (at for at, line in enumerate(lines) if " takes about " in line)
    assert all(said < at for at, line in enumerate(lines) if "pip install" in line)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / ".complete").touch()
    assert not any(" takes " in line for line in commands("env", f"VENV={tmp_path / 'there'}"))


def test_another_use_case_than_the_demos_is_promised_no_time() -> None:
    assert any(re.search(r"make demo takes .*\d min", line) for line in commands("demo"))
    (said,) = (line for line in commands("demo", "USE_CASE=use_cases/perl-questions.yaml") if "make demo takes" in line)
    assert "flows.advise use_cases/perl-questions.yaml" in said
