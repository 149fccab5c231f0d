"""Where a causal student starts from: its own weights where it names some, else those of the base."""

from pathlib import Path
from typing import Any

import pytest

from leastwise.errors import BadInput
from leastwise.models import weights
from leastwise.models.catalogue import Catalogue
from leastwise.money import PriceBook
from leastwise.training import causal_student
from leastwise.training.causal_student import base_dir
from leastwise.use_case import UseCase
from leastwise.use_case.student import CausalStudent

BOOK = PriceBook.model_validate({"as_of": "2026-11-01"})


def catalogue_of(home: Path, student: dict[str, Any], base: str | None) -> Catalogue:
    price = {"input": 0.1, "output": 0.4}
    models: dict[str, Any] = {"candidates": [{"uri": "openai:big", "price": price}]}
    models |= {"base": {"uri": base, "price": price}} if base else {}
    use_case = UseCase.model_validate(
        {
            "name": "student",
            "task": {"instruction": "Name it.", "labels": ["a", "b"]},
            "data": {"gate": "gate.csv"},
            "allow_no_test": True,
            "requirements": {"quality": {"bound": 0.8, "margin": 0.1}},
            "traffic": {"requests_per_month": 1000},
            "models": models,
            "training": {"student": {"kind": "causal", **student}},
        }
    )
    return Catalogue(use_case, BOOK, home)


def student_of(catalogue: Catalogue) -> CausalStudent:
    student = catalogue.use_case.training.student
    assert isinstance(student, CausalStudent)
    return student


@pytest.fixture
def other(tiny: Path, tmp_path: Path) -> Path:
    """Weights that are not the base's: the same shape, other content."""
    import shutil

    folder = tmp_path / "other"
    shutil.copytree(tiny, folder)
    (folder / "note.txt").write_text("another model")
    return folder


def test_a_student_with_a_uri_starts_from_those_weights(tiny: Path, other: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(tmp_path, {"uri": other.as_uri()}, base=tiny.as_uri())
    assert weights.directory_hash(base_dir(catalogue, student_of(catalogue))) == weights.directory_hash(other)


def test_a_student_without_a_uri_starts_from_the_base(tiny: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(tmp_path, {}, base=tiny.as_uri())
    assert weights.directory_hash(base_dir(catalogue, student_of(catalogue))) == weights.directory_hash(tiny)


def test_a_student_with_a_uri_needs_no_base(other: Path, tmp_path: Path) -> None:
    catalogue = catalogue_of(tmp_path, {"uri": other.as_uri()}, base=None)
    assert weights.directory_hash(base_dir(catalogue, student_of(catalogue))) == weights.directory_hash(other)


def test_a_student_whose_weights_cannot_be_read_is_refused_before_anything_is_spent(tiny: Path, tmp_path: Path) -> None:
    missing = (tmp_path / "nowhere").as_uri()
    with pytest.raises(BadInput, match="nowhere"):
        catalogue_of(tmp_path, {"uri": missing}, base=tiny.as_uri()).check_weights()


def test_a_student_that_is_no_open_weights_is_refused_when_the_use_case_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="openai:small is not open weights"):
        catalogue_of(tmp_path, {"uri": "openai:small"}, base=None)


def test_a_cut_model_has_the_first_blocks_of_the_whole_one(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    cut = causal_student.cut(tiny, 1, tmp_path / "cut")
    whole, kept = (load_file(folder / "model.safetensors") for folder in (tiny, cut))
    assert {name for name in whole if "layers.1." not in name} == set(kept)
    assert all((whole[name] == kept[name]).all() for name in kept)
    with pytest.raises(BadInput, match="has 2"):
        causal_student.cut(tiny, 3, tmp_path / "none")


def test_blocks_are_cut_whatever_their_list_is_called(tiny: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    whole = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=64, n_positions=16))
    whole.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "base")
    cut = AutoModelForCausalLM.from_pretrained(causal_student.cut(tmp_path / "base", 2, tmp_path / "cut"))
    assert cut.config.num_hidden_layers == len(cut.transformer.h) == 2
    wanted = whole.transformer.h[1].mlp.c_fc.weight.to(cut.dtype)
    assert torch.equal(cut.transformer.h[1].mlp.c_fc.weight, wanted)
