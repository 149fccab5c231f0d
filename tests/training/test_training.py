"""Training through trl on a two-block Llama with the real tokenizer: its order, its resumption, its proof."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from leastwise.errors import BadInput
from leastwise.models.causal_model import Generator, loaded, merge, tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.training.causal.proof import prove
from leastwise.training.request import DevMetric, TrainingReport
from leastwise.training.settings import TrainingSettings
from leastwise.training.training import fine_tune
from leastwise.training.training_rows import Row
from leastwise.use_case.task import Classification

LABELS = ("discovery", "impact", "exfiltration")
SETTINGS = TrainingSettings(
    batch_size=4, epochs=10, max_examples=240, learning_rate=1e-2, upper_blocks_share=1.0, threads=1, rank=32, alpha=64
)


@pytest.fixture(scope="session")
def rows(tiny):
    texts = [(f"{word} number {n}", label) for n in range(8) for word, label in zip("abc", LABELS, strict=True)]
    return [Row(format_chat(tiny, [{"role": "user", "content": text}]), label) for text, label in texts]


@pytest.fixture(scope="session")
def trained(tiny, rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "adapter"
    seen = []
    return out, fine_tune(tiny, rows, rows[:6], SETTINGS, out, seen.append), seen


def test_training_lowers_the_loss_and_reports_its_way(trained):
    out, report, seen = trained
    assert report.train_losses[-1] < report.train_losses[0] / 2
    assert report.dev_losses[-1] < report.dev_losses[0]
    assert (report.steps, report.examples, report.resumed_from_step) == (60, 240, 0)
    assert 0 < report.trainable_share < 0.1
    assert seen[-1].step == seen[-1].steps == 60
    assert TrainingReport.model_validate_json((out / "training.json").read_text()) == report


def test_the_checkpoint_that_does_best_on_dev_is_kept_and_training_stops_when_it_gets_no_better(tiny, rows, tmp_path):
    """Dev asks for what the first few examples teach and the rest unteach."""
    taught = [row for row in rows if row.completion == "discovery"]
    untaught = [Row(row.prompt, "impact") for row in taught]
    metric = DevMetric(
        task=Classification(instruction="?", labels=LABELS),
        prompts=tuple(row.prompt for row in taught),
        expected=("discovery",) * len(taught),
        max_new_tokens=8,
    )
    wanted = SETTINGS.model_copy(
        update={
            "epochs": 1,
            "max_examples": 400,
            "eval_every_share": 0.1,
            "early_stop_patience": 3,
            "batch_size": 8,
            "learning_rate": 3e-3,
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leastwise.training.training.training_order", lambda encoded, _: list(range(len(encoded))))
        report = fine_tune(tiny, taught * 15 + untaught * 35, taught, wanted, tmp_path / "out", None, metric)
    assert max(report.dev_metrics) == 1.0 > report.dev_metrics[-1], report.dev_metrics
    at_best = [
        (loss, 5 * at)
        for at, (score, loss) in enumerate(zip(report.dev_metrics, report.dev_losses, strict=True), 1)
        if score == 1.0
    ]
    assert report.best_step == min(at_best)[1] < report.steps < 50, "stopped early, and an earlier step is kept"
    answers = Generator(tiny, tmp_path / "out", threads=1).answer(list(metric.prompts), 8)
    assert metric.of(answers) >= 0.9


def test_what_is_kept_is_safetensors_and_json_and_nothing_lies_beside(trained):
    out, _, _ = trained
    assert {p.suffix for p in out.rglob("*") if p.is_file()} <= {".json", ".safetensors", ".md"}
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_a_finished_training_is_not_repeated_and_another_is_refused(tiny, rows, trained):
    out, report, _ = trained
    before = (out / "adapter_model.safetensors").stat().st_mtime_ns
    assert fine_tune(tiny, rows, rows[:6], SETTINGS.model_copy(update={"threads": 2}), out) == report
    assert (out / "adapter_model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(BadInput, match="another training"):
        fine_tune(tiny, rows[:-1], rows[:6], SETTINGS, out)


def test_a_reloaded_adapter_gives_the_trained_logits_and_a_damaged_one_is_caught(tiny, trained, tmp_path):
    import shutil

    out, report, _ = trained
    model = loaded(tiny, out)
    assert report.reload_difference == prove(model, out).reload_difference == 0.0
    damaged = tmp_path / "damaged"
    shutil.copytree(out, damaged)
    weights = load_file(damaged / "adapter_model.safetensors")
    name = next(n for n in weights if "lora_B" in n)
    save_file(weights | {name: torch.ones_like(weights[name])}, damaged / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match="not what was trained"):
        prove(model, damaged)


@pytest.fixture(scope="module")
def killed(tiny, rows, tmp_path_factory):
    """A training that was killed after step 30, in a folder of its own; and where it put its checkpoints too."""
    home, shared = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("shared")
    settings = SETTINGS.model_copy(update={"checkpoints": shared.as_uri()})
    script = home / "train.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\n"
        "from leastwise.training.training import *\nfrom leastwise.training.training_rows import Row\n"
        f"rows = [Row(*pair) for pair in {[(r.prompt, r.completion) for r in rows]!r}]\n"
        f"settings = TrainingSettings.model_validate_json({settings.model_dump_json()!r})\n"
        f"slow = lambda p: p.step >= 32 and time.sleep(60)\n"
        f"fine_tune(Path({str(tiny)!r}), rows, rows[:6], settings, Path({str(home / 'adapter')!r}), slow)\n"
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": str(root)}, cwd=root)
    deadline = time.monotonic() + 90
    while not list(shared.glob("*/checkpoint-30.json")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return home, settings, shared


def test_a_killed_training_goes_on_where_it_was_and_ends_with_the_same_weights(tiny, rows, trained, killed):
    out, report, _ = trained
    again = killed[0] / "adapter"
    assert not again.exists()
    resumed = fine_tune(tiny, rows, rows[:6], SETTINGS, again)
    assert resumed.resumed_from_step == 30 and resumed.key == report.key
    whole, gone_on = (load_file(folder / "adapter_model.safetensors") for folder in (out, again))
    assert all(torch.equal(whole[name], gone_on[name]) for name in whole)


def test_a_training_killed_on_one_machine_goes_on_on_another_and_ends_with_the_same_weights(
    tiny, rows, trained, killed, tmp_path
):
    """The two share a folder of checkpoints and nothing else; the best one so far is found where it now lies."""
    out, report, _ = trained
    _, settings, shared = killed
    assert list(shared.rglob("checkpoint-30/optimizer.pt"))
    resumed = fine_tune(tiny, rows, rows[:6], settings, tmp_path / "elsewhere")
    assert resumed.resumed_from_step == 30 and resumed.key == report.key and resumed.best_step == report.best_step
    whole, gone_on = (load_file(folder / "adapter_model.safetensors") for folder in (out, tmp_path / "elsewhere"))
    assert all(torch.equal(whole[name], gone_on[name]) for name in whole)
    assert not list(shared.iterdir()), "what is done is removed"


def test_answers_keep_the_order_of_their_prompts_and_learnt_labels_come_back(tiny, rows, trained):
    out, _, _ = trained
    generator = Generator(tiny, out, threads=1)
    asked = [rows[i] for i in (5, 0, 23, 7, 0)]
    got = generator.answer([row.prompt for row in asked], 8, batch_size=2)
    assert all(text.startswith(row.completion[:3]) for text, row in zip(got, asked, strict=True))
    assert generator.answer([], 8) == []


def test_a_merged_model_answers_as_base_and_adapter_do(tiny, rows, trained, tmp_path):
    out, _, _ = trained
    merged = merge(tiny, out, tmp_path / "merged")
    prompts = [row.prompt for row in rows[:3]]
    assert Generator(merged, threads=1).answer(prompts, 8) == Generator(tiny, out, threads=1).answer(prompts, 8)


def test_only_the_upper_share_of_blocks_is_trained(tiny, rows, tmp_path):
    half = SETTINGS.model_copy(update={"upper_blocks_share": 0.5, "max_examples": 8})
    fine_tune(tiny, rows, [], half, tmp_path / "lora")
    assert all(".layers.1." in name for name in load_file(tmp_path / "lora" / "adapter_model.safetensors"))
    full = half.model_copy(update={"method": "full", "learning_rate": 1e-3})
    assert fine_tune(tiny, rows, [], full, tmp_path / "full").reload_difference == 0.0
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny, tmp_path / "full"))
    changed = {name.split(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"1"}


@pytest.mark.parametrize(
    ("bad", "says"),
    [([], "no training rows"), ([Row("a", "")], "row 0"), ([Row("a", "b"), Row("a " * 600, "b")], "row 1.*max_tokens")],
)
def test_unusable_rows_are_refused_by_number_before_any_training(tiny, tmp_path, bad, says):
    with pytest.raises(BadInput, match=says):
        fine_tune(tiny, bad, [], SETTINGS, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.soak
def test_who_learns_from_probabilities_believes_the_teacher_and_not_the_answers(tiny, rows, trained, tmp_path):
    """Every answer says impact; the teacher knows better. How often is the first token the teacher's likeliest?"""
    teacher = merge(tiny, trained[0], tmp_path / "teacher")
    tokenizer = tokenizer_of(str(tiny))
    misled = [Row(row.prompt, "impact") for row in rows]

    def first_tokens(model) -> list[int]:
        ids = [tokenizer(row.prompt, add_special_tokens=False, return_tensors="pt").input_ids for row in rows]
        with torch.no_grad():
            return [int(model(row).logits[0, -1].argmax()) for row in ids]

    told = first_tokens(loaded(teacher))
    assert len(set(told)) == 3

    def agreeing(share: float) -> float:
        out = tmp_path / f"student-{share}"
        fine_tune(tiny, misled, [], SETTINGS.model_copy(update={"teacher_share": share}), out, None, None, teacher)
        return sum(map(int.__eq__, first_tokens(loaded(tiny, out)), told)) / len(told)

    assert agreeing(1.0) > 0.8
    assert agreeing(0.0) < 0.5


def test_a_teacher_with_other_tokens_is_refused(tiny, rows, tmp_path):
    import shutil

    from transformers import AutoTokenizer

    other = shutil.copytree(tiny, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(other)
    with pytest.raises(BadInput, match="teacher_share"):
        fine_tune(tiny, rows, [], SETTINGS, tmp_path / "out", None, None, other)
