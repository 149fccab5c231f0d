"""When models go by what a provider's own SDK says offline: Anthropic's, the only one of the three that has dates.

It asks no provider. The dated model book (`leastwise.money.model_book`) takes what is found here beside its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from importlib.metadata import version

log = logging.getLogger(__name__)

_ORDINAL = re.compile(r"(?<=\d)(st|nd|rd|th)\b")


def announced_retirements(uris: Iterable[str]) -> dict[str, date]:
    """The last day of every model that the installed anthropic SDK lists as deprecated, by URI; empty, and without the
    second that importing it takes, where none of the `uris` is one of Anthropic's.
    """
    if not any(uri.startswith("anthropic:") for uri in uris):
        return {}
    try:
        from anthropic.resources.messages.messages import DEPRECATED_MODELS
    except ImportError:  # a later SDK may have them elsewhere: the book's own entries stay
        log.info("this anthropic SDK lists no deprecated models; only infra/models.yaml is gone by")
        return {}
    return dates_of(DEPRECATED_MODELS)


def source_of_announced() -> str:
    """Where `announced_retirements` has it from."""
    return f"DEPRECATED_MODELS of the anthropic SDK {version('anthropic')}"


def dates_of(listed: Mapping[str, str]) -> dict[str, date]:
    """Names with dates in words (November 30th, 2026) by URI; what is no date is left out aloud."""
    found: dict[str, date] = {}
    for name, words in listed.items():
        try:
            found[f"anthropic:{name}"] = datetime.strptime(_ORDINAL.sub("", words), "%B %d, %Y").date()
        except ValueError:
            log.info(f"when {name} is retired cannot be read of {words!r}, and is not warned of")
    return found
