"""vLLM is held to transformers once for each weights and each vLLM, before it judges or serves anything.

A server with its surface that computes with transformers stands in for it, rightly or wrongly.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from leastwise.answering import servers
from leastwise.engines.engine import ToServe
from leastwise.engines.vllm import proof
from leastwise.engines.vllm.comparison import Comparison, _divergence
from leastwise.engines.vllm.server import Vllm
from leastwise.engines.vllm.settings import VllmSettings
from leastwise.errors import BadInput
from tests.engines.test_gguf import adapter_on
from tests.engines.test_vllm import stand_in


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_on(tiny, tmp_path_factory.mktemp("adapter") / "a")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VllmSettings:
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "noted"))
    return VllmSettings(executable=stand_in(tmp_path / "environment"), device="cpu")


def with_adapter(tiny: Path, adapter: Path, log: Path) -> ToServe:
    return ToServe(str(tiny), "base", log, {"tuned": adapter}, context_tokens=150, threads=1)


def test_weights_that_vllm_computes_as_transformers_does_are_proven_once_for_each_vllm(
    settings: VllmSettings, tiny: Path, adapter: Path, tmp_path: Path
) -> None:
    proofs, what = tmp_path / "proofs", with_adapter(tiny, adapter, tmp_path / "log")
    with Vllm(settings).serving(what) as running:
        for name, kept in (("base", None), ("tuned", adapter)):
            assert not proof.check_known(settings, tiny, kept, proofs)
            proof.prove(settings, running, what, tiny, kept, proofs, name)
            assert proof.check_known(settings, tiny, kept, proofs)
        found = [Comparison.model_validate_json(file.read_bytes()) for file in proofs.iterdir()]
        assert len(found) == 2 and all(each.places > 200 and not each.refusal for each in found)
        assert min(each.largest for each in found) < 0.001, "both compute the base in float32"
        other = settings.model_copy(update={"dtype": "float16"})
        assert not proof.check_known(other, tiny, None, proofs), "another number format computes otherwise"


def test_a_vllm_that_leaves_an_adapter_out_is_refused_and_one_that_reads_a_chat_otherwise(
    settings: VllmSettings, tiny: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong, said in (("adapter", "differ by up to"), ("tokens", "it cuts .*first other one")):
        monkeypatch.setenv("STAND_IN_WRONG", wrong)
        what = with_adapter(tiny, adapter, tmp_path / "log")
        with (
            Vllm(settings).serving(what) as running,
            pytest.raises(BadInput, match=f"does not run it as it was trained: .*{said}"),
        ):
            proof.prove(settings, running, what, tiny, adapter, tmp_path / wrong, "tuned")
        with pytest.raises(BadInput, match=f"{said}.*unset LEASTWISE_VLLM"):
            proof.check_known(settings, tiny, adapter, tmp_path / wrong)


def test_a_base_is_held_to_transformers_by_the_vllm_that_will_serve_it_before_a_training_is_paid(
    settings: VllmSettings, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASTWISE_VLLM", str(settings.executable))
    monkeypatch.setenv("LEASTWISE_VLLM_DEVICE", "cpu")
    servers.prove_servable(tmp_path, tiny, "the base")
    (kept,) = (tmp_path / servers.PROOFS).iterdir()
    assert not (tmp_path / "gguf").exists(), "what vLLM serves is not converted"
    found = Comparison.model_validate_json(kept.read_bytes())
    kept.write_text(found.model_copy(update={"largest": 2.2}).model_dump_json())
    with pytest.raises(BadInput, match=r"up to 2\.2"):
        servers.prove_servable(tmp_path, tiny, "the base")


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({}, False),
        ({"largest": 1.1}, True),
        ({"divergence": 0.05}, True),
        ({"largest": math.nan}, True),
        ({"other": "it cuts"}, True),
        ({"precision": "float32"}, True),
        ({"precision": "float32", "largest": 0.02, "divergence": 0.0001}, False),
    ],
)
def test_what_the_number_format_explains_is_let_through_and_more_is_not(changes: Any, is_refused: bool) -> None:
    same = {"engine": "vLLM", "precision": "half", "largest": 0.4, "divergence": 0.004, "places": 9}
    assert bool(Comparison.model_validate({**same, **changes}).refusal) == is_refused


def test_how_far_apart_two_are_counts_what_neither_told() -> None:
    assert _divergence([0.5, 0.25], [0.5, 0.25]) == pytest.approx(0.0)
    assert _divergence([0.5], [0.25]) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75))
    assert _divergence([0.9, 0.1], [0.1, 0.9]) > 1
