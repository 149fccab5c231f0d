"""The loss of the trainer, against plain formulas on unpadded rows."""

import dataclasses

import pytest
import torch


def test_loss_is_the_cross_entropy_of_completion_tokens_only(tiny):
    """Against the plain formula on unpadded rows, one at a time."""
    from transformers import AutoModelForCausalLM

    from leastwise.training.completion_trainer import CompletionCollator, CompletionTrainer

    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    batch = [
        {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, -100, 8, 9]},
        {"input_ids": [11, 12, 13], "labels": [-100, -100, 13]},
    ]
    trainer = object.__new__(CompletionTrainer)
    trainer.args = dataclasses.make_dataclass("Arguments", ["average_tokens_across_devices"])(False)
    with torch.no_grad():
        got = float(trainer.compute_loss(model, CompletionCollator(2)(batch)))
        losses = []
        for row in batch:
            logp = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
            losses += [-logp[i - 1, t].item() for i, t in enumerate(row["labels"]) if t != -100]
    assert got == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_a_teachers_probabilities_are_learned_by_the_share_that_is_set(tiny):
    """Against the plain formula: cross-entropy and KL divergence at temperature, of the completion's tokens alone."""
    from transformers import AutoModelForCausalLM

    from leastwise.training.completion_trainer import CompletionCollator, CompletionTrainer

    student = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).train()
    torch.manual_seed(1)
    teacher = AutoModelForCausalLM.from_config(student.config).float().eval()
    batch = [
        {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, -100, 8, 9]},
        {"input_ids": [11, 12, 13], "labels": [-100, -100, 13]},
    ]
    trainer = object.__new__(CompletionTrainer)
    trainer.args = dataclasses.make_dataclass("Arguments", ["average_tokens_across_devices"])(False)
    trainer.teacher, trainer.teacher_share, trainer.temperature = teacher, 0.3, 2.0
    with torch.no_grad():
        got = float(trainer.compute_loss(student, CompletionCollator(2)(batch)))
        losses = []
        for row in batch:
            mine, theirs = (model(torch.tensor([row["input_ids"]])).logits[0] for model in (student, teacher))
            for i, t in enumerate(row["labels"]):
                if t == -100:
                    continue
                p, q = ((x[i - 1] / 2.0).log_softmax(-1) for x in (theirs, mine))
                losses.append(0.7 * -mine[i - 1].log_softmax(-1)[t] + 0.3 * 2.0**2 * (p.exp() * (p - q)).sum())
        assert got == pytest.approx(float(sum(losses)) / 3, rel=1e-4)
        student.eval()
        plain = float(trainer.compute_loss(student, CompletionCollator(2)(batch)))
    assert plain != pytest.approx(got, rel=1e-2), "dev is measured without the teacher"
