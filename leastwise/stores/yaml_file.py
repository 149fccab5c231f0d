"""Reads a YAML file as plain values; what stands twice, holds itself or is no number is an error with its line.

It knows no field of a use case (see `leastwise.use_case`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import yaml

from leastwise.errors import BadInput

MOST_VALUES = 100_000  # with what aliases repeat: a few lines can stand for billions of values


class _Loader(yaml.SafeLoader):
    """Safe YAML without repeated keys, infinity, NaN, and whole numbers that are read to another base than ten."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """As YAML says, but 010 (read as 8) and 1:30 (read as 90) are errors: hardly anybody means that."""
        number = int(super().construct_yaml_int(node))
        digits = node.value.lstrip("+-").replace("_", "")
        if ":" in digits or (digits != "0" and digits.startswith("0") and digits.isdecimal()):
            raise yaml.MarkedYAMLError(
                problem=f"{node.value} is {number} to YAML; write that, or put it in quotes where it is a text",
                problem_mark=node.start_mark,
            )
        return number

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """As YAML says, but a number that is none is an error."""
        number = float(super().construct_yaml_float(node))
        if not math.isfinite(number):
            raise yaml.MarkedYAMLError(
                problem=f"{node.value} is no number that can be used; write one", problem_mark=node.start_mark
            )
        return number

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """As YAML says, but a key that stands twice is an error, not the last one's."""
        first: dict[object, int] = {}
        for key, _ in node.value:
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode) and name in first:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} stands twice, in lines {first[name]} and {line}; keep one of them",
                    problem_mark=key.start_mark,
                )
            first[name if isinstance(key, yaml.ScalarNode) else key] = line
        made: dict[Hashable, object] = super().construct_mapping(node, deep)
        return made


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def read_yaml(data: bytes, source: str) -> object:
    """The values of a YAML document; BadInput names the source and the line."""
    loader: _Loader | None = None
    try:
        loader = _Loader(data)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, source)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise BadInput(f"{source}: {line}{error.problem or error}") from None
    except (yaml.YAMLError, ValueError, LookupError, OverflowError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{source}: is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise BadInput(f"{source}: is nested too deep; make it flatter") from None
    finally:
        if loader:
            loader.dispose()


def _check_size(node: yaml.Node, source: str) -> None:
    """BadInput for a value that holds itself, or aliases that stand for more values than a use case can have."""
    count, waiting = 0, [(node, frozenset({id(node)}))]
    while waiting:
        each, above = waiting.pop()
        inner = [part for pair in each.value for part in pair] if isinstance(each, yaml.MappingNode) else each.value
        if isinstance(each, yaml.ScalarNode):
            continue
        count += len(inner)
        for part in inner:
            if id(part) in above:
                raise BadInput(f"{source}: line {part.start_mark.line + 1}: holds itself by an alias; write it out")
            waiting.append((part, above | {id(part)}))
        if count > MOST_VALUES:
            raise BadInput(f"{source}: aliases stand for more than {MOST_VALUES:,} values; write out what is needed")
