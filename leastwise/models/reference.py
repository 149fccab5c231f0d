"""Row 0 of every ladder: what labels cost without an LLM (majority, nearest neighbours, logistic regression).

It does not judge the references against requirements (`leastwise.evaluating.reference` does) and does not tune
anything but k, the temperature of the neighbours' vote, and C, each on dev accuracy. Nothing here calls a model that is
paid for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from leastwise.errors import BadInput
from leastwise.models.encoder import OnEmbedded, Vectors, embed, encoder_hash
from leastwise.models.machine import THREADS

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

Name = Literal["majority class", "nearest neighbours", "embeddings + logistic regression"]
REGRESSION: Name = "embeddings + logistic regression"
Floats = npt.NDArray[np.floating]
LabelNumbers = npt.NDArray[np.int64]  # positions in `labels`
Arrays = dict[str, Floats | LabelNumbers]

_NEIGHBOURS = (1, 3, 5, 9, 15, 25, 40, 64)
_TEMPERATURES = (0.05, 0.07, 0.1, 0.2, 1.0)  # of exp(cosine / temperature); at 1 nearly every vote counts alike
_INVERSE_REGULARIZATION = (0.25, 1.0, 4.0, 16.0)  # rising: each fit starts warm from the one before
_QUICK_REGULARIZATION = 4.0  # inverse; what dev mostly chooses
_FIT_ITERATIONS = 200
_SIMILARITIES_AT_ONCE = 2**24  # 64 MB of them
_RECIPE = 2  # part of the key: raise it when any of the above changes what is fitted


@dataclass(frozen=True)
class Reference:
    """A fitted classifier without an LLM; `chosen` says what dev chose, `arrays` holds all it learned."""

    name: Name
    labels: tuple[str, ...]
    chosen: dict[str, float]
    dev_accuracy: float
    arrays: Arrays
    encoder: Path
    cache: Path | None = None
    threads: int = THREADS

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

    def confidence(self, texts: Sequence[str]) -> Floats:
        """Probability given to the predicted label (a neighbour's vote share, not calibrated), shape (n,)."""
        return np.asarray(self.probabilities(texts).max(axis=1))

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """Label probabilities, shape (n, labels), rows summing to 1, columns in the order of `labels`."""
        if self.name == "majority class":
            return np.tile(self.arrays["prior"], (len(texts), 1))
        vectors = embed(texts, self.encoder, threads=self.threads, cache=self.cache)
        if self.name == "nearest neighbours":
            nearest = _neighbours(vectors, self.arrays["vectors"], int(self.chosen["k"]))
            targets = self.arrays["targets"].astype(np.int64, copy=False)
            return _vote(targets[nearest.rows], nearest.similarity, len(self.labels), self.chosen["temperature"])
        return _softmax(vectors @ self.arrays["weights"] + self.arrays["intercepts"])


def fit_reference(
    train: pd.DataFrame,
    dev: pd.DataFrame,
    encoder: Path,
    cache: Path | None,
    seed: int,
    *,
    threads: int = THREADS,
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
    split = _Split(
        vectors=embed([*train["text"], *dev["text"]], encoder, threads=threads, cache=cache, on_chunk=on_chunk),
        targets=targets,
        dev_targets=np.asarray([labels.index(label) if label in labels else -1 for label in dev["label"]]),
        labels=len(labels),
    )
    fits: dict[Name, _Fit] = {
        "majority class": _fit_majority(split),
        "nearest neighbours": _fit_neighbours(split),
        REGRESSION: _fit_logistic(split, seed, threads),
    }
    return [
        Reference(name, labels, fit.chosen, fit.dev_accuracy, fit.arrays, encoder, cache, threads)
        for name, fit in fits.items()
    ]


@dataclass(frozen=True)
class _Split:
    vectors: Vectors  # of train, then of dev
    targets: LabelNumbers
    dev_targets: LabelNumbers  # -1: a label never seen in training, which can only be missed
    labels: int

    @property
    def train(self) -> Vectors:
        return self.vectors[: len(self.targets)]

    @property
    def dev(self) -> Vectors:
        return self.vectors[len(self.targets) :]


@dataclass(frozen=True)
class _Fit:
    chosen: dict[str, float]
    dev_accuracy: float
    arrays: Arrays


def _fit_majority(split: _Split) -> _Fit:
    prior = np.bincount(split.targets, minlength=split.labels) / len(split.targets)
    return _Fit({}, float(np.mean(split.dev_targets == prior.argmax())), {"prior": prior})


def _fit_neighbours(split: _Split) -> _Fit:
    """Votes weighed by exp(cosine / temperature): near ones count more the lower it is, so more may vote."""
    ks = [k for k in _NEIGHBOURS if k <= len(split.train)]
    nearest = _neighbours(split.dev, split.train, ks[-1])
    targets = split.targets[nearest.rows]

    def accuracy(k: int, temperature: float) -> float:
        votes = _vote(targets[:, :k], nearest.similarity[:, :k], split.labels, temperature)
        return float(np.mean(votes.argmax(axis=1) == split.dev_targets))

    tried = {(k, each): accuracy(k, each) for k in ks for each in _TEMPERATURES}
    k, temperature = max(tried, key=lambda at: (tried[at], -at[0], at[1]))  # of equals fewer, then the plainer vote
    chosen = {"k": float(k), "temperature": temperature}
    return _Fit(chosen, tried[k, temperature], {"vectors": split.train, "targets": split.targets})


def _fit_logistic(split: _Split, seed: int, threads: int) -> _Fit:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=_FIT_ITERATIONS, tol=1e-3, warm_start=True, random_state=seed)
    best = _Fit({}, -1.0, {})
    with _blas_threads(threads):
        for c in _INVERSE_REGULARIZATION:
            model.set_params(C=c).fit(split.train, split.targets)
            head = _multinomial(model, split.labels)
            logits = split.dev @ head["weights"] + head["intercepts"]
            accuracy = float(np.mean(logits.argmax(axis=1) == split.dev_targets))
            if accuracy > best.dev_accuracy:  # a tie keeps the stronger regularization
                best = _Fit({"C": c}, accuracy, head)
    return best


def quick_probabilities(
    embedded: Floats, labels: Sequence[str], vectors: Floats, threads: int = THREADS
) -> npt.NDArray[np.floating]:
    """Label probabilities of `vectors`, shape (n, labels seen), by a logistic regression on `embedded`, not tuned."""
    from sklearn.linear_model import LogisticRegression

    with _blas_threads(threads):
        model = LogisticRegression(C=_QUICK_REGULARIZATION, max_iter=_FIT_ITERATIONS, tol=1e-3).fit(embedded, labels)
        return np.asarray(model.predict_proba(vectors))


def _multinomial(model: LogisticRegression, labels: int) -> Arrays:
    weights, intercepts = model.coef_.T, model.intercept_
    if labels == 2:  # scikit-learn keeps one row for two classes: logit of the second
        return {"weights": np.hstack([np.zeros_like(weights), weights]), "intercepts": np.append(0.0, intercepts)}
    return {"weights": weights.copy(), "intercepts": intercepts.copy()}


def _blas_threads(threads: int) -> threadpool_limits:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=threads)


@dataclass(frozen=True)
class _Nearest:
    rows: LabelNumbers  # of the vectors, most similar first; (queries, k)
    similarity: Floats


def _neighbours(queries: Vectors, vectors: Floats | LabelNumbers, k: int) -> _Nearest:
    at_once = max(1, _SIMILARITIES_AT_ONCE // len(vectors))
    blocks = [_nearest(queries[at : at + at_once], vectors, k) for at in range(0, len(queries), at_once)]
    rows, similarity = ([getattr(each, name) for each in blocks] for name in ("rows", "similarity"))
    return _Nearest(np.concatenate(rows), np.concatenate(similarity))


def _nearest(queries: Vectors, vectors: Floats | LabelNumbers, k: int) -> _Nearest:
    similarity = queries @ vectors.T
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, : min(k, len(vectors))].copy()  # else all are kept
    return _Nearest(rows, np.take_along_axis(similarity, rows, axis=1))


def _vote(targets: LabelNumbers, similarity: Floats, labels: int, temperature: float) -> Floats:
    votes = np.zeros((len(targets), labels))
    weights = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
    np.add.at(votes, (np.arange(len(targets))[:, None], targets), weights)
    return np.asarray(votes / votes.sum(axis=1, keepdims=True))


def _softmax(logits: Floats) -> Floats:
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def _save(references: list[Reference], stored: Path) -> None:
    stored.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{i}.{name}": array for i, fit in enumerate(references) for name, array in fit.arrays.items()}
    np.savez(stored.with_suffix(".npz"), allow_pickle=False, **arrays)
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
        learned: list[Arrays] = [{} for _ in about]
        for key in arrays.files:
            i, name = key.split(".", 1)
            learned[int(i)][name] = arrays[key]
    fixed = [(fit["name"], tuple(fit["labels"]), fit["chosen"], fit["dev_accuracy"]) for fit in about]
    return [Reference(*fit, arrays, encoder, cache, threads) for fit, arrays in zip(fixed, learned, strict=True)]
