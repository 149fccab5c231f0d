"""The embedded use case fine-tuned on all its training rows, beside retrieval and the no-LLM reference, on test rows.

`python -m benchmarks.full_fine_tuning [--minutes 8]`. A training longer than `--minutes` is left at its last checkpoint
and goes on from there when the command is given again; a finished one is only measured. Answers of the trained model
are greedy and unconstrained, in process. Retrieval is the project's: retrieved examples, answers constrained to the
labels, from a llama.cpp server. It chooses nothing on the test rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leastwise.answering import retrieval
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.request import Message, Request, Target
from leastwise.engines.llama_cpp import serve_causal
from leastwise.evidence import MeanTest
from leastwise.ladder.candidate import Prompt, Shot
from leastwise.ladder.rendering import render
from leastwise.metrics.task_metric import metric_of
from leastwise.models import reference, weights
from leastwise.models.causal_model import Generator
from leastwise.models.chat import format_chat
from leastwise.models.encoder import embedder_dir
from leastwise.models.weights import package_gguf
from leastwise.money import lora
from leastwise.progress import TrainingProgress
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.stores import storage
from leastwise.stores.answer_store import ResponseStore
from leastwise.training.request import DevMetric, TrainingReport
from leastwise.training.settings import TrainingSettings
from leastwise.training.training import fine_tune
from leastwise.training.training_rows import Row
from leastwise.use_case import UseCase
from leastwise.use_case.prompts import system_prompt, trained_prompt

if TYPE_CHECKING:
    import pandas as pd


class Paused(Exception):  # noqa: N818 (not a defect: the training goes on when asked again)
    """The minutes are over."""


def pairs(base: Path, use_case: UseCase, frame: pd.DataFrame) -> list[Row]:
    """Rows as they are trained and asked: the trained candidates' system turn, the sentence, the label."""
    system = {"role": "system", "content": trained_prompt(use_case)}
    chats = [[system, {"role": "user", "content": text}] for text in frame["text"]]
    return [Row(format_chat(base, chat), label) for chat, label in zip(chats, frame["label"], strict=True)]


def train(
    base: Path, use_case: UseCase, tables: Tables, settings: TrainingSettings, out: Path, minutes: float
) -> TrainingReport:
    """Train on all rows, for `minutes` at most; raises Paused when they are over."""
    ends = time.monotonic() + minutes * 60

    def on_progress(progress: TrainingProgress) -> None:
        print(
            f"step {progress.step} of {progress.steps}, loss {progress.loss:.3f}, "
            f"about {progress.seconds_left:.0f} s to go",
            flush=True,
        )
        if time.monotonic() > ends:
            raise Paused

    rows, dev = (
        pairs(base, use_case, tables.need("train")),
        pairs(base, use_case, tables.need("dev"))[: settings.dev_examples],
    )
    metric = DevMetric(
        task=use_case.task,
        prompts=tuple(row.prompt for row in dev),
        expected=tuple(row.completion for row in dev),
        max_new_tokens=use_case.traffic.output_tokens,
    )
    return fine_tune(base, rows, dev, settings, out, on_progress, metric)


def asked_with_retrieval(use_case: UseCase, tables: Tables, rows: pd.DataFrame) -> tuple[list[str], float]:
    """Answers with retrieved examples, constrained to the labels, and the mean tokens of their prompts."""
    assert use_case.models.embedder is not None
    encoder, home = embedder_dir(use_case.models.embedder), storage.home()
    index = retrieval.build_index(tables.need("train"), encoder, home / "indexes", cache=home / "embeddings")
    found = index.search(list(rows["text"]), use_case.retrieval.examples)
    prompt = Prompt(system=system_prompt(use_case.task), constrained=True)
    requests = []
    for row, hits in zip(rows.itertuples(), found, strict=True):
        turns = render(
            prompt, str(row.text), examples=[Shot(text=hit.text, label=str(hit.label)) for hit in reversed(hits)]
        )
        said = tuple(Message(turn.role, turn.content) for turn in turns)
        requests.append(Request(str(row.id), said, use_case.traffic.output_tokens, choices=use_case.task.answers))
    uri = use_case.models.candidates[0].uri
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        with (
            serve_causal(package_gguf(uri), name="rag", log=log, context_tokens=2048) as endpoint,
            ResponseStore(Path(scratch, "answers.db")) as store,
            Asker(
                Target.served(endpoint, uri, "benchmark"),
                store=store,
                price=lambda _: 0.0,
                concurrency=2,
                timeout_s=300,
            ) as asker,
        ):
            replies = asker.ask(requests)
    lost = [reply.error for reply in replies if reply.error]
    assert not lost, lost[0]
    return [str(reply.text) for reply in replies], sum(reply.input_tokens for reply in replies) / len(replies)


def line(name: str, use_case: UseCase, rows: pd.DataFrame, answers: list[str], tokens: float | None) -> str:
    """Quality and adherence with the interval a gate would have, and the prompt's mean tokens."""
    score = metric_of(use_case.task)
    scored = [score(answer, want) for answer, want in zip(answers, rows["label"], strict=True)]
    cells = [name, str(len(scored))]
    for figure in ("quality", "adherence"):
        test = MeanTest(bound=0.9, margin=0.05)
        test.add([getattr(each, figure) for each in scored])
        cells.append(f"{test.estimate:.4f} ({test.lower:.3f} to {test.upper:.3f})")
    return f"| {' | '.join([*cells, '' if tokens is None else f'{tokens:.1f}'])} |"


def measure(base: Path, use_case: UseCase, tables: Tables, out: Path, count: int, asked: int) -> None:
    """The table, each line as soon as it is measured."""
    rows = tables.need("test").sample(n=count, random_state=0)
    generator = Generator(base, out)
    prompts = [row.prompt for row in pairs(base, use_case, rows)]
    answers = generator.answer(prompts, use_case.traffic.output_tokens)
    short = sum(map(generator.tokens, prompts)) / len(prompts)
    print("| | test rows | quality | adherence | prompt tokens |\n|---|---|---|---|---|")
    print(line("fine-tuned, unconstrained", use_case, rows, answers, short), flush=True)
    assert use_case.models.embedder is not None
    encoder = embedder_dir(use_case.models.embedder)
    fits = reference.fit_reference(
        tables.need("train"), tables.need("dev"), encoder, storage.home() / "embeddings", use_case.training.seed
    )
    best = max(fits, key=lambda fit: fit.dev_accuracy)
    print(line(f"no LLM: {best.name}", use_case, rows, best.predict(list(rows["text"])), None), flush=True)
    some = rows.head(asked)
    if asked:
        retrieved, long = asked_with_retrieval(use_case, tables, some)
        print(line("retrieval, constrained", use_case, some, retrieved, long))
        print(line("fine-tuned, on those rows", use_case, some, answers[:asked], short))
        print(f"\nprompt tokens: {short / long:.3f} of retrieval's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="most minutes of training in this run")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--upper-blocks-share", type=float, default=0.5)
    parser.add_argument(
        "--prompt", choices=["instruction", "empty"], default="empty", help="system turn of the trained model"
    )
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--retrieval-rows", type=int, default=300, help="test rows that retrieval answers too; 0: none")
    chosen: Any = parser.parse_args()
    use_case = load("alert-triage")
    use_case = use_case.model_copy(update={"training": use_case.training.model_copy(update={"prompt": chosen.prompt})})
    tables = Tables(use_case)
    base = weights.materialize(use_case.models.candidates[0].uri, storage.home())
    settings = TrainingSettings(
        rank=chosen.rank,
        learning_rate=chosen.learning_rate,
        upper_blocks_share=chosen.upper_blocks_share,
        epochs=chosen.epochs,
        max_examples=chosen.epochs * len(tables.need("train")),
        eval_every_share=0.25,
        save_every_share=0.05,
        dev_examples=128,
    )
    name = (
        f"full-{chosen.prompt}-{chosen.epochs}x-r{chosen.rank}-{chosen.learning_rate:g}-{chosen.upper_blocks_share:g}"
    )
    out = storage.home() / "adapters" / name
    try:
        report = train(base, use_case, tables, settings, out, chosen.minutes)
    except Paused:
        print("paused: give the same command again to go on from the last checkpoint")
        return
    print(
        f"{report.examples:,} examples, {report.steps} steps, {report.examples_per_s:.1f} "
        f"examples/s; kept step {report.best_step}; "
        f"on dev: loss {', '.join(f'{loss:.3f}' for loss in report.dev_losses)}, quality "
        f"{', '.join(f'{m:.3f}' for m in report.dev_metrics)}"
    )
    shares = [
        lora.trainable_share(shape, "lora", chosen.rank, chosen.upper_blocks_share)
        for shape in (lora.LLAMA_3_8B, lora.LLAMA_3_70B)
    ]
    print(
        f"trainable share {report.trainable_share:.2%}; the same on Llama 3: 8B {shares[0]:.2%}, 70B {shares[1]:.2%}\n"
    )
    measure(base, use_case, tables, out, chosen.test_rows, chosen.retrieval_rows)


if __name__ == "__main__":
    main()
