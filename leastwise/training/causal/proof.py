"""What was trained as files, and the proof that these files are it: read back into the model that was trained.

An adapter is loaded under a second name beside the trained one, so that base, device and kernels are the same and no
second base is held; of a full training every tensor is compared. It trains nothing and loads no other model, but where
a file's tensors have other names than the model's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from leastwise.models.causal_model import IGNORED, PROOF, proof_inputs, save_tokenizer
from leastwise.models.machine import native_dtype

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from leastwise.models.causal_model import CausalModel
    from leastwise.training.training_rows import TokenRow

    Tensors: TypeAlias = Mapping[str, torch.Tensor]

_RELOADED = "reloaded"
TOLERANCE = 1e-3  # of a logit, where the trained model itself answers alike alone and in a batch


@dataclass(frozen=True)
class Proof:
    """Largest differences of a logit: of the reloaded weights, and of the trained model alone and in a batch."""

    reload_difference: float
    kernel_difference: float

    @property
    def is_kept(self) -> bool:
        """Whether reloading changed no more than the kernels do by themselves; a difference that is no number did."""
        return self.reload_difference <= max(TOLERANCE, self.kernel_difference)


def save(model: CausalModel | PeftModel, base: Path, folder: Path, rows: Sequence[TokenRow]) -> Proof:
    """Writes adapter (or model with tokenizer) and a few prompts' logits to `folder`, and proves it by `prove`."""
    from peft import PeftModel
    from safetensors.torch import save_file

    for parameter in model.parameters():  # not `model.to`, which would round the positions' frequencies too
        if parameter.is_floating_point():  # quantized weights are bytes
            parameter.data = parameter.data.to(native_dtype())
    model.eval()
    inputs = _prompts(rows)
    (folder / PROOF).parent.mkdir()
    save_file({**inputs, "logits": _logits(model, inputs)}, folder / PROOF)
    model.save_pretrained(str(folder))
    if isinstance(model, PeftModel):
        forget_base(folder)
    else:
        save_tokenizer(base, folder)
    return prove(model, folder)


def forget_base(adapter: Path) -> None:
    """Takes from an adapter's files where its base lay on the machine that trained it: others have it elsewhere, and
    its digest would be another for each place.
    """
    (adapter / "README.md").unlink(missing_ok=True)  # peft's card for a hub
    written = adapter / "adapter_config.json"
    said = json.loads(written.read_text(encoding="utf-8"))
    text = json.dumps(said | {"base_model_name_or_path": None}, indent=2, sort_keys=True)
    written.write_text(text, encoding="utf-8")


def prove(model: CausalModel | PeftModel, folder: Path) -> Proof:
    """Reads back what `save` wrote of this model. Raises RuntimeError where it is not what is in memory."""
    from peft import PeftModel
    from safetensors.torch import load_file

    kept = load_file(folder / PROOF)
    if not isinstance(model, PeftModel):
        _compare_whole(model, folder)
        return Proof(0.0, 0.0)
    reloaded, trained = _logits_of_both(model, folder, kept)
    found = Proof(_largest(reloaded, trained), _kernel_difference(model, kept, trained))
    if not found.is_kept:
        raise RuntimeError(
            f"{folder}: reloaded into the model that was trained, logits differ by {found.reload_difference:.4f}; by "
            f"the kernels alone they would by {found.kernel_difference:.4f}"
        )
    return found


def _prompts(rows: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
    import torch

    prompts = [
        [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED] or row["input_ids"]
        for row in rows
    ]
    longest = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[0] * (longest - len(p)) + p for p in prompts]),
        "attention_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts]),
    }


def _logits(model: CausalModel | PeftModel, inputs: Tensors) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = model(**proof_inputs(inputs, model.device), logits_to_keep=1).logits[:, -1]
    return logits.float().cpu().contiguous()


def _largest(some: torch.Tensor, others: torch.Tensor) -> float:
    return float((some - others).abs().max())


def _kernel_difference(model: PeftModel, inputs: Tensors, together: torch.Tensor) -> float:
    """What the same weights make of the same prompts one by one: other shapes, so other kernels."""
    import torch

    rows = range(len(inputs["input_ids"]))
    names = ("input_ids", "attention_mask")
    alone = [_logits(model, {name: inputs[name][row : row + 1] for name in names}) for row in rows]
    return _largest(torch.cat(alone), together)


def _logits_of_both(model: PeftModel, folder: Path, inputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the adapter on disk and of the one in memory, on the base in memory; their tensors are compared too.

    One after the other: looked at, a base of 4 bits is packed anew on a CPU, and rounds otherwise.
    """
    from peft import get_peft_model_state_dict

    trained = str(model.active_adapter)
    model.load_adapter(
        str(folder), _RELOADED, torch_device=str(model.device), autocast_adapter_dtype=False, low_cpu_mem_usage=True
    )
    try:
        of = {name: get_peft_model_state_dict(model, adapter_name=name) for name in (trained, _RELOADED)}
        _compare(of[trained], iter(of[_RELOADED].items()), folder)
        model.eval().set_adapter(_RELOADED)
        reloaded = _logits(model, inputs)
        model.set_adapter(trained)
        return reloaded, _logits(model, inputs)
    finally:
        model.set_adapter(trained)
        model.delete_adapter(_RELOADED)


def _compare_whole(model: CausalModel, folder: Path) -> None:
    """Tensor by tensor; where a model is saved under other names (experts kept apart), it is loaded once more."""
    from transformers import AutoModelForCausalLM

    trained = model.state_dict()
    if all(name in trained for name, _ in _tensors_in(folder)):
        _compare(trained, _tensors_in(folder), folder)
    else:
        again = AutoModelForCausalLM.from_pretrained(folder, dtype=native_dtype())
        _compare(trained, iter(again.state_dict().items()), folder)


def _tensors_in(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """One tensor after the other, so that no second model is in memory."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no iterator)
                yield name, tensors.get_tensor(name)


def _compare(trained: Tensors, on_disk: Iterator[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Raises RuntimeError, naming the first, where a tensor is another one, or is on one side only."""
    import torch

    seen: set[int] = set()
    for name, tensor in on_disk:
        if name not in trained:
            raise RuntimeError(f"{folder}: reloaded, it has a tensor that was not trained, {name}")
        wanted = trained[name]
        if not torch.equal(tensor.to(wanted.device, wanted.dtype), wanted):
            raise RuntimeError(f"{folder}: reloaded, it is not what was trained: {name} differs")
        seen.add(wanted.data_ptr())
    missing = [name for name, tensor in trained.items() if tensor.data_ptr() not in seen]  # tied weights are one
    if missing:
        raise RuntimeError(f"{folder}: reloaded, {len(missing)} tensors are missing, the first is {missing[0]}")
