"""A causal student starts from the first blocks of its base."""

from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.training import causal_student


def test_a_cut_model_has_the_first_blocks_of_the_whole_one(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    cut = causal_student.cut(tiny, 1, tmp_path / "cut")
    whole, kept = (load_file(folder / "model.safetensors") for folder in (tiny, cut))
    assert {name for name in whole if "layers.1." not in name} == set(kept)
    assert all((whole[name] == kept[name]).all() for name in kept)
    with pytest.raises(BadInput, match="has 2"):
        causal_student.cut(tiny, 3, tmp_path / "none")
