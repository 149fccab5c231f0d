"""What of a text is thinking aloud and what is the answer, by the marks that models put around their thinking."""

from __future__ import annotations

import re

_NAMES = r"think|thinking|thought|reasoning"
_OPEN = rf"(?:<(?:{_NAMES})>|\[THINK\])"
_CLOSE = rf"(?:</(?:{_NAMES})>|\[/THINK\])"
_WHOLE = re.compile(rf"{_OPEN}.*?{_CLOSE}", re.DOTALL | re.IGNORECASE)
_UP_TO_A_CLOSE = re.compile(rf".*{_CLOSE}", re.DOTALL | re.IGNORECASE)
_FROM_AN_OPEN = re.compile(rf"{_OPEN}.*", re.DOTALL | re.IGNORECASE)
_ANY = re.compile(rf"{_OPEN}|{_CLOSE}", re.IGNORECASE)


def without_thinking(text: str) -> str:
    """The answer alone: whole thoughts cut out, all before a lone closing mark (templates open it in the prompt), and
    all after an opening one that is never closed: a thought that did not end is no answer.
    """
    if not shows_thinking(text):
        return text
    rest = _WHOLE.sub("", text)
    return _FROM_AN_OPEN.sub("", _UP_TO_A_CLOSE.sub("", rest)).strip()


def shows_thinking(text: str) -> bool:
    """Whether the text has any mark of thinking."""
    return _ANY.search(text) is not None
