"""What may be set of an endpoint: bounds that are held, changes from a shell, keys that are worth their name."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from leastwise.errors import BadInput
from leastwise.part import changed
from leastwise.redaction import HIDDEN, redacted
from leastwise.serving.settings import EndpointSettings, keys_of

KEY = "a-key-of-enough-characters"


def test_changes_from_a_shell_are_read_with_their_bounds() -> None:
    made = changed(EndpointSettings(), 'port=8200, workers=2 challenger_share=0.1,smoke_text="Are you well?"')
    assert (made.port, made.workers, made.challenger_share, made.smoke_text) == (8200, 2, 0.1, "Are you well?")
    assert changed(EndpointSettings(), "") == EndpointSettings()
    assert changed(EndpointSettings(), "traffic_log=").traffic_log == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("port", "'port' is no NAME=VALUE"),
        ("port=99999", "port: Input should be less than or equal to 65535"),
        ("workers=two", "workers: Input should be a valid integer"),
        ("speed=9", "speed.*known are host, port"),
        ("poll_s=60", "poll_s: Input should be less than or equal to 2"),
        ("host=a/b", "host.*no host name"),
        ("challenger_share=nan", "challenger_share"),
    ],
)
def test_a_change_that_cannot_be_made_names_the_setting(words: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        changed(EndpointSettings(), words)


def test_every_setting_says_what_it_is_and_an_unknown_one_is_refused() -> None:
    assert all(field.description for field in EndpointSettings.model_fields.values())
    with pytest.raises(ValidationError):
        EndpointSettings.model_validate({"prot": 1})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "endpoint.example"])
def test_whom_others_can_reach_does_not_open_without_a_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEASTWISE_ENDPOINT_KEYS", raising=False)
    with pytest.raises(BadInput, match="no key is set"):
        keys_of(EndpointSettings(host=host))
    monkeypatch.setenv("LEASTWISE_ENDPOINT_KEYS", KEY)
    assert keys_of(EndpointSettings(host=host)) == (KEY,)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_this_machine_alone_needs_no_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEASTWISE_ENDPOINT_KEYS", raising=False)
    assert keys_of(EndpointSettings(host=host)) == ()


def test_keys_come_from_variable_and_file_and_are_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OTHER_KEYS", f"{KEY}, {KEY}-two")
    file = tmp_path / "keys"
    file.write_text(f"{KEY}-three\n\n{KEY}\n")
    made = EndpointSettings(key_variable="OTHER_KEYS", key_file=str(file))
    assert keys_of(made) == (KEY, f"{KEY}-two", f"{KEY}-three")
    assert redacted(f"said {KEY}-three") == f"said {HIDDEN}"


@pytest.mark.parametrize("key", ["short", "ein-schlüssel-der-lang-genug-ist"])
def test_a_key_that_is_too_weak_is_refused_without_being_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASTWISE_ENDPOINT_KEYS", f"{KEY} {key}")
    with pytest.raises(BadInput, match="key 2 has less than 16 characters") as refused:
        keys_of(EndpointSettings())
    assert key not in str(refused.value)


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"settings\.key_file: .*missing cannot be read"):
        keys_of(EndpointSettings(key_file=str(tmp_path / "missing")))


def test_the_docs_list_every_setting() -> None:
    told = (Path(__file__).parents[2] / "docs" / "serving.md").read_text().partition("## Settings")[2]
    assert [name for name in EndpointSettings.model_fields if f"`{name}`" not in told] == []
