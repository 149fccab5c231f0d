"""A base model with what is to be trained of it, and what was trained as it is kept: safetensors with a proof.

Trained weights are held in fp32 and computed with in bf16 (autocast), where the processor has that: bf16 alone has no room
for small updates. They are kept in the base's precision. It trains nothing: `leastwise.training.training` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from leastwise.models.causal_model import PROOF, loaded, proof_inputs, tokenizer_of
from leastwise.models.lora import upper_blocks
from leastwise.models.weights import native_dtype, training_attention

if TYPE_CHECKING:
    from leastwise.training.settings import TrainingSettings

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def trainable_model(base: Path, settings: TrainingSettings) -> Any:
    """The base in training mode on the CPU (the trainer moves it), its upper blocks or their adapters in fp32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    from leastwise.training.fused_lora import FusedLoraLinear

    torch.manual_seed(settings.seed)
    model = loaded(base, attention=training_attention(), device="cpu").train()
    upper = upper_blocks(model.config.num_hidden_layers, settings.upper_blocks_share)
    if settings.method == "full":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(f"layers.{block}." in name for block in upper))
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return model
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=list(LINEAR),
        layers_to_transform=list(upper),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
    )
    config._register_custom_module({torch.nn.Linear: FusedLoraLinear})
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    for module in adapted.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False  # autocast casts the small weight, not the large input
    return adapted


def gathered(trainer: Any, base: Path, settings: TrainingSettings) -> Any:
    """What was trained as one model; where processes each hold a share (FSDP), as a fresh one, by the first process alone."""
    if not trainer.is_fsdp_enabled:
        return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    whole = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.accelerator.is_main_process:
        return None
    model = trainable_model(base, settings)
    model.load_state_dict(whole, strict=False)  # buffers stay
    return model


def save(model: Any, base: Path, folder: Path, rows: list[dict[str, list[int]]]) -> None:
    """Adapter (or model with tokenizer) and the proof: a few prompts and the logits the model in memory gives."""
    import torch
    from safetensors.torch import save_file

    prompts = [[i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100] for row in rows]
    prompts = [prompt or row["input_ids"] for prompt, row in zip(prompts, rows, strict=True)]
    longest = max(map(len, prompts))
    proof = {
        "input_ids": torch.tensor([[0] * (longest - len(p)) + p for p in prompts]),
        "attention_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts]),
    }
    for parameter in model.parameters():  # not `model.to`, which would round the positions' frequencies too
        parameter.data = parameter.data.to(native_dtype())
    model.eval()
    with torch.inference_mode():
        proof["logits"] = (
            model(**proof_inputs(proof, model.device), logits_to_keep=1).logits[:, -1].float().cpu().contiguous()
        )
    (folder / PROOF).parent.mkdir()
    save_file(proof, folder / PROOF)
    model.save_pretrained(folder)
    if not hasattr(model, "peft_config"):
        tokenizer_of(str(base)).save_pretrained(folder)
