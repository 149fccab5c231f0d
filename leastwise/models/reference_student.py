"""The logistic regression of row 0 as a student directory, so that it can be served. It fits nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leastwise.errors import BadInput
from leastwise.models import weights
from leastwise.models.reference import REGRESSION, Reference
from leastwise.models.student import StudentAbout

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def as_student(
    reference: Reference, out: Path, *, decline_label: str | None = None, decline_below: float = 0.0
) -> Path:
    """Write the logistic regression as a student directory (see `leastwise.models.student.Student`).

    The encoder keeps all its layers and its own longest input, in float32; the head reads its unit vectors. An `out`
    that exists is left as it is: name it after the content. Raises BadInput for the other references, which are no
    linear head, and for an encoder whose vectors are not the mean over its tokens. A prompt that an encoder puts before
    every text by default is not carried over.
    """
    from safetensors.numpy import save_file

    if reference.name != REGRESSION:
        raise BadInput(f"reference {reference.name!r}: is no linear head on an encoder, so it cannot be served as one")
    encoder = _mean_pooling(reference.encoder)
    about = StudentAbout(
        labels=reference.labels,
        max_tokens=encoder.max_seq_length,
        normalize=True,
        decline_label=decline_label,
        decline_below=decline_below,
    )
    linear, intercepts = (reference.arrays[name].astype(np.float32) for name in ("weights", "intercepts"))
    with weights.built(out) as folder:
        body = encoder.transformers_model
        assert body is not None
        body.pooler = None  # type: ignore[assignment]  # torch calls every attribute of a module a module or tensor
        body.save_pretrained(folder)
        encoder.tokenizer.save_pretrained(folder)
        save_file({"weight": np.ascontiguousarray(linear.T), "bias": intercepts}, folder / "head.safetensors")
        (folder / "labels.json").write_text(about.model_dump_json(indent=1))
    return out


def _mean_pooling(encoder: Path) -> SentenceTransformer:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = SentenceTransformer(
        str(encoder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"dtype": torch.float32},
    )
    parts = [type(part).__name__ for part in model]
    if parts[:2] != ["Transformer", "Pooling"] or set(parts[2:]) - {"Normalize"} or model[1].pooling_mode != "mean":
        raise BadInput(
            f"models.embedder: {encoder} makes its vectors by {', '.join(parts)}, and only a mean over tokens can be "
            "served as the reference; name another encoder, or set reference: report"
        )
    return model
