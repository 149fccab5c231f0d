"""Keys never reach people, logs or the record; ordinary words do."""

import pytest

from leastwise.redaction import hide_all, redacted, without_secrets


def test_secrets_are_taken_out_of_any_text() -> None:
    hide_all({"MY_PROVIDER_KEY": "of-my-own-making", "SHORT_KEY": "none", "HOME": "/home/somebody"})
    secrets = (
        *("of-my-own-making", "sk-abcdefghijklmnop", "AKIA0123456789ABCDEF", "hf_abcdefghijklmnop", "hidden"),
        "eyJhbGciOiJIUzI1NiJ9",
    )
    text = (
        "asked https://me:hidden@host/v1?api_key=of-my-own-making with Bearer eyJhbGciOiJIUzI1NiJ9, "
        "keys sk-abcdefghijklmnop AKIA0123456789ABCDEF hf_abcdefghijklmnop: 401, row 12 of /home/somebody/gate.parquet"
    )
    shown = redacted(text)
    assert not any(secret in shown for secret in secrets)
    assert "https://***@host/v1?api_key=***" in shown
    assert shown.endswith("401, row 12 of /home/somebody/gate.parquet")


@pytest.mark.parametrize(
    "text",
    [
        "counted without its tokenizer: outside ASCII every byte as one",
        "traffic.output_tokens: 123456 is too many; set max_tokens: 512",
        "hf://hf-internal/tiny could not be fetched; none of the keys fits",
    ],
)
def test_what_is_no_secret_is_shown_as_it_is(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ann:s3#cr?t@db.example:5432/mlflow?password=other", "postgresql://db.example:5432/mlflow"),
        ("https://ann@mlflow.example?token=hidden", "https://mlflow.example"),
        ("s3://key:secret@bucket/rows.csv#part", "s3://bucket/rows.csv"),
        ("http://[::1", "http://[::1"),
        ("sqlite:////a@b/ml?flow.db", "sqlite:////a@b/ml?flow.db"),
        ("/a plain/path@home#1.csv", "/a plain/path@home#1.csv"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_secret_wherever_it_stands(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown
