"""What the trainer is told: transformers' arguments, from our settings.

It chooses nothing a person should choose: that is in `leastwise.training.training.TrainingSettings`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leastwise.errors import BadInput
from leastwise.models.weights import native_dtype

if TYPE_CHECKING:
    from leastwise.training.settings import TrainingSettings


# Version 2 shards each parameter by itself, so that frozen bf16 and trained fp32 ones may lie in one block.
_FSDP = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "FULL_STATE_DICT",
    "reshard_after_forward": True,
}


def at_once(batch_size: int, processes: int, most: int) -> int:
    """Examples one process computes at once: the largest equal part of its share of a step that is at most `most`."""
    if batch_size % processes:
        raise BadInput(
            f"training.batch_size: {batch_size} examples a step cannot be shared by {processes} processes; make it a multiple"
        )
    share = batch_size // processes
    return next(part for part in range(min(share, most), 0, -1) if share % part == 0)


def trainer_arguments(settings: TrainingSettings, steps: int, folder: Path, watched: bool, by_metric: bool) -> Any:
    """Arguments for `steps` optimizer steps; `watched` rows of dev choose the checkpoint, `by_metric` or by their loss."""
    import torch
    from accelerate import PartialState
    from trl.trainer.sft_config import SFTConfig

    processes = PartialState(cpu=not torch.cuda.is_available()).num_processes
    shards = settings.launch.shard
    if shards is None:
        shards = processes > 1 and torch.cuda.is_available()
    each = at_once(settings.batch_size, processes, settings.examples_at_once)
    every = max(1, math.ceil((settings.eval_every_share if watched else settings.save_every_share) * steps))
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=each,
        gradient_accumulation_steps=settings.batch_size // processes // each,
        per_device_eval_batch_size=settings.batch_size,
        num_train_epochs=1,  # `training_order` has laid out every epoch
        train_sampling_strategy="sequential",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(settings.warmup_share * steps),
        weight_decay=0.0,
        optim="adamw_torch",
        max_length=None,  # rows over max_tokens were refused, none is cut
        bf16=native_dtype() is torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=settings.gradient_checkpointing and not shards,
        ddp_find_unused_parameters=False,
        fsdp=shards,
        fsdp_config={**_FSDP, "activation_checkpointing": settings.gradient_checkpointing} if shards else None,
        prediction_loss_only=True,
        eval_strategy="steps" if watched else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,  # the best checkpoint must be one that was measured; `Saver` adds those to resume from
        save_total_limit=1,  # and the best one beside it
        load_best_model_at_end=watched,
        metric_for_best_model=("eval_score" if by_metric else "eval_loss") if watched else None,
        greater_is_better=by_metric if watched else None,
        logging_steps=max(1, steps // 20),
        seed=settings.seed,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )
