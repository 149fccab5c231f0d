"""Several processes train what one would: each step's examples divided, machines that meet, what ends and goes on.

No GPU is here: the processes speak gloo on the processor.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from leastwise.errors import BadInput
from leastwise.progress import TrainingProgress
from leastwise.stores import storage
from leastwise.training.request import TrainingReport, TrainingRequest
from leastwise.training.training import fine_tune
from leastwise.training.training_processes import launched, request_file
from leastwise.use_case.training import Launch
from tests.training.together import SETTINGS, first_machine, free_port, machine, the_same, together


def left_running(out: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(request_file(out)) in (p.info["cmdline"] or [])]


@pytest.mark.soak
def test_the_processes_of_one_machine_end_with_the_command_that_started_them_and_a_new_one_goes_on(
    tiny, rows, metric, alone, server, tmp_path
):
    home = tmp_path / "one"
    out = home / "adapters" / "made"
    first = first_machine(home, server, tiny, rows, metric, Launch(processes=2))
    deadline = time.monotonic() + 120
    while not list(out.parent.glob("*.unfinished/checkpoint-*/trainer_state.json")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    assert len(left_running(Path("adapters/made"))) >= 2
    first.kill()
    first.wait()
    deadline = time.monotonic() + 20
    while left := left_running(Path("adapters/made")):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert not out.exists()
    said, errors = first_machine(home, server, tiny, rows, metric, Launch(processes=2)).communicate(timeout=120)
    report = TrainingReport.model_validate_json(said.splitlines()[-1])
    assert report.resumed_from_step >= 1, errors
    the_same(alone, report)


@pytest.mark.soak
@pytest.mark.parametrize("dies", ["first", "other"])
def test_two_machines_with_nothing_in_common_but_s3_take_the_steps_of_one_and_go_on_after_a_kill(
    tiny, rows, metric, alone, server, monkeypatch, tmp_path, dies
):
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    place = f"s3://{server.bucket}/trainings-{dies}"
    launch = Launch(nodes=2, meet_at=f"127.0.0.1:{free_port()}", request=place)
    homes = tmp_path / "one", tmp_path / "other"
    joins = "-m", "leastwise.training.training_worker", place, "--join", "1"

    def start() -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
        return first_machine(homes[0], server, tiny, rows, metric, launch), machine(homes[1], server, *joins)

    first, other = start()
    put = f"{place}/{alone.key}"
    deadline = time.monotonic() + 120
    while not any(re.search(r"/checkpoint-\d+\.json$", name) for name in storage.files_below(put)):
        assert first.poll() is None and other.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    killed, left = (first, other) if dies == "first" else (other, first)
    killed.kill()
    assert left.wait(timeout=60) != 0, "the others end too"
    said = left.stderr.read()
    assert ("machine 1" in said and "is gone" in said) if dies == "other" else "the first machine is gone" in said

    if dies == "first":  # its worker is another machine now, and has nothing
        shutil.rmtree(homes[0])
    shutil.rmtree(homes[1])
    first, other = start()
    out, errors = first.communicate(timeout=120)
    assert first.returncode == 0, errors
    assert other.wait(timeout=60) == 0, other.stderr.read()
    report = TrainingReport.model_validate_json(out.splitlines()[-1])
    assert report.resumed_from_step >= 1
    the_same(alone, report)
    assert [path.name for path in (homes[0] / "adapters").iterdir()] == ["made"], "nothing else is left"
    assert not list((homes[1] / "joined").iterdir())
    there = {name.partition("/trainings-")[2].partition("/")[2] for name in storage.files_below(place)}
    assert there and all(name.startswith("bases/") for name in there), "the base stays for the next training"


def test_what_cannot_be_shared_is_refused_before_anything_starts(tiny, rows, tmp_path):
    with pytest.raises(BadInput, match="8 examples a step cannot be shared by 3 processes"):
        fine_tune(tiny, rows, [], together(processes=3), tmp_path / "a")
    with pytest.raises(BadInput, match=r"training\.launch\.shard"):
        fine_tune(tiny, rows, [], together(processes=2, shard=True), tmp_path / "b")
    with pytest.raises(ValidationError, match="meet_at"):
        Launch(nodes=2)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def standing_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Starts a program of the test's in place of the training processes."""

    def stand_in(program: str) -> TrainingRequest:
        monkeypatch.setattr(
            "leastwise.training.training_processes.command",
            lambda launch, node, asked: [sys.executable, "-c", program, str(asked)],
        )
        row = {"input_ids": [1, 2], "labels": [-100, 2]}
        return TrainingRequest(base=Path("/nowhere"), encoded=[row], watched=[], settings=SETTINGS)

    return stand_in


def test_a_process_that_fails_is_an_error_with_the_end_of_its_log(standing_in, tmp_path):
    request = standing_in("raise SystemExit('out of memory')")
    with pytest.raises(RuntimeError, match=r"(?s)training by 2 processes failed.*adapter\.log.*out of memory"):
        launched(request, Launch(processes=2), tmp_path / "adapter", lambda progress: None)


def test_what_progress_raises_ends_the_processes(standing_in, tmp_path):
    """As a budget does that is spent."""
    first = TrainingProgress(1, 4, 2.5, 0.5, 1.5)
    request = standing_in(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', sys.argv[1]])\n"
        f"open(sys.argv[1].replace('.request.json', '.progress'), 'a').write({json.dumps(asdict(first))!r} + '\\n')\n"
        "time.sleep(600)\n"
    )

    def spent(progress):
        assert progress == first and len(left_running(tmp_path / "adapter")) == 2
        raise RuntimeError("the budget is spent")

    with pytest.raises(RuntimeError, match="the budget is spent"):
        launched(request, Launch(processes=2), tmp_path / "adapter", spent)
    assert not left_running(tmp_path / "adapter")
