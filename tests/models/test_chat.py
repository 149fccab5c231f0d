"""A chat in the model's own words: whatever its template takes, the whole of the chat is in it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.models.chat import format_chat, takes_system

TURNS = [{"role": "system", "content": "Say the key."}, {"role": "user", "content": "row 1"}]
LOOP = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + LOOP
FORGETS = (
    "{% for m in messages %}{% if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }}{% endif %}{% endfor %}"
)


@pytest.fixture
def templated(tiny: Path, tmp_path: Path) -> Callable[[str | None], Path]:
    """The tokenizer of a model with another template, or none."""

    def made(template: str | None) -> Path:
        folder = tmp_path / str(abs(hash(template)))
        shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.jinja"))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config.pop("chat_template", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        if template:
            (folder / "chat_template.jinja").write_text(template)
        return folder

    return made


@pytest.mark.parametrize("template", [REFUSES, FORGETS], ids=["refuses", "leaves it out"])
def test_without_a_system_role_its_text_opens_the_first_user_turn(
    templated: Callable[[str | None], Path], template: str
):
    folder = templated(template)
    assert not takes_system(folder)
    assert format_chat(folder, TURNS) == "[user]Say the key.\n\nrow 1"
    assert format_chat(folder, TURNS[1:]) == "[user]row 1"


def test_with_one_it_is_left_where_it_is(templated: Callable[[str | None], Path]):
    folder = templated(LOOP)
    assert takes_system(folder) and format_chat(folder, TURNS) == "[system]Say the key.[user]row 1"


def test_a_model_without_a_template_is_bad_input_that_says_so(templated: Callable[[str | None], Path]):
    with pytest.raises(BadInput, match="no chat template"):
        format_chat(templated(None), TURNS)
