"""Builds the use case perl-questions from Debian's package `perl-doc` (Artistic or GPL): questions over a manual, with
gold passages.

`python -m use_cases.build_perl_questions [PERL-DOC.deb | FOLDER OF PODS]`. Without an argument `apt-get download`
fetches the package into a scratch folder; nothing of it is installed or run.

- A question is a heading of the FAQ (`=head2` in perlfaq1 to perlfaq9).
- The expected answer is how the FAQ's own answer opens: its first paragraph with the code it announces, or, equally
  right, its first passage. What follows in the FAQ goes deeper and is not asked for.
- Documents are passages of the whole manual, FAQ answers included. They carry no headings: the heading of an FAQ
  answer is the question itself, and finding it would measure nothing. Tables of contents (perlfaq, perltoc) list the
  questions and are left out, as are the pages that are not in English.
- Gold passages are those that hold the opening of the answer, mostly one. Another passage of the same answer is not
  gold.
"""

from __future__ import annotations

import io
import lzma
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from leastwise.errors import BadInput
from leastwise.rows.near_duplicates import near_duplicates
from leastwise.stores.storage import home, write_bytes
from use_cases.pod_passages import Section, is_verbatim, passages, sections

PACKAGE = "perl-doc"
LEFT_OUT = frozenset({"perlfaq", "perltoc", "perlcn", "perljp", "perlko", "perltw"})
QUESTIONS = re.compile(r"perlfaq[1-9]")
SIZES = {"test": 60, "gate": 140, "dev": 50}  # questions; what is left trains
SEED = 20261125
LEAST_CHARACTERS = 20  # a shorter passage says nothing, and a shorter opening answers nothing


def main(arguments: list[str]) -> int:
    out = home() / "data" / "perl-questions"
    with tempfile.TemporaryDirectory() as scratch:
        tables = build(Path(arguments[0]) if arguments else _downloaded(Path(scratch)))
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_bytes(out / f"{name}.parquet", rows.to_parquet(index=False))
    print(
        f"perl-questions: {', '.join(f'{len(rows):,} {name}' for name, rows in tables.items())} in {out}",
        file=sys.stderr,
    )
    return 0


def build(source: Path, *, headings: bool = False) -> dict[str, pd.DataFrame]:
    """The four splits of the questions, and the documents; always the same for the same package.

    `headings` puts its heading before each passage, which gives every question away: only to measure how much.
    """
    found = [section for page, pod in sorted(_pods(source)) for section in sections(page, pod)]
    documents: dict[str, dict[str, str]] = {}  # by text: release notes repeat whole paragraphs
    questions = []
    for section in found:
        ids = [_added(documents, section, text, headings) for text in _texts(section)]
        if (
            QUESTIONS.fullmatch(section.page)
            and section.level == 2
            and (row := _question(section, ids, len(questions)))
        ):
            questions.append(row)
    if not questions:
        raise BadInput(
            f"{source}: holds no questions (=head2 in perlfaq1.pod to perlfaq9.pod); give Debian's {PACKAGE}"
        )
    return _split(questions) | {"documents": pd.DataFrame(list(documents.values()))}


def _texts(section: Section) -> list[str]:
    return [text for text in passages(section.paragraphs) if len(text.strip()) >= LEAST_CHARACTERS]


def _added(documents: dict[str, dict[str, str]], section: Section, text: str, headings: bool) -> str:
    """Id of this passage, which is added where no passage says the same yet."""
    shown = f"{section.heading}\n\n{text}" if headings and section.heading else text
    return documents.setdefault(shown, {"id": f"{section.page}-{len(documents)}", "text": shown})["id"]


def _question(section: Section, ids: list[str], number: int) -> dict[str, Any] | None:
    """One row: question, right answers, ids of the passages that hold the opening; None for an answer without words."""
    texts = _texts(section)
    answer = opening(section.paragraphs)
    if not texts or len(answer) < LEAST_CHARACTERS:
        return None
    gold, reached = [], 0
    end = "\n\n".join(section.paragraphs).find(answer) + len(answer)
    for row_id, text in zip(ids, texts, strict=True):
        if reached < end:
            gold.append(row_id)
        reached += len(text) + 2
    return {
        "id": f"{section.page}-q{number}",
        "text": section.heading,
        "label": list(dict.fromkeys([answer, texts[0]])),
        "gold": gold,
    }


def opening(paragraphs: list[str]) -> str:
    """The first paragraph that is not only a credit in brackets; one that ends in a colon goes on with what
    it announces.
    """
    body = [text for at, text in enumerate(paragraphs) if at or not re.fullmatch(r"\(.*\)\.?", text, re.DOTALL)]
    taken = body[:1]
    while taken and len(taken) < len(body) and _goes_on(taken[-1], body[len(taken)]):
        taken.append(body[len(taken)])
    return "\n\n".join(taken)


def _goes_on(paragraph: str, following: str) -> bool:
    return paragraph.endswith(":") or (is_verbatim(paragraph) and is_verbatim(following))


def _split(questions: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    random.Random(SEED).shuffle(questions)
    pairs = near_duplicates([row["text"] for row in questions])
    again = {pair.other for pair in pairs}
    left = [row for at, row in enumerate(questions) if at not in again]
    tables = {}
    for name, size in SIZES.items():
        tables[name], left = pd.DataFrame(left[:size]), left[size:]
    return tables | {"train": pd.DataFrame(left)}


def _pods(source: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every page that is read."""
    for path, raw in _files(source):
        page = Path(path).stem
        if path.endswith(".pod") and page not in LEFT_OUT:
            yield page, raw.decode("utf-8", errors="replace")


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        yield from ((str(path), path.read_bytes()) for path in sorted(source.rglob("*.pod")))
        return
    if not source.is_file():
        raise BadInput(
            f"{source}: does not exist; give the path of Debian's {PACKAGE} package (.deb), or the folder of its pods"
        )
    with tarfile.open(fileobj=io.BytesIO(_data_of(source))) as files:
        for member in files:
            if member.isfile() and member.name.endswith(".pod") and (file := files.extractfile(member)):
                yield member.name, file.read()


def _data_of(package: Path) -> bytes:
    """The tar of files inside a Debian package, which is an `ar` archive (deb(5)): 60-byte headers, contents
    on even offsets.
    """
    raw, at = package.read_bytes(), 8
    if not raw.startswith(b"!<arch>\n"):
        raise BadInput(f"{package}: is no Debian package; give {PACKAGE}_*.deb, or the folder it was unpacked into")
    while at + 60 <= len(raw):
        name, size = raw[at : at + 16].decode().strip().rstrip("/"), int(raw[at + 48 : at + 58])
        content = raw[at + 60 : at + 60 + size]
        if name in ("data.tar.xz", "data.tar.gz", "data.tar"):
            return lzma.decompress(content) if name.endswith("xz") else content
        if name.startswith("data.tar"):
            raise BadInput(
                f"{package}: {name} cannot be unpacked here; run `dpkg-deb -x {package.name} FOLDER` and give FOLDER"
            )
        at += 60 + size + size % 2
    raise BadInput(f"{package}: holds no data.tar; download it again")


def _downloaded(folder: Path) -> Path:
    try:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True, timeout=600, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise BadInput(
            f"{PACKAGE}: `apt-get download {PACKAGE}` did not work here; take the package from "
            f"packages.debian.org/{PACKAGE} and "
            "give its path, or the folder of an installed perl-doc, such as /usr/share/perl/5.36.0/pod"
        ) from None
    return next(folder.glob(f"{PACKAGE}_*.deb"))


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except BadInput as error:
        print(f"leastwise: {error}", file=sys.stderr)
        raise SystemExit(2) from None
