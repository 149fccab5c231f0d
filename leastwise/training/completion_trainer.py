"""trl's SFTTrainer made fast where only short completions carry loss: logits at those positions, little else a step.

It does not choose settings or data (`leastwise.training.training` does) and neither shuffles nor packs: rows come in
training order. Imports torch and trl when loaded: import it inside the function that trains.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils.generic import ModelOutput

from leastwise.models.causal_model import IGNORED, greedy_batch
from leastwise.models.machine import device_here, native_dtype
from leastwise.training.causal.computing import Computing
from leastwise.training.request import DevMetric
from leastwise.training.settings import TrainingSettings
from leastwise.training.training_rows import TokenRow

HAS_TRL = find_spec("trl") is not None
if HAS_TRL:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer
else:  # a bare machine: what is used of trl's trainer beyond transformers' own is its place in the field
    from transformers import Trainer as SFTTrainer  # type: ignore[assignment]  # stands in for the class above
    from transformers import TrainingArguments as SFTConfig  # type: ignore[assignment]  # likewise

# Version 2 shards each parameter by itself, so that frozen bf16 and trained fp32 ones may lie in one block.
_FSDP = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "FULL_STATE_DICT",
    "reshard_after_forward": True,
    "cpu_ram_efficient_loading": True,  # a GPU is sent its shards from the first process, never the whole
}


class CompletionCollator:
    """Pads token lists on the left, so that completions end together and share their few positions."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels`, each (rows, longest row)."""
        longest = max(len(row["input_ids"]) for row in rows)
        padding = {"input_ids": self.pad_token_id, "labels": IGNORED}
        batch = {
            name: torch.tensor([[value] * (longest - len(row[name])) + list(row[name]) for row in rows])
            for name, value in padding.items()
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(longest) >= longest - lengths[:, None]).long()
        return batch


class PackedCollator:
    """Lays rows one after the other, without padding: for attention that keeps rows apart by their positions."""

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
        """`input_ids`, `position_ids` (from 0 in each row) and `labels`, each (1, tokens of all rows)."""
        flat = {
            "input_ids": [token for row in rows for token in row["input_ids"]],
            "position_ids": [at for row in rows for at in range(len(row["input_ids"]))],
            "labels": [label for row in rows for label in (IGNORED, *row["labels"][1:])],  # nothing comes before it
        }
        return {name: torch.tensor([values]) for name, values in flat.items()}


def _read(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What of a batch the model reads."""
    return {name: inputs[name] for name in ("input_ids", "attention_mask", "position_ids") if name in inputs}


class CompletionTrainer(SFTTrainer):
    """SFTTrainer without its full-length logits, entropy, accuracy and model card.

    trl 1.16 runs the prompt's positions through the head's bookkeeping and measures entropy and accuracy each step.
    """

    dev_metric: DevMetric | None = None
    teacher: torch.nn.Module | None = None
    teacher_share = 0.0
    temperature = 1.0
    bring_best: Callable[[str], None] | None = None  # a checkpoint by its name, from where all machines reach it

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """Cross-entropy over the labelled tokens, over `num_items_in_batch` of them where accumulation counts."""
        labels = inputs["labels"]
        labelled = (labels != IGNORED).any(dim=0)
        labelled[0] = False  # nothing comes before the first token
        positions = labelled.nonzero().flatten()
        # An index, not a slice: a slice stays a view, for which torch 2.13 expands lm_head's weight to every row.
        outputs = model(**_read(inputs), logits_to_keep=positions - 1, use_cache=False)
        targets = labels[:, positions]
        kept = targets != IGNORED
        logits = outputs.logits[kept].float()
        total = torch.nn.functional.cross_entropy(logits, targets[kept], reduction="sum")
        if self.teacher is not None and model.training:
            total = (1 - self.teacher_share) * total + self.teacher_share * self._divergence(
                logits, inputs, positions, kept
            )
        count = kept.sum() if num_items_in_batch is None else num_items_in_batch
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            total = total * self.accelerator.num_processes  # DDP averages gradients, the count is over all ranks
        loss = total / count
        return (loss, outputs) if return_outputs else loss

    def _divergence(
        self, logits: torch.Tensor, inputs: dict[str, torch.Tensor], positions: torch.Tensor, kept: torch.Tensor
    ) -> torch.Tensor:
        """KL divergence of the student's from the teacher's probabilities, summed nats times the temperature squared.

        The square keeps its gradients of one size at every temperature (Hinton, Vinyals and Dean 2015, section 2).
        """
        # trl calls it experimental; the lock pins it
        with warnings.catch_warnings(category=UserWarning, action="ignore"):
            from trl.experimental.gkd.gkd_trainer import GKDTrainer

        assert self.teacher is not None
        with torch.no_grad():
            taught = self.teacher(**_read(inputs), logits_to_keep=positions - 1, use_cache=False).logits[kept]
        forward_kl: torch.Tensor = GKDTrainer.generalized_jsd_loss(
            logits, taught.float(), beta=0, temperature=self.temperature, reduction="sum"
        )
        return self.temperature**2 * forward_kl

    def evaluation_loop(
        self,
        dataloader: DataLoader[TokenRow],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The loss on dev rows and, where there is one, the task's metric; `eval_score` breaks its ties by the loss.

        Added here and not in `evaluate`, which tells its callbacks (early stopping) before it returns.
        """
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        if self.dev_metric is not None:
            assert output.metrics is not None
            own = self.dev_metric.of(self._answers(self.dev_metric.prompts, self.dev_metric.max_new_tokens))
            measured = broadcast_object_list([own])[0]  # machines may round otherwise, and must choose the same
            loss = output.metrics["eval_loss"]
            output.metrics.update(eval_metric=measured, eval_score=measured - 1e-6 * min(loss, 1e3))
        return output

    def _answers(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy answers of the model as it stands; every process computes all of them, so that all choose the same."""
        assert isinstance(self.processing_class, PreTrainedTokenizerBase)
        model, size = self.accelerator.unwrap_model(self.model), self.args.per_device_eval_batch_size
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers: dict[int, str] = {}
        was_training = model.training
        model.eval()
        for start in range(0, len(by_length), size):
            batch = by_length[start : start + size]
            with self.accelerator.autocast():
                texts = greedy_batch(model, self.processing_class, [prompts[i] for i in batch], max_new_tokens)
            answers.update(zip(batch, texts, strict=True))
        model.train(was_training)
        return [answers[i] for i in range(len(prompts))]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        # also on a machine that does not save it: what is best is looked for by its folder
        Path(str(self.args.output_dir), f"checkpoint-{self.state.global_step}").mkdir(parents=True, exist_ok=True)
        Trainer._save_checkpoint(self, model, trial)  # without trl's model card

    def _load_best_model(self) -> None:
        """Loads the best checkpoint; on a machine that did not save it, once it is brought there."""
        if self.bring_best is not None and self.accelerator.num_processes > 1:
            self.accelerator.wait_for_everyone()  # the first process has put it there
            if self.accelerator.is_local_main_process:
                self.bring_best(Path(self.state.best_model_checkpoint or "").name)
            self.accelerator.wait_for_everyone()
        super()._load_best_model()

    def known_to_all(self, known: set[int]) -> set[int]:
        """What every process knows; each gives its own."""
        return set.intersection(*map(set, gather_object([sorted(known)])))


class Saver(TrainerCallback):
    """Saves every `steps` steps what a killed training goes on from, and sees that the last step is measured on dev."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Asks the trainer to save, and at the last step to measure."""
        if state.global_step % self.steps == 0:
            control.should_save = True
        if state.global_step == state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True


class StepReporter(TrainerCallback):
    """Tells `report(step, steps, loss)` after every logged step."""

    def __init__(self, report: Callable[[int, int, float], None]) -> None:
        self.report = report

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Reports what was logged, if it is a loss."""
        if logs and "loss" in logs:
            self.report(state.global_step, state.max_steps, float(logs["loss"]))


def rows_as_dataset(rows: list[TokenRow]) -> Any:
    """Rows as trl wants them; as they are where it is not there."""
    if not HAS_TRL:
        return rows
    from datasets import Dataset

    return Dataset.from_list(rows)


def processes_together() -> int:
    """How many take part in this training; the first to ask makes them meet."""
    return int(PartialState(cpu=device_here().type == "cpu").num_processes)


def trainer_arguments(
    settings: TrainingSettings, computing: Computing, steps: int, folder: Path, watched: bool, by_metric: bool
) -> SFTConfig:
    """Arguments for `steps` optimizer steps; `watched` rows of dev choose the checkpoint, `by_metric` or by loss."""
    processes, each, shards = processes_together(), computing.at_once, computing.shards
    # rows over max_tokens were refused, none is cut
    only_trls: dict[str, Any] = (
        {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}} if HAS_TRL else {}
    )
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
        optim=computing.optimizer,
        bf16=native_dtype() is torch.bfloat16,
        use_cpu=device_here().type == "cpu",
        gradient_checkpointing=computing.gradient_checkpointing and not shards,
        ddp_find_unused_parameters=False,
        fsdp=shards,  # type: ignore[arg-type]  # a bool is what transformers documents; text is its old way
        fsdp_config={**_FSDP, "activation_checkpointing": computing.gradient_checkpointing} if shards else None,
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
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        **only_trls,
    )
