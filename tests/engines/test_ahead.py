"""Weights made ready before they are asked for: waited for, found again, ended with who began it, no reason to stop."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from leastwise.engines.gguf import ahead, files
from leastwise.errors import BadInput

BEGINS = """
import sys
from pathlib import Path
from leastwise.engines.gguf import ahead
ahead.begin([sys.argv[1]], Path(sys.argv[2]))
print(ahead._BEGUN[Path(sys.argv[2])].pid)
"""


@pytest.mark.soak
def test_what_was_begun_is_waited_for_found_ready_and_not_begun_again(
    tmp_path: Path, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="leastwise")
    ahead.begin([tiny.as_uri()], tmp_path)
    assert not files.is_proven(ahead.file_of(tmp_path, tiny)), "nothing is waited for"
    ahead.wait(tmp_path)
    assert files.is_proven(ahead.file_of(tmp_path, tiny))
    notes = [record.message for record in caplog.records]
    assert notes[0] == f"converting {tiny.as_uri()} for llama.cpp and comparing it with transformers, once"
    assert [note[:17] for note in notes[1:]] == ["as f16 llama.cpp ", "as q8_0 llama.cpp"]
    ahead.begin([tiny.as_uri()], tmp_path)
    assert tmp_path not in ahead._BEGUN


def test_what_is_ready_is_not_begun(tmp_path: Path, tiny: Path, tiny_gguf: Path) -> None:
    home = tiny_gguf.parent
    ahead.begin([tiny.as_uri()], home)
    assert home not in ahead._BEGUN
    ahead.wait(home)  # nothing to wait for


def test_what_cannot_be_made_ends_nothing_and_is_said_by_whoever_needs_it(tmp_path: Path) -> None:
    uri = (tmp_path / "no-model").as_uri()
    with pytest.raises(BadInput):
        ahead.begin([uri], tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (broken / name).write_text("{}")
    ahead.begin([broken.as_uri()], tmp_path)
    ahead.wait(tmp_path)
    assert not files.is_proven(ahead.file_of(tmp_path, broken)) and tmp_path not in ahead._BEGUN


def test_it_ends_with_the_process_that_began_it(tmp_path: Path, tiny: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGINS, tiny.as_uri(), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    until = time.monotonic() + 120  # it looks as soon as it is imported
    while (is_there := _is_alive(int(done.stdout))) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_there
    assert not files.is_proven(ahead.file_of(tmp_path, tiny))


def _is_alive(pid: int) -> bool:
    """Whether a process computes: what has ended may be listed until somebody asks for its status."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
