"""The engine of a candidate's weights is chosen by the machine, is part of what the candidate is, and follows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.answerers import open_answerer
from leastwise.answering.bundle.contents import safetensors_of
from leastwise.answering.bundle.opening import unpack
from leastwise.answering.bundle.packing import pack
from leastwise.answering.reaching.reached import target_of
from leastwise.answering.servers import check_servable, engine_for, engine_of, missing_engine
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating.cascade_offer import CascadeOffer, at_its_engine
from leastwise.ladder.candidate import Candidate, Cascade, Prompt, Weights
from leastwise.models import weights
from tests.engines.test_vllm import stand_in
from tests.workspaces import case_file, opened


@pytest.fixture
def work(tiny: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An open climb over the tiny model, on a machine that names no vLLM."""
    for variable in ("LEASTWISE_VLLM", "LEASTWISE_VLLM_DEVICE"):
        monkeypatch.delenv(variable, raising=False)
    rows = [{"id": f"r{i}", "text": f"text {i}", "label": "alpha"} for i in range(60)]
    pd.DataFrame(rows).to_parquet(tmp_path / "gate.parquet")
    case: dict[str, Any] = {
        "name": "engines",
        "task": {"instruction": "Which?", "labels": ["alpha", "beta"], "decline_label": "none"},
        "data": {"gate": "gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000, "concurrency": 2},
        "models": {"candidates": [{"uri": tiny.as_uri(), "price": {"input": 1.0, "output": 4.0}}]},
        "last_stage": "prompt",
        "allow_no_test": True,
    }
    return opened(case_file(tmp_path, case))


@pytest.fixture
def with_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with a CPU build of vLLM (which a process with its surface stands in for)."""
    command = stand_in(tmp_path / "environment")
    monkeypatch.setenv("LEASTWISE_VLLM", str(command))
    monkeypatch.setenv("LEASTWISE_VLLM_DEVICE", "cpu")
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "noted"))
    yield command


def candidate(tiny: Path, **changes: Any) -> Candidate:
    plain = Candidate(stage="prompt", model=tiny.as_uri(), venue="self_host", prompt=Prompt(system="Which?"))
    return plain.model_copy(update=changes)


def test_a_candidate_is_served_by_vllm_where_one_is_named_for_hardware_that_is_there_and_knows_the_model(
    tiny: Path, adapter: Weights, work: Workspace, with_vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = candidate(tiny)
    tuned = candidate(tiny, stage="fine_tune", weights=adapter, cascade=Cascade(first=plain, below=0.5))
    chosen = work.at_its_engine(tuned)
    assert chosen.engine == "vllm" and chosen.cascade is not None and chosen.cascade.first.engine == "vllm"
    offer = at_its_engine(CascadeOffer("prompt", plain, plain), work)
    assert isinstance(offer, CascadeOffer) and {offer.first.engine, offer.then.engine} == {"vllm"}
    assert "vLLM on this machine: LEASTWISE_VLLM names it" in engine_of(work.catalogue, work.at_its_engine(plain))
    student = candidate(tiny, weights=adapter.model_copy(update={"kind": "student"}))
    assert work.at_its_engine(student).engine == "llama.cpp" and "MLflow" in engine_for(work.catalogue, student).name
    monkeypatch.setenv("LEASTWISE_VLLM_DEVICE", "gpu")
    back = work.at_its_engine(chosen)
    assert back == tuned, "there is no GPU here, and a candidate of another machine is measured anew by what there is"
    said = engine_of(work.catalogue, tuned.model_copy(update={"cascade": None}))
    assert said.endswith("; vLLM is named and was not chosen: there is no GPU here")
    monkeypatch.setenv("LEASTWISE_VLLM_DEVICE", "cpu")
    registry = next(with_vllm.parent.parent.rglob("registry.py"))
    registry.write_text(registry.read_text().replace('"LlamaForCausalLM": (', '"AnotherForCausalLM": ('))
    os.utime(with_vllm)
    from leastwise.engines.vllm import servable

    servable.architectures.cache_clear()
    assert work.at_its_engine(plain).engine == "llama.cpp"
    assert engine_of(work.catalogue, plain).endswith("was not chosen: it does not serve this model")
    servable.architectures.cache_clear()
    monkeypatch.delenv("LEASTWISE_VLLM")
    assert "vLLM" not in engine_of(work.catalogue, plain)


def test_what_this_machine_lacks_of_a_candidates_engine_is_told_also_of_who_is_asked_before_it(
    tiny: Path, adapter: Weights, work: Workspace, with_vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = candidate(tiny, engine="vllm")
    cascade = candidate(tiny, stage="fine_tune", weights=adapter, cascade=Cascade(first=there, below=0.5))
    for each in (there, cascade, candidate(tiny)):
        assert missing_engine(each) is None
    monkeypatch.setenv("LEASTWISE_VLLM_DEVICE", "gpu")
    assert missing_engine(there) == missing_engine(cascade) == "there is no GPU here"
    with pytest.raises(BadInput, match="measured with vLLM, and there is no GPU here"):
        engine_for(work.catalogue, there)
    assert engine_for(work.catalogue, cascade).name == "llama.cpp", "of a cascade, what answers after the first"
    monkeypatch.delenv("LEASTWISE_VLLM")
    assert "names none on this machine" in (missing_engine(cascade) or "")
    assert missing_engine(candidate(tiny)) is None


def test_the_engine_is_part_of_a_candidate_and_the_first_one_leaves_every_key_as_it_was(tiny: Path) -> None:
    plain = Candidate(stage="prompt", model="openai:gpt-5", venue="api", prompt=Prompt(system="Which?"))
    assert "engine" not in plain.model_dump(mode="json") and plain.key == "9ac9c1e9288e4c05"
    other = plain.model_copy(update={"engine": "vllm"})
    assert other.key != plain.key and Candidate.model_validate_json(other.model_dump_json()) == other


def test_what_vllm_answered_is_never_taken_for_llama_cpps_answer_nor_the_other_way_round(
    tiny: Path, adapter: Weights, work: Workspace, with_vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, tuned = work.question.gate.rows.head(2), candidate(tiny, stage="fine_tune", weights=adapter)
    with open_answerer(work, tuned) as answerer:
        before = answerer.answer(rows)
    with ExitStack() as stack:
        target = target_of(work, work.at_its_engine(tuned), stack)
        assert target.place == {"engine": "vllm cpu auto"} and target.model == f"fine_tune-{target.model[-6:]}"
    with open_answerer(work, work.at_its_engine(tuned)) as answerer:
        there = answerer.answer(rows)
    assert [each.text for each in there] == [f"{target.model} says {text}" for text in rows["text"]], "by the adapter"
    with open_answerer(work, tuned) as answerer:
        assert [each.text for each in answerer.answer(rows)] == [each.text for each in before]
    monkeypatch.delenv("LEASTWISE_VLLM")
    with (
        pytest.raises(BadInput, match=r"measured with vLLM.*Name it here"),
        open_answerer(work, tuned.model_copy(update={"engine": "vllm"})),
    ):
        pass


def test_a_winner_takes_along_the_weights_as_its_engine_takes_them(
    tiny: Path, adapter: Weights, work: Workspace, with_vllm: Path, tmp_path: Path
) -> None:
    tuned = work.at_its_engine(candidate(tiny, stage="fine_tune", weights=adapter))
    pack(work, tuned, tmp_path / "bundle")
    folder, again, _, contents = unpack(tmp_path / "bundle", tmp_path)
    files = safetensors_of(folder, contents, again)
    assert again.engine == "vllm" and not [*folder.rglob("*.gguf")]
    assert files.adapter is not None and (files.adapter / "adapter_model.safetensors").is_file()
    assert (files.model / "model.safetensors").is_file() and (files.model / "tokenizer.json").is_file()


def test_what_the_named_vllm_knows_is_not_refused_for_what_llama_cpp_does_not(
    with_vllm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text('{"architectures": ["NewForCausalLM"]}')
    (tmp_path / "new" / "tokenizer.json").write_text("{}")
    uri, home = (tmp_path / "new").as_uri(), tmp_path / "home"
    monkeypatch.setattr(weights, "described", lambda _uri, _home: tmp_path / "new")
    check_servable(uri, home, 512)
    with pytest.raises(BadInput, match="serves no NewForCausalLM"):
        check_servable(uri, home, 512, "llama.cpp")
    monkeypatch.setenv("LEASTWISE_VLLM_DEVICE", "gpu")
    with pytest.raises(BadInput, match="serves no NewForCausalLM"):
        check_servable(uri, home, 512)
    with pytest.raises(BadInput, match="there is no GPU here"):
        check_servable(uri, home, 512, "vllm")
