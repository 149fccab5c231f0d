"""trl's SFTTrainer made fast where only short completions carry loss: logits at those positions, nothing per step beside.

It does not choose settings or data (`leastwise.training.training` does) and neither shuffles nor packs: rows come in training order.
Imports torch and trl when loaded: import it inside the function that trains.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback
from trl.trainer.sft_trainer import SFTTrainer

from leastwise.models.causal_model import greedy_batch
from leastwise.training.dev_metric import DevMetric

IGNORED = -100  # the label that carries no loss


class CompletionCollator:
    """Pads token lists on the left, so that completions end together and share their few positions."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
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


class CompletionTrainer(SFTTrainer):
    """SFTTrainer without its full-length logits, entropy, accuracy and model card.

    trl 1.16 runs the prompt's positions through the head's bookkeeping and measures entropy and accuracy each step.
    """

    dev_metric: DevMetric | None = None
    teacher: torch.nn.Module | None = None
    teacher_share = 0.0
    temperature = 1.0

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy over the labelled tokens, a mean over `num_items_in_batch` of them where accumulation gives it."""
        labels = inputs["labels"]
        labelled = (labels != IGNORED).any(dim=0)
        labelled[0] = False  # nothing comes before the first token
        positions = labelled.nonzero().flatten()
        # An index, not a slice: a slice stays a view, for which torch 2.13 expands lm_head's weight to every row.
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=positions - 1,
            use_cache=False,
        )
        wanted = labels[:, positions]
        kept = wanted != IGNORED
        logits = outputs.logits[kept].float()
        total = torch.nn.functional.cross_entropy(logits, wanted[kept], reduction="sum")
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
        """KL divergence of the student's from the teacher's probabilities, nats summed over tokens, times the temperature squared.

        The square keeps its gradients of one size at every temperature (Hinton, Vinyals and Dean 2015, section 2).
        """
        with warnings.catch_warnings(
            category=UserWarning, action="ignore"
        ):  # trl calls it experimental; the lock pins it
            from trl.experimental.gkd.gkd_trainer import GKDTrainer

        assert self.teacher is not None
        with torch.no_grad():
            told = self.teacher(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                logits_to_keep=positions - 1,
                use_cache=False,
            ).logits[kept]
        forward_kl = GKDTrainer.generalized_jsd_loss(
            logits, told.float(), beta=0, temperature=self.temperature, reduction="sum"
        )
        return self.temperature**2 * forward_kl

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The loss on dev rows and, where there is one, the task's metric; `eval_score` breaks its ties by the loss.

        Added here and not in `evaluate`, which tells its callbacks (early stopping) before it returns.
        """
        output = super().evaluation_loop(*args, **kwargs)
        if self.dev_metric is not None:
            measured = self.dev_metric.of(self._answers(self.dev_metric.prompts, self.dev_metric.max_new_tokens))
            loss = output.metrics["eval_loss"]
            output.metrics.update(eval_metric=measured, eval_score=measured - 1e-6 * min(loss, 1e3))
        return output

    def _answers(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy answers of the model as it stands; every process computes all of them, so that all choose the same."""
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

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super(SFTTrainer, self)._save_checkpoint(model, trial)  # without trl's model card


class Saver(TrainerCallback):
    """Saves every `steps` steps, what a killed training goes on from, and sees that the last step is measured on dev."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps == 0:
            control.should_save = True
        if state.global_step == state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True


class StepReporter(TrainerCallback):
    """Tells `report(step, steps, loss)` after every logged step."""

    def __init__(self, report: Callable[[int, int, float], None]) -> None:
        self.report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.report(state.global_step, state.max_steps, float(logs["loss"]))
