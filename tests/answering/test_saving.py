"""kill -9 while something is saved leaves nothing that a later run would trust because it is there."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from leastwise.answering.servers import student_server
from leastwise.ladder.candidate import Candidate, Weights
from leastwise.models import hardware, weights
from leastwise.record import student_model
from leastwise.stores import storage


def killed(work: Callable[[], object]) -> None:
    """Do it in a child that is killed before it has ended."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def half(path: Path, content: str = '{"half') -> None:
    """Write a part of what belongs there, then die."""
    path.write_text(content)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    (tmp_path / "student").mkdir()
    student = Weights(kind="student", uri=(tmp_path / "student").as_uri(), revision="r1")
    return Candidate(stage="distill", model="package://small", venue="self_host", weights=student)


def test_a_student_laid_out_half_is_laid_out_again(
    tmp_path: Path, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(student_model, "save_pyfunc", lambda _, out: half(out / "MLmodel"))
        killed(lambda: student_server(tmp_path, candidate, tmp_path))
    assert not (tmp_path / "served" / "r1").exists()
    monkeypatch.setattr(student_model, "save_pyfunc", lambda _, out: (out / "MLmodel").write_text("whole"))
    student_server(tmp_path, candidate, tmp_path)
    assert (tmp_path / "served" / "r1" / "MLmodel").read_text() == "whole"


def test_a_measured_speed_noted_half_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_measured", lambda: {"bfloat16": 1e9, "float32": 1e9})
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_write_synced", lambda part, _: half(part))
        patch.setattr(Path, "write_text", half_of(Path.write_text))
        killed(lambda: hardware._this_machine(tmp_path))
    assert hardware._this_machine(tmp_path) > 0


def half_of(write: Callable[..., int]) -> Callable[..., int]:
    """A write that dies half way."""

    def died(path: Path, text: str, *_: object, **__: object) -> int:
        write(path, text[: len(text) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    return died


def test_a_folder_that_is_being_made_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    def make() -> None:
        with weights.built(tmp_path / "adapter") as folder:
            half(folder / "adapter_model.safetensors")

    killed(make)
    assert not (tmp_path / "adapter").exists()
    with weights.built(tmp_path / "adapter") as folder:
        (folder / "adapter_model.safetensors").write_text("whole")
    assert [each.name for each in (tmp_path / "adapter").iterdir()] == ["adapter_model.safetensors"]
