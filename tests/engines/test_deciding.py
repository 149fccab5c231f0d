"""A GGUF marked as a decision model: the weights are the same to the byte, and what llama.cpp then tells of each option
is how likely its letter is after the very chat the model knows.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from leastwise.engines.gguf.deciding import KIND, LETTERS, TEMPLATE, marked, template_of
from leastwise.engines.llama_cpp import serve_causal
from leastwise.ladder.rendering import Turn
from leastwise.models.causal_model import tokenizer_of
from leastwise.models.chat import format_chat
from leastwise.stores.gguf_header import read_header

LABELS = ("collection", "discovery", "impact", "execution")
INSTRUCTION, TEXT = "Name the tactic {{ of }} it.", 'The sample "deletes" {% files %}.'


@pytest.fixture(scope="module")
def pair(tiny: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file as it was converted, and marked."""
    (source,) = tiny_gguf.glob("*.gguf")
    plain = tmp_path_factory.mktemp("deciding") / source.name
    plain.hardlink_to(source)
    return plain, marked(plain, tiny)


@pytest.fixture(scope="module")
def ask(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serve_causal(pair[1], name="tiny", log=tmp_path_factory.mktemp("log") / "log") as endpoint:

        def asked(path: str, **body: Any) -> dict[str, Any]:
            key = {"Authorization": f"Bearer {endpoint.api_key}"}
            answer = httpx.post(f"{endpoint.base_url}{path}", json={"model": "tiny"} | body, headers=key, timeout=60)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        yield asked


def decided(ask: Any, labels: tuple[str, ...] = LABELS, **body: Any) -> dict[str, Any]:
    question = {"type": "choice", "instructions": INSTRUCTION, "criteria": dict.fromkeys(labels)}
    return dict(ask("/systemone", **({"state": TEXT, "questions": {"label": question}} | body)))


def test_marking_adds_two_fields_and_changes_no_weight(pair: tuple[Path, Path], tiny: Path) -> None:
    plain, deciding = pair
    before, after = read_header(plain), read_header(deciding)
    assert after.count == before.count + 2 and after.elements == before.elements
    added = {name: value for name, value in after.fields.items() if name not in before.fields}
    assert added == {"llama.decision.type": KIND, TEMPLATE: template_of(tiny)}
    starts = [each.end + -each.end % 32 for each in (before, after)]
    assert plain.read_bytes()[starts[0] :] == deciding.read_bytes()[starts[1] :]
    assert plain.read_bytes()[before.fields_end : before.end] == deciding.read_bytes()[after.fields_end : after.end]


def test_marking_again_finds_the_file(pair: tuple[Path, Path], tiny: Path) -> None:
    stamp = pair[1].stat().st_mtime_ns
    assert marked(pair[0], tiny) == pair[1] and pair[1].stat().st_mtime_ns == stamp
    assert len(list(pair[0].parent.iterdir())) == 2


def test_what_is_told_of_an_option_is_how_likely_its_letter_is_after_the_models_own_chat(ask: Any, tiny: Path) -> None:
    told = decided(ask)
    options = "\n".join(f"{letter}. {label}" for letter, label in zip(LETTERS, LABELS, strict=False))
    turns = [
        Turn(role="system", content=f"{INSTRUCTION}\n{options}\nAnswer with the letter only."),
        Turn(role="user", content=TEXT),
    ]
    chat, tokenizer = format_chat(tiny, turns), tokenizer_of(str(tiny))
    assert told["usage"] == {"input_tokens": len(tokenizer.encode(chat, add_special_tokens=False)), "output_tokens": 0}
    whole = ask("/completions", prompt=chat, max_tokens=1, temperature=0, logprobs=50_000)
    every = {each["token"]: each["logprob"] for each in whole["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
    raw = [math.exp(every[letter]) for letter in LETTERS[: len(LABELS)]]
    found = [told["answers"]["label"]["probabilities"][label] for label in LABELS]
    assert found == pytest.approx([each / sum(raw) for each in raw], abs=0.01)


def test_a_marked_model_chats_and_completes_as_before(pair: tuple[Path, Path], ask: Any, tmp_path: Path) -> None:
    body = {"prompt": "The sample", "max_tokens": 12, "temperature": 0}
    turns = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 12, "temperature": 0}
    with serve_causal(pair[0], name="tiny", log=tmp_path / "log") as endpoint:
        key = {"Authorization": f"Bearer {endpoint.api_key}"}
        for path, sent in (("/completions", body), ("/chat/completions", turns)):
            whole = httpx.post(f"{endpoint.base_url}{path}", json={"model": "tiny"} | sent, headers=key, timeout=60)
            assert whole.json()["choices"] == ask(path, **sent)["choices"]


def test_as_many_options_as_there_are_letters_are_told_apart(ask: Any) -> None:
    labels = tuple(f"label {number}" for number in range(len(LETTERS)))
    likely = decided(ask, labels)["answers"]["label"]["probabilities"]
    assert set(likely) == set(labels) and len(set(likely.values())) > 40
    assert sum(likely.values()) == pytest.approx(1, abs=1e-4)
