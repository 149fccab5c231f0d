"""A base model with what is to be trained of it, and what was trained as it is kept: safetensors with a proof.

Trained weights are held in fp32 and computed with in bf16 (autocast), where the processor has that: bf16 alone has no
room for small updates. They are kept in the base's precision. It trains nothing: `leastwise.training.training` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leastwise.models.causal_model import IGNORED, PROOF, loaded, proof_inputs, save_tokenizer
from leastwise.models.machine import native_dtype, training_attention
from leastwise.money.lora import upper_blocks

if TYPE_CHECKING:
    from peft import PeftModel

    from leastwise.models.causal_model import CausalModel
    from leastwise.training.completion_trainer import CompletionTrainer
    from leastwise.training.settings import TrainingSettings
    from leastwise.training.training_rows import TokenRow

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def trainable_model(base: Path, settings: TrainingSettings) -> CausalModel | PeftModel:
    """The base in training mode on the CPU (the trainer moves it), its upper blocks or their adapters in fp32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    from leastwise.training.fused_lora import FusedLoraLinear

    torch.manual_seed(settings.seed)
    model = loaded(base, attention=training_attention(), device="cpu")
    model.train()
    upper = upper_blocks(model.config.num_hidden_layers, settings.upper_blocks_share)
    if settings.method == "full":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(f"layers.{block}." in name for block in upper))
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return model
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft only divides it by the rank
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
            # autocast casts the small weight, not the large input
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]  # torch calls it a module or tensor
    return adapted


def gathered(trainer: CompletionTrainer, base: Path, settings: TrainingSettings) -> CausalModel | PeftModel | None:
    """What was trained as one model.

    Where processes each hold a share (FSDP), it is a fresh one, and only the first process has it.
    """
    if not trainer.is_fsdp_enabled:
        trained: CausalModel | PeftModel = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        return trained
    whole = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.accelerator.is_main_process:
        return None
    model = trainable_model(base, settings)
    model.load_state_dict(whole, strict=False)  # buffers stay
    return model


def save(model: CausalModel | PeftModel, base: Path, folder: Path, rows: list[TokenRow]) -> None:
    """Adapter (or model with tokenizer) and the proof: a few prompts and the logits the model in memory gives."""
    import torch
    from peft import PeftModel
    from safetensors.torch import save_file

    prompts = [
        [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED] for row in rows
    ]
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
    model.save_pretrained(str(folder))
    if not isinstance(model, PeftModel):
        save_tokenizer(base, folder)
