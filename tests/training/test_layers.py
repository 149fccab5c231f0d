"""The layers an adapter is put on are found in the model, whatever its makers called them."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from leastwise.errors import BadInput
from leastwise.models.causal_model import Generator, merge
from leastwise.models.chat import format_chat
from leastwise.training.causal.layers import adapter_config, blocks_of, linear_layers
from leastwise.training.fused_lora import FusedLoraLinear
from leastwise.training.settings import TrainingSettings
from leastwise.training.trainable_model import trainable_model
from leastwise.training.training import fine_tune
from leastwise.training.training_rows import Row

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
GROUPED = SMALL | {"num_key_value_heads": 2, "vocab_size": 96, "pad_token_id": 0}
LLAMA = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
SHAPES = {
    "llama": (GROUPED, LLAMA),
    "mistral": (GROUPED, LLAMA),
    "qwen2": (GROUPED, LLAMA),
    "qwen3": (GROUPED | {"head_dim": 8}, LLAMA),
    "gemma2": (GROUPED | {"head_dim": 8}, LLAMA),
    "gemma3_text": (GROUPED | {"head_dim": 8}, LLAMA),
    "phi3": (GROUPED, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
    "gpt_neox": (SMALL | {"vocab_size": 96}, {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    "gpt2": ({"n_embd": 32, "n_layer": 4, "n_head": 4, "vocab_size": 96}, {"c_attn", "c_proj", "c_fc"}),
}


def built(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPES[kind][0]), attn_implementation="eager")


@pytest.mark.parametrize("kind", SHAPES)
def test_every_linear_layer_of_the_upper_blocks_is_trained_and_no_other(kind):
    from peft import get_peft_model

    model = built(kind)
    config = adapter_config(model, 0.5, 2, 4)
    assert set(config.target_modules) == SHAPES[kind][1], "named as before where the last names say it all"
    inside = {
        name
        for name, module in model.named_modules()
        if any(f".{number}." in name for number in (2, 3)) and getattr(module, "weight", torch.empty(0)).ndim == 2
    }
    trained = {
        name.partition(".lora_")[0] for name, p in get_peft_model(model, config).named_parameters() if p.requires_grad
    }
    assert {name.removeprefix("base_model.model.") for name in trained} == inside


@pytest.mark.parametrize("kind", SHAPES)
def test_an_adapter_on_any_of_them_learns_as_pefts_own_does(kind):
    from peft import get_peft_model

    model = built(kind)
    adapted = get_peft_model(model, adapter_config(model, 1.0, 4, 8)).train()
    ids = torch.arange(24).reshape(2, 12)
    rate = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.5)
    losses = []
    for _ in range(4):
        losses.append(adapted(input_ids=ids, labels=ids).loss)
        losses[-1].backward()
        rate.step()
        rate.zero_grad()
    assert losses[-1] < losses[0]
    assert any(isinstance(m, FusedLoraLinear) for m in adapted.modules()) == (kind != "gpt2")


def test_of_two_towers_only_the_decoder_is_trained():
    """As in a model that sees: its other tower has blocks in a list of the same name, with layers of the same names."""
    model = built("llama")
    model.tower = built("llama").model
    config = adapter_config(model, 0.5, 2, 4)
    assert config.layers_to_transform is None and len(config.target_modules) == 14
    assert all(name.startswith(("model.layers.2.", "model.layers.3.")) for name in config.target_modules)


def test_a_layer_that_is_not_torchs_own_is_left_to_peft():
    class Linear4bit(torch.nn.Linear):
        """As bitsandbytes' is: a subclass whose weight is no matrix."""

    model = built("llama")
    old = model.model.layers[3].mlp.down_proj
    model.model.layers[3].mlp.down_proj = Linear4bit(old.in_features, old.out_features, bias=False)
    assert not linear_layers(model, 0.5).plain and linear_layers(built("llama"), 0.5).plain
    assert not adapter_config(model, 0.5, 2, 4)._custom_modules


def test_a_model_without_blocks_or_linear_layers_is_refused_with_what_to_do():
    model = built("llama")
    for block in model.model.layers:
        block.self_attn, block.mlp = torch.nn.Identity(), torch.nn.Identity()
    with pytest.raises(BadInput, match=r"models\.base.*training\.method: full"):
        linear_layers(model, 0.5)
    model.model.layers = torch.nn.Identity()
    with pytest.raises(BadInput, match=r"models\.base.*name another base"):
        blocks_of(model)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_gpt2_with_its_transposed_weights_is_trained_proven_and_merged(method, tiny, tmp_path):
    """Conv1D keeps (inputs, outputs), and the blocks are called h."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    base, tokenizer = tmp_path / "base", AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 49152, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).to(torch.bfloat16).save_pretrained(base)
    tokenizer.save_pretrained(base)
    rows = [Row(format_chat(base, [{"role": "user", "content": f"number {n}"}]), "odd") for n in range(8)]
    rate = 1e-2 if method == "lora" else 1e-3
    settings = TrainingSettings(
        method=method, batch_size=4, epochs=2, max_examples=16, learning_rate=rate, upper_blocks_share=0.5, threads=1
    )
    report = fine_tune(base, rows, [], settings, tmp_path / "out")
    assert report.reload_difference == 0.0 and report.train_losses[-1] < report.train_losses[0]
    if method == "full":
        before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed and all(".h.1." in name for name in changed)
        return
    prompts = [row.prompt for row in rows[:2]]
    merged = Generator(merge(base, tmp_path / "out", tmp_path / "merged"), threads=1)
    assert merged.answer(prompts, 4) == Generator(base, tmp_path / "out", threads=1).answer(prompts, 4)


def test_the_adapter_of_a_seed_starts_as_it_did_when_its_layers_were_listed(tiny):
    """What was trained before is trained again the same: the same layers, drawn in the same order."""
    from peft import LoraConfig, get_peft_model

    from leastwise.models.causal_model import loaded

    torch.manual_seed(3)
    listed = LoraConfig(
        r=16,
        lora_alpha=32.0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=[1],
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    was = get_peft_model(loaded(tiny, attention="eager"), listed).state_dict()
    found = trainable_model(tiny, TrainingSettings(seed=3, upper_blocks_share=0.5))
    now = found.state_dict()
    assert was.keys() == now.keys() and all(torch.equal(was[name], now[name]) for name in was)
    kept = SimpleNamespace(**found.peft_config["default"].to_dict())
    assert (set(kept.target_modules), kept.layers_to_transform, kept.layers_pattern) == (LLAMA, [1], "layers")
