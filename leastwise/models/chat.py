"""A chat as the text a causal model reads, by its own template. It retrieves and trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leastwise.ladder.rendering import Turn
from leastwise.models.causal_model import tokenizer_of


def format_chat(tokenizer_dir: Path, messages: Sequence[Mapping[str, str] | Turn]) -> str:
    """`messages` (role, content) in the model's chat template, ready for the assistant's answer.

    As in llama.cpp, marks of the template inside a message are not escaped.
    """
    turns = [
        dict(turn) if isinstance(turn, Mapping) else {"role": turn.role, "content": turn.content} for turn in messages
    ]
    return str(tokenizer_of(str(tokenizer_dir)).apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
