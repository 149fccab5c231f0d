"""What an engine had to do while it was watched: as it says itself, and nothing of one that says nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leastwise.engines import watch
from leastwise.engines.endpoint import ForeignEndpoint
from leastwise.engines.engine import ToServe
from leastwise.engines.llama_cpp import LlamaCpp
from leastwise.engines.watch import together, watched
from tests.engines.test_engine import said_by


def test_tokens_are_those_since_it_was_watched_and_of_requests_the_most_at_once(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gguf,) = tiny_gguf.glob("*.gguf")
    monkeypatch.setattr(watch, "EVERY_S", 0.05)
    with LlamaCpp().serving(ToServe(str(gguf), "base", tmp_path / "log")) as running:
        said_by(running.endpoint(), "before", 5, ignore_eos=True)
        with watched(running) as counts:
            assert counts.figures() == dict.fromkeys((*watch.TOKENS, *watch.MOST), 0.0)
            with ThreadPoolExecutor(3) as pool:
                list(
                    pool.map(lambda n: said_by(running.endpoint(), f"{n} word " * 200, 300, ignore_eos=True), range(3))
                )
            deadline = time.monotonic() + 10  # its page is behind what it answered by a moment
            while (figures := counts.figures())["engine.output_tokens"] < 900:
                assert time.monotonic() < deadline, figures
        assert figures["engine.output_tokens"] == 900 and figures["engine.input_tokens"] > 1200
        assert (figures["engine.most_running"], figures["engine.most_waiting"]) == (1, 2), "of one slot"
        running.stop()
        assert counts.figures() == figures, "what was known stays when the engine has ended"


def test_an_engine_that_tells_nothing_has_no_figures_and_several_are_added(tmp_path: Path) -> None:
    with (
        ForeignEndpoint("http://127.0.0.1:9/v1").serving(ToServe("", "theirs", tmp_path)) as running,
        watched(running) as counts,
    ):
        assert counts.figures() == {}
    one = {"engine.input_tokens": 3.0, "engine.output_tokens": 1.0, "engine.most_waiting": 2.0, "other": 9.0}
    assert together({}, {"usd.per_retraining": 1.0}) == {}
    assert together(one, {}) == {name: value for name, value in one.items() if name != "other"}
    more = {"engine.input_tokens": 4.0, "engine.most_waiting": 1.0, "engine.most_running": 0.0}
    assert together(one, more) == {
        "engine.input_tokens": 7.0,
        "engine.output_tokens": 1.0,
        "engine.most_waiting": 2.0,
        "engine.most_running": 0.0,
    }
