"""How many tokens a text has where no tokenizer is at hand: at most, amply for what must fit, and about.

It loads no tokenizer. A byte-level tokenizer never makes more tokens than there are UTF-8 bytes, in any script.
"""

from __future__ import annotations

import string
from collections.abc import Iterable

ENGLISH_CHARS_PER_TOKEN = 4.0
AMPLE_CHARS_PER_TOKEN = 3.0  # below every tokenizer's average for English, so that what is let through does fit
CHOICE_TOKENS = 32  # `{"label": ""}` around a label: llama.cpp's grammar allows line breaks and spaces in it
OPTION_TOKENS = 12  # around each option of a decision: its letter or key, quotes, an empty description
TEMPLATE_TOKENS = (64, 16)  # a generous allowance for the chat template: per request, per message
_LETTERS = string.ascii_letters.encode() + b" "
_ASCII = bytes(range(128))
_LETTERS_PER_TOKEN = 5.0  # of English without its digits and marks: up to one in six they are within the average
_LIKELY_BYTES_PER_TOKEN = 3.0  # outside ASCII: a Chinese character a token, a Cyrillic letter two thirds of one


def most_tokens(text: str) -> int:
    """An upper limit of a text's tokens by any byte-level tokenizer."""
    return len(_bytes(text))


def most_request_tokens(contents: Iterable[str], constraint: str = "") -> int:
    """An upper limit of the tokens of a request with these messages, held to a schema or choices written like this."""
    per_request, per_message = TEMPLATE_TOKENS
    return per_request + most_tokens(constraint) + sum(most_tokens(each) + per_message for each in contents)


def ample_tokens(text: str, chars_per_token: float = AMPLE_CHARS_PER_TOKEN) -> float:
    """What a text that must fit is counted at: English at `chars_per_token`, each digit and mark beyond what English
    has of them as a token, each byte outside ASCII as one (an upper limit).
    """
    data = _bytes(text)
    foreign = len(data.translate(None, _ASCII))
    letters = len(data) - len(data.translate(None, _LETTERS))
    marks = len(data) - foreign - letters
    return max((letters + marks) / chars_per_token, letters / _LETTERS_PER_TOKEN + marks) + foreign


def likely_tokens(text: str) -> float:
    """About how many tokens a text has."""
    data = _bytes(text)
    foreign = len(data.translate(None, _ASCII))
    return (len(data) - foreign) / ENGLISH_CHARS_PER_TOKEN + foreign / _LIKELY_BYTES_PER_TOKEN


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
