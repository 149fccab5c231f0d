"""A chat as the text a causal model reads, by its own template. It retrieves and trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from leastwise.errors import BadInput
from leastwise.ladder.rendering import Turn
from leastwise.models.causal_model import tokenizer_of

MARK = "leastwise-7Q"  # words no template has of itself


def format_chat(tokenizer_dir: Path, messages: Sequence[Mapping[str, str] | Turn]) -> str:
    """`messages` (role, content) in the model's chat template, ready for the assistant's answer.

    Where the template knows no system role that text goes into the first user turn. BadInput for a model that has no
    template. As in llama.cpp, marks of the template inside a message are not escaped.
    """
    turns = [
        dict(turn) if isinstance(turn, Mapping) else {"role": turn.role, "content": turn.content} for turn in messages
    ]
    has_system = any(turn["role"] == "system" for turn in turns)
    if has_system and not takes_system(tokenizer_dir):
        turns = _without_system(turns)
    return _rendered(tokenizer_dir, turns)


def takes_system(tokenizer_dir: Path) -> bool:
    """Whether the model's template has a place for a system message; some refuse one, some leave it out silently."""
    return _takes_system(str(tokenizer_dir))


@lru_cache(maxsize=8)
def _takes_system(tokenizer_dir: str) -> bool:
    from jinja2.exceptions import TemplateError

    turns = [{"role": "system", "content": MARK}, {"role": "user", "content": "?"}]
    try:
        return MARK in _rendered(Path(tokenizer_dir), turns)
    except TemplateError:
        return False


def _without_system(turns: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [dict(turn) for turn in turns if turn["role"] != "system"]
    if not system:
        return rest
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system}, *rest]
    return [{"role": "user", "content": f"{system}\n\n{rest[0]['content']}"}, *rest[1:]]


def _rendered(tokenizer_dir: Path, turns: Sequence[Mapping[str, str]]) -> str:
    tokenizer = tokenizer_of(str(tokenizer_dir))
    if not tokenizer.chat_template:
        raise BadInput(
            f"{tokenizer_dir}: this model has no chat template, so it was never taught to answer; name its instruct "
            "version, or add chat_template to its tokenizer_config.json"
        )
    return str(tokenizer.apply_chat_template([dict(t) for t in turns], tokenize=False, add_generation_prompt=True))
