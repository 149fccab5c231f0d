"""What training comes to on the GPU that is here: LoRA and QLoRA on a random-weight 8B, killed, resumed; students.

`python benchmarks/gpu_check.py` (at most 8 minutes on one GPU; on a CPU a minute, at a tiny size). It needs torch,
transformers, peft and accelerate, with what pip installs beside them (pydantic too); for three parts more, which else
say what is missing: bitsandbytes (qlora), scipy (encoder_student), sentence-transformers (embeddings); of the project
its files alone: no Prefect, no MLflow, no network. Each part is guarded: one that fails is told, the others run; and
each has minutes of its own, so that a slow one ends alone (what one leaves the later may use). The last line is one
line of JSON, whatever happens, with the goals beside the figures.

The model's weights are drawn, so nothing is learned worth having: the figures are speed, memory and exactness. MFU
counts, of a token that LoRA trains, 2 operations a block weight forward and 2 back (a frozen weight has no gradient),
with attention 3 * 2 * tokens * width a block, and of a token with loss 6 a weight of the head (Chowdhery et al. 2022,
appendix B, with frozen weights); against the matrix products measured on this card in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PYTHONWARNINGS", "ignore")

GOALS = {  # figure: (wanted, at least or at most)
    "lora.mfu": (0.40, "at least"),
    "lora.peak_gb": (40.0, "at most"),
    "qlora.peak_gb": (24.0, "at most"),
    "lora.reload_difference": (0.0, "at most"),
    "qlora.reload_difference": (0.0, "at most"),
}
NEEDED = ("torch", "transformers", "peft", "accelerate", "pydantic")
SHARES = {  # of the minutes, in seconds of eight
    "card": 15.0,
    "base": 45.0,
    "lora": 135.0,
    "qlora": 90.0,
    "encoder_student": 30.0,
    "embeddings": 20.0,
    "plain_peft": 60.0,
    "causal_student": 40.0,
    "merge": 45.0,
}
PARTS = tuple(SHARES)
LEAST_S = 10.0  # with less no part is begun
WARM_STEPS = 3  # not counted: the first steps set up kernels and memory


@dataclass(frozen=True)
class Size:
    """A Llama's shape and how it is trained."""

    hidden: int
    feed_forward: int
    blocks: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tokens: int
    labelled: int
    batch: int
    at_once: int
    steps: int
    texts: int
    student_blocks: int

    @property
    def block_weights(self) -> float:
        key_value = self.hidden // self.heads * self.key_value_heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * key_value
        return float(self.blocks * (attention + 3 * self.hidden * self.feed_forward))

    @property
    def operations_a_token(self) -> float:
        """Of one that LoRA trains, the head's share included; see the module."""
        attention = 3 * 2 * self.tokens * self.hidden * self.blocks / 2  # causal: half of the pairs
        head = 6 * self.hidden * self.vocabulary * self.labelled / self.tokens
        return 4 * self.block_weights + attention + head


SIZES = {
    "8b": Size(4096, 14336, 32, 32, 8, 128_256, 1024, 128, 8, 2, 30, 20_000, 2),
    "tiny": Size(64, 128, 2, 4, 2, 512, 48, 8, 4, 2, 10, 60, 1),
}


def device_of() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def peak_gb() -> float | None:
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if torch.cuda.is_available() else None


def settled() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rows_of(size: Size, count: int, seed: int) -> list[dict[str, list[int]]]:
    rng = random.Random(seed)
    rows = [[rng.randrange(4, size.vocabulary) for _ in range(size.tokens)] for _ in range(count)]
    prompt = size.tokens - size.labelled
    return [{"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]} for ids in rows]


def save_tokenizer(folder: Path, words: list[str], marks: dict[str, str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate([*marks.values(), *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=marks["unk"]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {f"{name}_token": mark for name, mark in marks.items()}
    PreTrainedTokenizerFast(tokenizer_object=made, **named).save_pretrained(folder)


# --- parts: each gets the size and the folder, and gives its figures -----------------------------------------------


def card(size: Size, folder: Path) -> dict[str, Any]:
    """The card, and the rate of its matrix products in bf16."""
    import torch

    device, side = device_of(), 8192 if size.hidden > 1000 else 256
    pair = [torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2)]
    rates = []
    for _ in range(5):
        settled()
        started = time.perf_counter()
        for _ in range(10):
            torch.matmul(*pair)
        settled()
        rates.append(10 * 2 * side**3 / (time.perf_counter() - started))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    return {"name": name, "matrix_tflops": round(max(rates) / 1e12, 3), **versions}


def base(size: Size, folder: Path) -> dict[str, Any]:
    """The model, drawn on the device and written as a directory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.blocks,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        max_position_embeddings=8192,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="bfloat16",
    )
    started = time.perf_counter()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device_of():
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    weights = sum(p.numel() for p in model.parameters())
    model.save_pretrained(folder / "base", max_shard_size="4GB")
    save_tokenizer(folder / "base", ["word"], {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>"})
    return {"weights": weights, "seconds": round(time.perf_counter() - started, 1)}


def trained(size: Size, folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    """A training by the project's own code, with the rate of its steps after the first."""
    from leastwise.training.request import TrainingRequest
    from leastwise.training.settings import TrainingSettings
    from leastwise.training.training import run

    chosen = TrainingSettings(
        batch_size=size.batch,
        max_examples=size.batch * size.steps,
        examples_at_once=size.at_once,
        max_tokens=max(64, size.tokens),
        upper_blocks_share=1.0,
        save_every_share=0.5,
        learning_rate=1e-4,
        **settings,
    )
    rows = rows_of(size, size.batch * size.steps, seed=1)
    base_dir = folder / ("student" if name == "causal_student" else "base")
    request = TrainingRequest(base=base_dir, encoded=rows, watched=[], settings=chosen)
    told: list[tuple[int, float]] = []

    def tell(progress: Any) -> None:
        settled()
        told.append((progress.step, time.perf_counter()))

    report = run(request, folder / name, tell)
    counted = [each for each in told if each[0] >= told[0][0] + WARM_STEPS] or told
    steps, seconds = counted[-1][0] - counted[0][0], counted[-1][1] - counted[0][1]
    rate = steps * size.batch * size.tokens / seconds if seconds > 0 else 0.0
    return {
        "tokens_per_s": round(rate, 1),
        "peak_gb": peak_gb(),
        "reload_difference": report.reload_difference,
        "resumed_from_step": report.resumed_from_step,
        "steps": report.steps,
        "trainable_share": report.trainable_share,
        "losses": [report.train_losses[0], report.train_losses[-1]],
    }


def lora(size: Size, folder: Path) -> dict[str, Any]:
    """LoRA, killed with SIGKILL once it has saved, and gone on with here."""
    killed = killed_once_saved(size, folder)
    return {**trained(size, folder, "lora"), "killed": killed}


def killed_once_saved(size: Size, folder: Path) -> bool:
    with (folder / "killed.log").open("w") as written:
        child = subprocess.Popen(
            [sys.executable, __file__, "--child", "lora_until_killed", "--folder", str(folder), *arguments_of(size)],
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            while child.poll() is None and not list(folder.glob("lora.*.unfinished/checkpoint-*/trainer_state.json")):
                time.sleep(0.05)
            was_running = child.poll() is None
        finally:
            child.kill()
            child.wait()
    return was_running


def lora_until_killed(size: Size, folder: Path) -> dict[str, Any]:
    """What is killed."""
    return trained(size, folder, "lora")


def qlora(size: Size, folder: Path) -> dict[str, Any]:
    """An adapter on 4 bits."""
    return trained(size, folder, "qlora", quantize="nf4")


def plain_peft(size: Size, folder: Path) -> dict[str, Any]:
    """The same model, rows and steps with peft alone: its own layers, logits of every token."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    device, steps = device_of(), max(WARM_STEPS + 2, size.steps // 3)
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16).to(device)
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-4)
    rows, started = rows_of(size, size.batch * steps, seed=1), 0.0
    for step in range(steps):
        if step == WARM_STEPS:
            settled()
            started = time.perf_counter()
        for at in range(0, size.batch, size.at_once):
            part = rows[step * size.batch + at :][: size.at_once]
            ids, labels = (torch.tensor([row[name] for row in part], device=device) for name in ("input_ids", "labels"))
            with torch.autocast(device.type, torch.bfloat16):
                loss = adapted(input_ids=ids, labels=labels).loss
            (loss * len(part) / size.batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    settled()
    rate = (steps - WARM_STEPS) * size.batch * size.tokens / (time.perf_counter() - started)
    return {"tokens_per_s": round(rate, 1), "peak_gb": peak_gb()}


def encoder_dir(folder: Path) -> Path:
    """An encoder of MiniLM's shape, drawn."""
    import torch
    from transformers import BertConfig, BertModel

    made = folder / "encoder"
    if not made.exists():
        words = [f"w{at}" for at in range(3000)]
        torch.manual_seed(0)
        sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
        BertModel(BertConfig(vocab_size=3100, **sizes)).save_pretrained(made)
        save_tokenizer(made, words, {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"})
    return made


def texts_of(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(3000)}" for _ in range(rng.randrange(8, 60))) for _ in range(count)]


def encoder_student(size: Size, folder: Path) -> dict[str, Any]:
    """An encoder student on labels that say nothing."""
    import numpy as np

    from leastwise.training.distillation import StudentSettings, train_student

    texts, labels = texts_of(size.texts // 4, 2), ["a", "b", "c"]
    drawn = [labels[at % 3] for at in range(len(texts))]
    targets = np.eye(3, dtype=np.float32)[[at % 3 for at in range(len(texts))]]
    settings, dev = StudentSettings(epochs=1), (texts[:30], drawn[:30])
    report = train_student(encoder_dir(folder), texts, targets, labels, dev, settings, folder / "encoder-student")
    rate = report.rows * settings.epochs / report.train_seconds
    return {"texts_per_s": round(rate, 1), "steps": report.steps, "peak_gb": peak_gb()}


def embeddings(size: Size, folder: Path) -> dict[str, Any]:
    """Texts embedded a second, each a few dozen tokens."""
    from leastwise.models.encoder import embed

    encoder, texts = encoder_dir(folder), texts_of(size.texts, 3)
    embed(texts[: len(texts) // 10], encoder)
    settled()
    started = time.perf_counter()
    embed(texts, encoder)
    return {"texts_per_s": round(len(texts) / (time.perf_counter() - started), 1), "peak_gb": peak_gb()}


def causal_student(size: Size, folder: Path) -> dict[str, Any]:
    """The base cut to its first blocks, which are trained in full."""
    from leastwise.training.causal_student import cut

    cut(folder / "base", size.student_blocks, folder / "student")
    return trained(size, folder, "causal_student", method="full")


def merge(size: Size, folder: Path) -> dict[str, Any]:
    """The adapter merged into its base, written, and beside it: the largest difference of a logit."""
    import torch

    from leastwise.models.causal_model import loaded, merge

    started = time.perf_counter()
    merged = merge(folder / "base", folder / "lora", folder / "merged")
    seconds = time.perf_counter() - started
    ids, logits = torch.tensor([rows_of(size, 1, 5)[0]["input_ids"]]), []
    for where in ((folder / "base", folder / "lora"), (merged, None)):
        model = loaded(*where)
        with torch.inference_mode():
            logits.append(model(input_ids=ids.to(model.device), logits_to_keep=8).logits.float().cpu())
        del model
    apart = float((logits[0] - logits[1]).abs().max())
    return {"seconds": round(seconds, 1), "logits_apart": apart, "peak_gb": peak_gb()}


# --- running them ----------------------------------------------------------------------------------------------------


def guarded(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The part's figures with its seconds; of one that fails the error, and where."""
    started = time.perf_counter()
    try:
        return {**part(), "wall_s": round(time.perf_counter() - started, 1)}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"failed": f"{type(error).__name__}: {str(error)[:300]} ({Path(where.filename).name}:{where.lineno})"}


def in_a_child(name: str, folder: Path, size: Size, seconds: float) -> dict[str, Any]:
    """The part in a process of its own, whose memory is its own and whose end is no end of the check."""
    log = folder / f"{name}.log"
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder), *arguments_of(size)]
    with log.open("w") as written:
        child = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {seconds:.0f} s"}
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    result = folder / f"{name}.json"
    if result.exists():
        found: dict[str, Any] = json.loads(result.read_text())
        return found
    return {"failed": f"ended with {child.returncode}: {log.read_text(errors='replace')[-300:]}"}


def arguments_of(size: Size) -> list[str]:
    return ["--size", next(name for name, each in SIZES.items() if each == size)]


def goals_of(figures: dict[str, Any]) -> dict[str, Any]:
    """Each goal with what was measured and whether it is met; none measured is not met."""
    found = {}
    for name, (wanted, sense) in GOALS.items():
        part, _, figure = name.partition(".")
        value = figures.get(part, {}).get(figure)
        is_met = value is not None and (value >= wanted if sense == "at least" else value <= wanted)
        found[name] = {"measured": value, "goal": f"{sense} {wanted:g}", "met": is_met}
    return found


def with_mfu(figures: dict[str, Any], size: Size) -> None:
    rate = figures.get("card", {}).get("matrix_tflops")
    for name in ("lora", "qlora", "plain_peft"):
        if rate and (tokens := figures.get(name, {}).get("tokens_per_s")):
            figures[name]["mfu"] = round(tokens * size.operations_a_token / (rate * 1e12), 3)


def budget_s(later: list[str], left_s: float, minutes: float, parts: list[str]) -> float:
    """What a part may take at most: its share of the minutes, and what those before it left of theirs."""
    a_second = 60 * minutes / sum(SHARES[each] for each in parts)
    return left_s - a_second * sum(SHARES[each] for each in later)


def check(size: Size, parts: list[str], folder: Path, minutes: float, apart: bool) -> dict[str, Any]:
    """Every part in turn, within its budget where it is a process of its own; what was measured when it is interrupted
    is told all the same.
    """
    ends, figures = time.monotonic() + 60 * minutes, {}
    try:
        for at, name in enumerate(parts):
            may_take = budget_s(parts[at + 1 :], ends - time.monotonic(), minutes, parts)
            if not apart:
                figures[name] = guarded(lambda name=name: globals()[name](size, folder))
            elif may_take < LEAST_S:
                figures[name] = {"failed": f"not begun: {may_take:.0f} s were left for it of {minutes:g} minutes"}
            else:
                figures[name] = in_a_child(name, folder, size, may_take)
            print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)
    except (KeyboardInterrupt, SystemExit) as stopped:
        figures["stopped"] = {"failed": type(stopped).__name__}
    with_mfu(figures, size)
    return {"size": asdict(size), "parts": figures, "goals": goals_of(figures)}


def main() -> int:
    """Prints the figures, and gives 0 where every part ran, met or missed, 2 where a package is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, help="default: 8b where there is a GPU, else tiny")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="where 33 GB may lie for the while; default: a temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if missing := [each for each in NEEDED if importlib.util.find_spec(each) is None]:
        print(json.dumps({"missing": missing, "remedy": f"pip install {' '.join(missing)}"}))
        return 2
    name = chosen.size or ("8b" if device_of().type == "cuda" else "tiny")
    size = SIZES[name]
    if chosen.child:
        figures = guarded(lambda: globals()[chosen.child](size, chosen.folder))
        (chosen.folder / f"{chosen.child}.json").write_text(json.dumps(figures))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(dir=chosen.folder) as scratch:
        told = check(size, chosen.parts, Path(scratch), chosen.minutes, apart=name == "8b")
    for figure, goal in told["goals"].items():
        print(f"{figure}: {goal['measured']} ({goal['goal']}): {'met' if goal['met'] else 'MISS'}")
    print(json.dumps(told))
    return int(any("failed" in figures for figures in told["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
