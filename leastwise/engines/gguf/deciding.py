"""A GGUF file marked as a decision model: the same weights, byte for byte, with the two fields that have llama.cpp
serve them by `/v1/systemone` beside all else (the kind of decision, and a template of the options).

Each option has a letter, and what is told is how likely each letter is as the first token of the answer. Layout:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3. It converts nothing and compares nothing.
"""

from __future__ import annotations

import json
import shutil
import struct
import uuid
from hashlib import sha256
from pathlib import Path

from leastwise.errors import BadInput
from leastwise.ladder.rendering import Turn
from leastwise.models.chat import format_chat
from leastwise.stores.gguf_header import read_header

KIND = "openjev"  # llama.cpp's name for decisions by letters
TEMPLATE = "tokenizer.chat_template.systemone"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_INSTRUCTIONS, _STATE = "leastwise-instructions-7Q", "leastwise-state-7Q"  # words no template has of itself
_TEXT = "({0} if {0} is string else {0} | tojson)"
_OPTIONS = (
    "{% for o in options %}{{ '" + LETTERS + "'[loop.index0] }}. {{ o.key }}"
    "{% if o.description %}: {{ o.description }}{% endif %}{{ '\\n' }}{% endfor %}"
)
_STRING, _COUNT_AT = 8, 16  # a type of fields; where the count of fields stands, after magic, version and tensors


def marked(gguf: Path, tokenizer_dir: Path) -> Path:
    """The file marked, beside the one it is made of, written where it is not there.

    BadInput for a model without a chat template, which is what its options are put into.
    """
    template = template_of(tokenizer_dir)
    target = gguf.with_name(f"{gguf.stem}.{sha256(template.encode()).hexdigest()[:8]}.decide.gguf")
    if not target.exists():
        part = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.gguf")
        try:
            _write(gguf, part, template)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target


def template_of(tokenizer_dir: Path) -> str:
    """The model's own chat with the options after the instruction, as llama.cpp fills it in: in the system's turn where
    the model has one.
    """
    system = f"{_INSTRUCTIONS}Answer with the letter only."
    chat = format_chat(tokenizer_dir, [Turn(role="system", content=system), Turn(role="user", content=_STATE)])
    instructions, state = (_TEXT.format(name) for name in ("instructions", "state"))
    before, _, rest = chat.partition(_INSTRUCTIONS)
    between, _, after = rest.partition(_STATE)
    if not (between and after):
        raise BadInput(f"{tokenizer_dir}: its chat template changes what it is given; it cannot be asked to decide")
    asked = f"{{{{ {instructions} }}}}{{{{ '\\n' }}}}{_OPTIONS}"
    return f"{_literal(before)}{asked}{_literal(between)}{{{{ {state} }}}}{_literal(after)}"


def _literal(text: str) -> str:
    """Text as a template says it, whatever marks of templates are in it."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _write(gguf: Path, target: Path, template: str) -> None:
    """The fields after those that are there; what is said of the tensors stays, for it counts from where they start."""
    header = read_header(gguf)
    architecture = str(header.fields["general.architecture"])
    added = _field(f"{architecture}.decision.type", KIND) + _field(TEMPLATE, template)
    alignment = int(header.fields.get("general.alignment", 32))
    end = header.end + len(added)
    with gguf.open("rb") as source, target.open("wb") as written:
        head = bytearray(source.read(header.end))
        struct.pack_into("<Q", head, _COUNT_AT, header.count + 2)
        written.write(head[: header.fields_end] + added + head[header.fields_end :])
        written.write(bytes(-end % alignment))
        source.seek(header.end + -header.end % alignment)
        shutil.copyfileobj(source, written, 1 << 22)


def _field(name: str, value: str) -> bytes:
    said, text = name.encode(), value.encode()
    return struct.pack("<Q", len(said)) + said + struct.pack("<IQ", _STRING, len(text)) + text
