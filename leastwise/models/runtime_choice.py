"""Which runtime a student answers in: chosen by measurement on this machine, quality held on dev."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leastwise.models.student_runtime import RuntimeSpeed, _measured, fastest

if TYPE_CHECKING:
    pass


def choose_runtime(directory: Path, texts: Sequence[str], labels: Sequence[str], threads: int = 2) -> RuntimeSpeed:
    """Measure every runtime of a trained student on dev `texts` and `labels`, and write the `fastest` into its directory.

    A student that has been measured keeps what was chosen.
    """
    from leastwise.models.student import Student

    student = Student(directory, threads)
    if student.about.measured:
        return next(each for each in student.about.measured if each.runtime == student.about.runtime)
    measured = _measured(student, list(texts), np.asarray(labels))
    chosen = fastest(measured)
    about = student.about.model_copy(update={"runtime": chosen.runtime, "measured": tuple(measured)})
    unfinished = directory / "labels.json.unfinished"
    unfinished.write_text(about.model_dump_json(indent=1))
    unfinished.replace(directory / "labels.json")
    return chosen
