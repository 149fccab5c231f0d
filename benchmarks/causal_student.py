"""A causal student beside its teacher: half of the blocks, learning the teacher's answers alone or its probabilities
too.

`python -m benchmarks.causal_student [--labels 3000] [--blocks 15] [--shares 0 0.5]`. Teacher, labels and what it
answers to test rows are those of `benchmarks.distillation`, kept in LEASTWISE_HOME; the teacher's answer is its
likeliest label, the student writes its own. Quality only: nothing is timed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.distillation import THREADS, ratio_of, teacher_labels, teacher_of, unlogged
from leastwise.metrics import normalize
from leastwise.models.causal_model import Generator
from leastwise.models.chat import format_chat
from leastwise.rows.use_case_file import load
from leastwise.training import causal_student, training
from leastwise.training.teacher_labels import soft_labels
from leastwise.use_case.prompts import short_prompt
from leastwise.use_case.student import CausalStudent

BATCH = 32


def main() -> None:
    """Make what is missing, train a student a share, and print each beside the teacher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=3000, help="texts the teacher labels")
    parser.add_argument("--blocks", type=int, default=15, help="blocks kept of the base's")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.0, 0.5],
        help="shares of the loss that are the teacher's probabilities",
    )
    parser.add_argument("--rows", type=int, default=1000, help="test rows both answer")
    asked = parser.parse_args()
    case = load("alert-triage")
    work = unlogged(case)
    teacher = teacher_of(work)
    labelled = teacher_labels(work, teacher, asked.labels)
    rows = work.tables.need("test").head(asked.rows)
    kept = work.home / "benchmarks" / f"likeliest-{teacher.key}-{len(rows)}"
    theirs = list(soft_labels(work, teacher, rows, kept)["label"])
    told, wanted = causal_student.teacher_dir(work.home, work.handover.here(teacher)), rows["label"].to_numpy()
    right = (np.asarray(theirs) == wanted).astype(float)
    student = CausalStudent(kind="causal", blocks=asked.blocks)
    base = causal_student.base_dir(work.catalogue, student)
    system = {"role": "system", "content": short_prompt(work.use_case.task)}
    chats = [format_chat(base, [system, {"role": "user", "content": text}]) for text in rows["text"]]
    print(f"teacher: {right.mean():.4f} on {len(rows):,} test rows")
    print(
        "\n| blocks | from probabilities | trained in | quality | ratio to the teacher | in the "
        "format |\n|---|---|---|---|---|---|"
    )
    for share in asked.shares:
        settings = causal_student.settings_of(case.training, student, len(labelled)).model_copy(
            update={"teacher_share": share}
        )
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "student"
            report = training.fine_tune(
                base,
                causal_student.rows_of(case.task, base, labelled),
                [],
                settings,
                out,
                None,
                None,
                told if share else None,
            )
            answers = Generator(base, out, threads=THREADS).answer(chats, case.traffic.output_tokens, BATCH)
        said = [normalize(case.task, answer) for answer in answers]
        ours = np.asarray([label == want for label, want in zip(said, wanted, strict=True)], dtype=float)
        found = ratio_of(ours, right)
        print(
            f"| {asked.blocks} | {share:.0%} | {report.seconds:.0f} s | {found.student:.4f} | "
            f"{found.estimate:.3f} [{found.lower:.3f}, {found.upper:.3f}] "
            f"| {np.mean([label is not None for label in said]):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
