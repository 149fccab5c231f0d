"""What importing the training code and answering with a student need of scipy, for a machine that has none:
`gpu_check.py` alone uses it. Statistics, which are what scipy is for here, are no part of that check, and are missing.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np


def install() -> list[str]:
    """Put the stand-in where scipy is not installed; gives back the names of what is stood in for."""
    if importlib.util.find_spec("scipy") is not None:
        return []
    made, special = types.ModuleType("scipy"), types.ModuleType("scipy.special")
    for module in (made, special):
        module.__spec__ = ModuleSpec(module.__name__, None)  # others ask for it to see whether scipy is there
    vars(special).update(expit=expit, logit=logit, logsumexp=logsumexp, softmax=softmax)
    vars(made).update(special=special, __path__=[])
    sys.modules.update({"scipy": made, "scipy.special": special})
    return ["scipy"]


def expit(values: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(values)))


def logit(values: Any) -> Any:
    array = np.asarray(values)
    return np.log(array) - np.log1p(-array)


def logsumexp(values: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    array = np.asarray(values)
    most = array.max(axis=axis, keepdims=True)
    summed = np.log(np.exp(array - most).sum(axis=axis, keepdims=True)) + most
    return summed if keepdims else summed.squeeze(axis)


def softmax(values: Any, axis: int | None = None) -> Any:
    return np.exp(np.asarray(values) - logsumexp(values, axis, keepdims=True))
