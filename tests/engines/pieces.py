"""A small tokenizer.model as Gemma has one, and Gemma's chat template, which takes no system role."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from leastwise.engines.gguf.comparison import SYSTEM, TEXTS

GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else "
    "message['role']) + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PIECES: dict[str, Any] = {
    "model_type": "bpe",
    "vocab_size": 2000,
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "user_defined_symbols": ["<start_of_turn>", "<end_of_turn>"],
    "max_sentence_length": 100_000,
    "minloglevel": 2,
}
MARKS = ("pad", "eos", "bos", "unk")  # in Gemma's order


def save_gemma_tokenizer(folder: Path) -> int:
    """Train the pieces, and write beside `tokenizer.model` what transformers makes of it; gives back how many tokens
    there are.
    """
    import sentencepiece
    from transformers import AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    said = "\n".join(page.read_text() for page in sorted((Path(__file__).parents[2] / "docs").glob("*.md")))
    marks = {f"{name}_id": at for at, name in enumerate(MARKS)} | {f"{name}_piece": f"<{name}>" for name in MARKS}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*said.splitlines(), SYSTEM, *TEXTS]),
        model_prefix=str(folder / "tokenizer"),
        **PIECES,
        **marks,
    )
    (folder / "tokenizer.vocab").unlink()
    named = {f"{name}_token": f"<{name}>" for name in MARKS}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GemmaTokenizer", **named}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = GEMMA_TEMPLATE
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
