"""What a model's log-likelihoods of labels say of a row: probabilities at one temperature, divided by a class prior.

Batch calibration (Zhou et al., ICLR 2024, arXiv 2309.17249): a label that the model finds likely whatever it is shown
is divided by that likelihood, its mean over dev rows. The temperature (Guo et al., ICML 2017) changes no answer and
makes the confidence one. It asks nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from leastwise.evidence.betting import FloatArray
from leastwise.part import Part

FLOOR = -30.0  # log-probability of a label whose probability was rounded to nothing
DIGITS = 4  # kept of temperature and prior: more is noise, and a candidate's key should not hang on it
TEMPERATURES = (0.05, 20.0)
BINS = 10  # of a calibration error


class Calibration(Part):
    """How log-likelihoods of labels become probabilities."""

    temperature: float = Field(1.0, gt=0, le=100, description="Log-probabilities are divided by it.")
    log_prior: dict[str, float] = Field(
        {}, description="Log of a label's mean probability over dev rows, taken off; empty: nothing is."
    )


def probabilities(log_likelihoods: Mapping[str, float], calibration: Calibration) -> dict[str, float]:
    """The probability of every label; they sum to 1."""
    labels = list(log_likelihoods)
    raw = np.array([max(FLOOR, log_likelihoods[label]) for label in labels])
    prior = np.array([calibration.log_prior.get(label, 0.0) for label in labels])
    return dict(zip(labels, map(float, _softmax((raw - prior) / calibration.temperature)), strict=True))


def most_likely(log_likelihoods: Mapping[str, float], calibration: Calibration) -> tuple[str, float]:
    """The label with the highest probability, of equals the first listed, and that probability."""
    found = probabilities(log_likelihoods, calibration)
    label = max(found, key=lambda each: found[each])
    return label, found[label]


def fitted(log_likelihoods: Sequence[Mapping[str, float]], expected: Sequence[str], *, with_prior: bool) -> Calibration:
    """Prior and temperature from dev rows: the prior is their mean probabilities, which no label of theirs enters; the
    temperature is that of the highest likelihood of the expected labels.
    """
    if not log_likelihoods:
        return Calibration()
    labels = list(log_likelihoods[0])
    raw = np.array([[max(FLOOR, each.get(label, FLOOR)) for label in labels] for each in log_likelihoods])
    prior = np.log(_softmax(raw).mean(axis=0)) if with_prior else np.zeros(len(labels))
    log_prior = {label: round(float(each), DIGITS) for label, each in zip(labels, prior, strict=True)}
    known = [(at, labels.index(label)) for at, label in enumerate(expected) if label in labels]
    temperature = _temperature(raw - prior, known) if known else 1.0
    return Calibration(temperature=temperature, log_prior=log_prior if with_prior else {})


class CalibrationError(Part):
    """How far a reading's confidence is from how often it is right on dev, before and after its temperature."""

    rows: int = Field(ge=0)
    before: float = Field(ge=0, le=1, description="At temperature 1.")
    after: float = Field(ge=0, le=1, description="Of each half of the rows at the temperature of the other half.")


def calibration_error(
    log_likelihoods: Sequence[Mapping[str, float]], expected: Sequence[str], *, with_prior: bool
) -> CalibrationError:
    """The expected calibration error of the likeliest label, by `expected_calibration_error`.

    What is reported of a temperature was not fitted on the rows it is reported of.
    """
    before: list[tuple[str, float]] = [("", 0.0)] * len(expected)
    after = list(before)
    for half in (0, 1):
        others = slice(1 - half, None, 2)
        of_others = fitted(log_likelihoods[others], expected[others], with_prior=with_prior)
        plain = of_others.model_copy(update={"temperature": 1.0})
        for at in range(half, len(after), 2):
            before[at] = most_likely(log_likelihoods[at], plain)
            after[at] = most_likely(log_likelihoods[at], of_others)
    return CalibrationError(rows=len(expected), before=_error_of(before, expected), after=_error_of(after, expected))


def _error_of(read: Sequence[tuple[str, float]], expected: Sequence[str]) -> float:
    is_right = [label == wanted for (label, _), wanted in zip(read, expected, strict=True)]
    return round(expected_calibration_error([probability for _, probability in read], is_right), DIGITS)


def expected_calibration_error(confidences: Sequence[float], is_right: Sequence[bool], bins: int = BINS) -> float:
    """The mean distance between confidence and share of right answers, in bins of equal numbers of rows (Nguyen and
    O'Connor, EMNLP 2015, with the absolute distance of Naeini et al., AAAI 2015); 0 without rows. In [0, 1].
    """
    n = len(confidences)
    if n == 0:
        return 0.0
    order = np.argsort(np.asarray(confidences, dtype=float), kind="stable")
    parts = np.array_split(order, min(bins, n))
    sure, right = np.asarray(confidences, dtype=float), np.asarray(is_right, dtype=float)
    return float(sum(len(part) * abs(sure[part].mean() - right[part].mean()) for part in parts) / n)


def _temperature(scores: FloatArray, known: Sequence[tuple[int, int]]) -> float:
    from scipy.optimize import minimize_scalar  # every command would import it

    rows, columns = (list(each) for each in zip(*known, strict=True))

    def loss(log_temperature: float) -> float:
        scaled = scores[rows] / math.exp(log_temperature)
        most = scaled.max(axis=1)
        total = most + np.log(np.exp(scaled - most[:, None]).sum(axis=1))
        return float((total - scaled[range(len(rows)), columns]).mean())

    low, high = (math.log(each) for each in TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded")
    return round(math.exp(float(found.x)), DIGITS)


def _softmax(scores: FloatArray) -> FloatArray:
    least = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(least / least.sum(axis=-1, keepdims=True))
