"""A data set's folder in Hugging Face's layout: a file or more a split, names of classes in README.md or its JSON.

It asks no hub and runs no loading script.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from typing import cast

from leastwise.errors import BadInput
from leastwise.rows.sources import files
from leastwise.stores import storage
from leastwise.stores.yaml_file import read_yaml

_SPLIT = re.compile(
    r"^(?:.*[-_.])?(train|training|validation|valid|val|dev|test|eval|unlabeled|unlabelled|unsupervised|traffic|requests)"
    r"(?:[-_.].*)?$"
)
CARD, INFOS = "README.md", "dataset_infos.json"
Names = dict[str, dict[str, str]]  # of a column's numbers, by column


def tables_below(folder: str) -> list[str]:
    """The files of a folder that hold tables, in the order of their names; BadInput where there are none, or several
    data sets beside each other.
    """
    found = [uri for uri in storage.files_below(folder) if files.suffix_of(uri) in (*files.KINDS, *files.NO_READER)]
    tables = [
        uri
        for uri in sorted(found)
        if posixpath.basename(uri) not in (INFOS, "dataset_dict.json", "state.json", "dataset_info.json")
        and files.suffix_of(uri) not in files.YAML
    ]
    if not tables:
        raise BadInput(f"{folder}: holds no table; put files ending in {', '.join(files.KINDS)} there")
    homes = {posixpath.dirname(uri) for uri in tables}
    if len(homes) > 1:
        raise BadInput(f"{folder}: holds several data sets ({', '.join(sorted(homes))}); name one of these folders")
    return tables


def split_of(uri: str) -> str:
    """The split that a file is a part of, by its name; empty where it does not say."""
    match = _SPLIT.match(posixpath.basename(uri).rpartition(".")[0].lower())
    return match[1] if match else ""


def class_names(folder: str) -> Names:
    """The names that classes written as numbers have, by column, as the data set's card says."""
    for name, read in ((CARD, _of_card), (INFOS, _of_infos)):
        uri = posixpath.join(folder.rstrip("/"), name)
        if storage.exists(uri) and (found := read(storage.read_bytes(uri), uri)):
            return found
    return {}


def _of_card(body: bytes, uri: str) -> Names:
    """`dataset_info` in the head of a README.md; a list of them where there are several configurations: the first."""
    parts = body.decode("utf-8", "replace").split("---", 2)
    card = read_yaml(parts[1].encode(), uri) if len(parts) == 3 and not parts[0].strip() else None
    info = card.get("dataset_info") if isinstance(card, dict) else None
    info = info[0] if isinstance(info, list) and info else info
    features = info.get("features") if isinstance(info, dict) else None
    names: Names = {}
    for feature in features if isinstance(features, list) else []:
        kind = feature.get("dtype") if isinstance(feature, dict) else None
        held = kind.get("class_label", {}).get("names") if isinstance(kind, dict) else None
        if isinstance(held, dict):
            names[str(feature["name"])] = {str(number): str(name) for number, name in held.items()}
    return names


def _of_infos(body: bytes, uri: str) -> Names:
    try:
        infos = json.loads(body)
    except ValueError as error:
        raise BadInput(f"{uri}: is no JSON ({error}); write it again or remove it") from None
    first: object = next(iter(infos.values()), {}) if isinstance(infos, dict) else {}
    features = cast("Mapping[str, object]", first.get("features", {})) if isinstance(first, dict) else {}
    names: Names = {}
    for column, feature in features.items():
        held = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(held, list):
            names[column] = {str(number): str(name) for number, name in enumerate(held)}
    return names
