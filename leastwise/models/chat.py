"""A chat as the text a causal model reads, by its own template. It retrieves and trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leastwise.errors import BadInput
from leastwise.ladder.rendering import Turn
from leastwise.models.causal_model import tokenizer_of


def check_template(tokenizer_dir: Path, uri: str) -> None:
    """BadInput where the model has no chat template that takes an instruction, a text and an answer to be made."""
    from jinja2 import TemplateError

    try:
        text = format_chat(
            tokenizer_dir, [Turn(role="system", content="Instruction."), Turn(role="user", content="Text.")]
        )
    except (TemplateError, ValueError) as error:
        raise BadInput(
            f"model {uri!r}: its chat template cannot be used ({' '.join(str(error).split())[:200]}); name a model "
            "with one that takes a system and a user message"
        ) from None
    if "Text." not in text:
        raise BadInput(f"model {uri!r}: its chat template leaves out the text it is given; name another model")


def format_chat(tokenizer_dir: Path, messages: Sequence[Mapping[str, str] | Turn]) -> str:
    """`messages` (role, content) in the model's chat template, ready for the assistant's answer.

    As in llama.cpp, marks of the template inside a message are not escaped.
    """
    turns = [
        dict(turn) if isinstance(turn, Mapping) else {"role": turn.role, "content": turn.content} for turn in messages
    ]
    return str(tokenizer_of(str(tokenizer_dir)).apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
