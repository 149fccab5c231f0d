"""Row 0 of every ladder: what labels cost without an LLM (majority, nearest neighbours, logistic regression).

It does not judge the references against requirements (`leastwise.evaluating.reference_stage` does) and does not tune anything but k and C,
each on dev accuracy. Nothing here calls a model that is paid for.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from leastwise.errors import BadInput
from leastwise.models import weights
from leastwise.models.encoder import OnEmbedded, embed, encoder_hash
from leastwise.models.student import StudentAbout

Name = Literal["majority class", "nearest neighbours", "embeddings + logistic regression"]

_NEIGHBOURS = (1, 3, 5, 9, 15, 25)
_INVERSE_REGULARIZATION = (0.25, 1.0, 4.0, 16.0)  # rising: each fit starts warm from the one before
_QUICK_REGULARIZATION = 4.0  # inverse; what dev mostly chooses
_FIT_ITERATIONS = 200
_RECIPE = 1  # part of the key: raise it when any of the above changes what is fitted


@dataclass(frozen=True)
class Reference:
    """A fitted classifier without an LLM; `chosen` says what dev chose, `arrays` holds all it learned."""

    name: Name
    labels: tuple[str, ...]
    chosen: dict[str, float]
    dev_accuracy: float
    arrays: dict[str, np.ndarray]
    encoder: Path
    cache: Path | None = None
    threads: int = 2

    @property
    def key(self) -> str:
        """24 hex digits of the encoder, the labels and all that was learned: equal references answer alike."""
        digest = hashlib.sha256(json.dumps([self.name, encoder_hash(self.encoder), self.labels, self.chosen]).encode())
        for name in sorted(self.arrays):
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()[:24]

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text; ties go to the first in sorted order."""
        return [self.labels[i] for i in self.probabilities(texts).argmax(axis=1)]

    def confidence(self, texts: Sequence[str]) -> np.ndarray:
        """Probability given to the predicted label (a neighbour's vote share, not calibrated), shape (n,)."""
        return self.probabilities(texts).max(axis=1)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Label probabilities, shape (n, labels), rows summing to 1, columns in the order of `labels`."""
        if self.name == "majority class":
            return np.tile(self.arrays["prior"], (len(texts), 1))
        vectors = embed(texts, self.encoder, threads=self.threads, cache=self.cache)
        if self.name == "nearest neighbours":
            order, similarity = _neighbours(vectors, self.arrays["vectors"], int(self.chosen["k"]))
            return _vote(self.arrays["targets"][order], similarity, len(self.labels))
        return _softmax(vectors @ self.arrays["weights"] + self.arrays["intercepts"])

    def answer_ms(self, texts: Sequence[str]) -> np.ndarray:
        """Milliseconds of each text answered alone and embedded afresh, shape (n,); one unmeasured answer warms up."""
        fresh = Reference(**(vars(self) | {"cache": None}))
        fresh.predict(texts[:1])
        return np.asarray([_answered_ms(fresh, text) for text in texts])


def _answered_ms(reference: Reference, text: str) -> float:
    start = time.perf_counter()
    reference.predict([text])
    return (time.perf_counter() - start) * 1000.0


def as_student(
    reference: Reference, out: Path, *, decline_label: str | None = None, decline_below: float = 0.0
) -> Path:
    """Write the logistic regression as the student directory `out`, which `leastwise.training.distillation.Student` answers with.

    The encoder keeps all its layers and its own longest input, in float32; the head reads its unit vectors. An `out`
    that exists is left as it is: name it after the content. Raises BadInput for the other references, which are no
    linear head, and for an encoder whose vectors are not the mean over its tokens. A prompt that an encoder puts before
    every text by default is not carried over.
    """
    from safetensors.numpy import save_file

    if reference.name != "embeddings + logistic regression":
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
        body = encoder[0].auto_model
        body.pooler = None
        body.save_pretrained(folder)
        encoder.tokenizer.save_pretrained(folder)
        save_file({"weight": np.ascontiguousarray(linear.T), "bias": intercepts}, folder / "head.safetensors")
        (folder / "labels.json").write_text(about.model_dump_json(indent=1))
    return out


def _mean_pooling(encoder: Path) -> Any:
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
            f"models.embedder: {encoder} makes its vectors by {', '.join(parts)}, and only a mean over tokens can be served "
            "as the reference; name another encoder, or set reference: report"
        )
    return model


def fit_reference(
    train: pd.DataFrame,
    dev: pd.DataFrame,
    encoder: Path,
    cache: Path | None,
    seed: int,
    *,
    threads: int = 2,
    on_chunk: OnEmbedded | None = None,
) -> list[Reference]:
    """The three references fitted on `train` and tuned on `dev` (columns text and label), weakest kind first.

    With a `cache` directory embeddings and fitted references are kept there and an unchanged refit only reads them.
    Raises BadInput when a column is missing, a frame is empty or train has fewer than two labels.
    """
    _check(train, "train", labels=2)
    _check(dev, "dev", labels=1)
    stored = cache / f"reference-{_key(train, dev, encoder, seed)}" if cache else None
    if stored is not None and (stored.with_suffix(".json")).is_file():
        return _load(stored, encoder, cache, threads)
    references = _fit(train, dev, encoder, cache, seed, threads, on_chunk)
    if stored is not None:
        _save(references, stored)
    return references


def _check(rows: pd.DataFrame, split: str, labels: int) -> None:
    if missing := {"text", "label"} - set(rows.columns):
        raise BadInput(f"{split}: column {', '.join(sorted(missing))} is missing; the reference needs text and label")
    if rows["label"].nunique() < labels:
        raise BadInput(f"{split}: {rows['label'].nunique()} labels in {len(rows)} rows; at least {labels} are needed")


def _key(train: pd.DataFrame, dev: pd.DataFrame, encoder: Path, seed: int) -> str:
    rows = [frame[["text", "label"]].values.tolist() for frame in (train, dev)]
    content = json.dumps([_RECIPE, encoder_hash(encoder), seed, *rows])
    return hashlib.sha256(content.encode()).hexdigest()[:24]


def _fit(
    train: pd.DataFrame,
    dev: pd.DataFrame,
    encoder: Path,
    cache: Path | None,
    seed: int,
    threads: int,
    on_chunk: OnEmbedded | None,
) -> list[Reference]:
    labels = tuple(sorted(train["label"].unique()))
    targets = np.asarray([labels.index(label) for label in train["label"]])
    # a dev label never seen in training (-1) can only be missed
    wanted = np.asarray([labels.index(label) if label in labels else -1 for label in dev["label"]])
    vectors = embed([*train["text"], *dev["text"]], encoder, threads=threads, cache=cache, on_chunk=on_chunk)
    split = (vectors[: len(train)], targets, vectors[len(train) :], wanted, len(labels))
    fits = {
        "majority class": _fit_majority(targets, wanted, len(labels)),
        "nearest neighbours": _fit_neighbours(*split),
        "embeddings + logistic regression": _fit_logistic(*split, seed, threads),
    }
    return [Reference(name, labels, *fit, encoder, cache, threads) for name, fit in fits.items()]  # type: ignore[arg-type]


_Fit = tuple[dict[str, float], float, dict[str, np.ndarray]]  # chosen, dev accuracy, arrays


def _fit_majority(targets: np.ndarray, wanted: np.ndarray, labels: int) -> _Fit:
    prior = np.bincount(targets, minlength=labels) / len(targets)
    return {}, float(np.mean(wanted == prior.argmax())), {"prior": prior}


def _fit_neighbours(vectors: np.ndarray, targets: np.ndarray, dev: np.ndarray, wanted: np.ndarray, labels: int) -> _Fit:
    ks = [k for k in _NEIGHBOURS if k <= len(vectors)]
    order, similarity = _neighbours(dev, vectors, ks[-1])
    votes = {k: _vote(targets[order[:, :k]], similarity[:, :k], labels).argmax(axis=1) for k in ks}
    accuracy = {k: float(np.mean(vote == wanted)) for k, vote in votes.items()}
    k = max(ks, key=lambda k: (accuracy[k], -k))
    return {"k": float(k)}, accuracy[k], {"vectors": vectors, "targets": targets}


def _fit_logistic(
    vectors: np.ndarray, targets: np.ndarray, dev: np.ndarray, wanted: np.ndarray, labels: int, seed: int, threads: int
) -> _Fit:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=_FIT_ITERATIONS, tol=1e-3, warm_start=True, random_state=seed)
    best: _Fit = ({}, -1.0, {})
    with _blas_threads(threads):
        for c in _INVERSE_REGULARIZATION:
            model.set_params(C=c).fit(vectors, targets)
            weights, intercepts = _multinomial(model, labels)
            accuracy = float(np.mean((dev @ weights + intercepts).argmax(axis=1) == wanted))
            if accuracy > best[1]:  # a tie keeps the stronger regularization
                best = ({"C": c}, accuracy, {"weights": weights, "intercepts": intercepts})
    return best


def quick_probabilities(known: np.ndarray, labels: Sequence[str], vectors: np.ndarray, threads: int = 2) -> np.ndarray:
    """Label probabilities of `vectors` by a logistic regression on `known` and their labels, not tuned: (n, labels seen)."""
    from sklearn.linear_model import LogisticRegression

    with _blas_threads(threads):
        model = LogisticRegression(C=_QUICK_REGULARIZATION, max_iter=_FIT_ITERATIONS, tol=1e-3).fit(known, labels)
        return np.asarray(model.predict_proba(vectors))


def _multinomial(model: Any, labels: int) -> tuple[np.ndarray, np.ndarray]:
    if labels == 2:  # scikit-learn keeps one row for two classes: logit of the second
        return np.hstack([np.zeros_like(model.coef_.T), model.coef_.T]), np.append(0.0, model.intercept_)
    return model.coef_.T.copy(), model.intercept_.copy()


def _blas_threads(threads: int) -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=threads)


def _neighbours(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    k = min(k, len(vectors))
    similarity = queries @ vectors.T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(similarity, order, axis=1)


def _vote(targets: np.ndarray, similarity: np.ndarray, labels: int) -> np.ndarray:
    votes = np.zeros((len(targets), labels))
    np.add.at(votes, (np.arange(len(targets))[:, None], targets), np.clip(similarity, 1e-6, None))
    return votes / votes.sum(axis=1, keepdims=True)


def _softmax(logits: np.ndarray) -> np.ndarray:
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def _save(references: list[Reference], stored: Path) -> None:
    stored.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{i}.{name}": array for i, fit in enumerate(references) for name, array in fit.arrays.items()}
    np.savez(stored.with_suffix(".npz"), **arrays)
    about = [
        {"name": fit.name, "labels": fit.labels, "chosen": fit.chosen, "dev_accuracy": fit.dev_accuracy}
        for fit in references
    ]
    unfinished = stored.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(about, indent=1))
    unfinished.replace(stored.with_suffix(".json"))  # written last: its presence says the arrays are whole


def _load(stored: Path, encoder: Path, cache: Path | None, threads: int) -> list[Reference]:
    about = json.loads(stored.with_suffix(".json").read_text())
    with np.load(stored.with_suffix(".npz"), allow_pickle=False) as arrays:
        learned: list[dict[str, np.ndarray]] = [{} for _ in about]
        for key in arrays.files:
            i, name = key.split(".", 1)
            learned[int(i)][name] = arrays[key]
    fixed = [(fit["name"], tuple(fit["labels"]), fit["chosen"], fit["dev_accuracy"]) for fit in about]
    return [Reference(*fit, arrays, encoder, cache, threads) for fit, arrays in zip(fixed, learned, strict=True)]
