"""Labelled words become records, the same rows each time, and no address is in two splits. The archive is made here."""

import io
import tarfile
from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.rows import expected_answers
from leastwise.rows.use_case_file import load
from use_cases import build_us_addresses
from use_cases.build_us_addresses import MADE, REAL, build

STREETS = ["Oak", "Elm", "Main", "Lake", "Hill", "Park", "Mill", "Pine"]


def address(number: int) -> str:
    parts = {
        "AddressNumber": str(number),
        "StreetName": f"{STREETS[number % 8]}{number}",
        "StreetNamePostType": "St,",
        "PlaceName": f"Town{number},",
        "StateName": "IL",
        "ZipCode": f"{60000 + number}.",
    }
    return "<AddressString>" + " ".join(f"<{tag}>{word}</{tag}>" for tag, word in parts.items()) + "</AddressString>"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(build_us_addresses, "SIZES", {"test": 20, "gate": 30, "dev": 10})
    odd = "<AddressString><NotAddress>see</NotAddress> <AddressNumber>1</AddressNumber></AddressString>"
    members = {
        REAL: "".join(address(n) for n in range(100)) + address(7) + odd,
        MADE: "".join(address(n) for n in range(500, 550)),
    }
    path = tmp_path / "source.tar.gz"
    with tarfile.open(path, "w:gz") as files:
        for name, body in members.items():
            data = f"<AddressCollection>{body}</AddressCollection>".encode()
            info = tarfile.TarInfo(f"usaddress-0.5.16/{name}")
            info.size = len(data)
            files.addfile(info, io.BytesIO(data))
    return path


def test_words_become_fields_and_commas_go(archive: Path) -> None:
    rows = {row["id"]: row for row in build(archive)["train"].to_dict("records")}
    row = rows["made-3"]
    assert row["text"] == f"503 {STREETS[503 % 8]}503 St, Town503, IL 60503." and row["label"]["zip"] == "60503"
    assert (
        row["label"]["street"].endswith(" St") and row["label"]["city"] == "Town503" and row["label"]["number"] == "503"
    )


def test_splits_have_their_sizes_share_nothing_and_are_the_same_each_time(archive: Path) -> None:
    tables = build(archive)
    assert {name: len(rows) for name, rows in tables.items()} == {"test": 20, "gate": 30, "dev": 10, "train": 90}
    texts = [text for rows in tables.values() for text in rows["text"]]
    assert len(set(texts)) == len(texts), "the address that came twice is there once, what is no address is not"
    again = build(archive)
    assert all(tables[name].equals(again[name]) for name in tables)


def test_every_record_keeps_to_the_schema_of_the_use_case(archive: Path, home: Path) -> None:
    task = load("us-addresses").task
    for name, rows in build(archive).items():
        assert len(expected_answers.expected_texts(task, rows["label"], name)) == len(rows)


def test_an_archive_without_the_labels_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz"):
        pass
    with pytest.raises(BadInput, match=r"empty\.tar\.gz: holds no training/labeled\.xml"):
        build(tmp_path / "empty.tar.gz")
