"""Builds the use case us-addresses from the labelled addresses in the source package of `usaddress` (MIT).

`python -m use_cases.build_us_addresses [SOURCE.tar.gz]`. Without an argument pip downloads the pinned source package
from the package index; nothing of it is run. 1,513 real addresses were labelled word by word by people; `train` is
filled up with addresses its authors made from map data. A record has the parts of an address as one string each; words
keep their form but for commas.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from leastwise.errors import BadInput
from leastwise.rows.near_duplicates import near_duplicates, normalised
from leastwise.stores.storage import home, write_bytes

PACKAGE = "usaddress==0.5.16"
REAL, MADE = "training/labeled.xml", "training/synthetic_osm_data_xml.xml"
SIZES = {"test": 400, "gate": 600, "dev": 100}  # of the real ones; what is left trains
MADE_ROWS = 3000
SEED = 20261125
FIELDS = {
    "recipient": ("Recipient", "BuildingName", "LandmarkName"),
    "number": ("AddressNumberPrefix", "AddressNumber", "AddressNumberSuffix"),
    "street": (
        "StreetNamePreDirectional",
        "StreetNamePreModifier",
        "StreetNamePreType",
        "StreetName",
        "StreetNamePostType",
        "StreetNamePostModifier",
        "StreetNamePostDirectional",
    ),
    "unit": ("OccupancyType", "OccupancyIdentifier", "SubaddressType", "SubaddressIdentifier"),
    "box": ("USPSBoxType", "USPSBoxID", "USPSBoxGroupType", "USPSBoxGroupID"),
    "city": ("PlaceName",),
    "state": ("StateName",),
    "zip": ("ZipCode", "ZipPlus4"),
    "country": ("CountryName",),
}
FIELD_OF = {label: field for field, labels in FIELDS.items() for label in labels}


def main(arguments: list[str]) -> int:
    out = home() / "data" / "us-addresses"
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(arguments[0]) if arguments else _downloaded(Path(scratch))
        tables = build(archive)
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_bytes(out / f"{name}.parquet", rows.to_parquet(index=False))
    print(
        f"us-addresses: {', '.join(f'{len(rows):,} {name}' for name, rows in tables.items())} in {out}", file=sys.stderr
    )
    return 0


def build(archive: Path) -> dict[str, pd.DataFrame]:
    """The four splits, no address in two of them, exactly or nearly; always the same rows for the same archive."""
    real, made = (
        _distinct(list(_rows(archive, member, prefix))) for member, prefix in ((REAL, "real"), (MADE, "made"))
    )
    rng = random.Random(SEED)
    rng.shuffle(real)
    rng.shuffle(made)
    splits: dict[str, list[dict[str, Any]]] = {}
    for name, size in SIZES.items():
        splits[name], real = real[:size], real[size:]
    splits["train"] = real + made[:MADE_ROWS]
    order = ("test", "gate", "dev", "train")
    where = [(name, row["id"]) for name in order for row in splits[name]]
    pairs = near_duplicates([row["text"] for name in order for row in splits[name]])
    dropped = {where[pair.other] for pair in pairs if where[pair.one][0] != where[pair.other][0]}
    return {name: pd.DataFrame([row for row in splits[name] if (name, row["id"]) not in dropped]) for name in order}


def _rows(archive: Path, member: str, prefix: str) -> Iterator[dict[str, Any]]:
    with tarfile.open(archive) as files:
        found = next((each for each in files.getmembers() if each.name.endswith(f"/{member}")), None)
        file = files.extractfile(found) if found else None
        if file is None:
            raise BadInput(f"{archive}: holds no {member}; give the source package {PACKAGE}")
        root = ElementTree.parse(file).getroot()  # noqa: S314 (a pinned package's own data)
    for number, address in enumerate(root):
        words = [(FIELD_OF.get(word.tag), (word.text or "").strip()) for word in address]
        record: dict[str, list[str]] = defaultdict(list)
        for field, word in words:
            if field and word.strip(",. "):
                word = word.strip(",")
                record[field].append(word.rstrip(".") if word.rstrip(".").isdigit() else word)
        text = " ".join(word for _, word in words if word)
        if record and text and all(field for field, word in words if word.strip(",. ")):
            yield {
                "id": f"{prefix}-{number}",
                "text": text,
                "label": {name: " ".join(parts) for name, parts in record.items()},
            }


def _distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({normalised(row["text"]): row for row in reversed(rows) if normalised(row["text"])}.values())[::-1]


def _downloaded(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        "usaddress",
        "-d",
        str(folder),
        PACKAGE,
    ]
    try:
        subprocess.run(command, check=True, timeout=600)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise BadInput(
            f"{PACKAGE}: pip could not download its source package; give the path of the .tar.gz instead"
        ) from None
    return next(folder.glob("usaddress-*.tar.gz"))


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except BadInput as error:
        print(f"leastwise: {error}", file=sys.stderr)
        raise SystemExit(2) from None
