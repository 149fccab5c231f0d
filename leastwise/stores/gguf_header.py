"""What a GGUF file says of its model before its weights: single values by name, and how many numbers it holds.

It reads no weights and no vocabulary; the gguf package's reader makes an object of every token, which takes seconds.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

_SINGLE = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))  # types, as `struct` names them
_STRING, _ARRAY = 8, 9
_MAGIC = b"GGUF"

Value = str | int | float | bool


@dataclass(frozen=True)
class GgufHeader:
    """`fields`: what is no list; `elements`: the numbers of all tensors together; `count`: of all fields, lists too;
    `fields_end`, `end`: bytes from the start to after the fields, and to after what is said of the tensors.
    """

    fields: dict[str, Value]
    elements: int
    count: int = 0
    fields_end: int = 0
    end: int = 0


def read_header(file: Path) -> GgufHeader:
    """The header of a GGUF file, read once a process; ValueError, naming the file, where it is none or cut short."""
    status = file.stat()
    return _read_once(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _read_once(file: Path, _size: int, _changed: int) -> GgufHeader:
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{file}: is no GGUF file")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return _Reader(content).header()
            except (struct.error, KeyError, UnicodeDecodeError) as error:
                raise ValueError(f"{file}: its header cannot be read ({error!r}); fetch the file again") from None


class _Reader:
    """Goes through a file from its fifth byte."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.at = content, len(_MAGIC)

    def header(self) -> GgufHeader:
        self._single("I")  # the version
        tensors, count = self._single("Q"), self._single("Q")
        fields: dict[str, Value] = {}
        for _ in range(int(count)):
            name, kind = self._text(), self._single("I")
            if kind == _ARRAY:
                self._pass_list()
            else:
                fields[name] = self._text() if kind == _STRING else self._single(_SINGLE[int(kind)])
        fields_end = self.at
        elements = sum(self._tensor() for _ in range(int(tensors)))
        return GgufHeader(fields, elements, int(count), fields_end, self.at)

    def _single(self, code: str) -> int | float | bool:
        value: int | float | bool
        (value,) = struct.unpack_from(f"<{code}", self.content, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def _text(self) -> str:
        length = int(self._single("Q"))
        self.at += length
        return self.content[self.at - length : self.at].decode("utf-8")

    def _pass_list(self) -> None:
        kind, count = self._single("I"), int(self._single("Q"))
        if kind == _STRING:
            at, content, length = self.at, self.content, struct.Struct("<Q").unpack_from
            for _ in range(count):
                at += 8 + length(content, at)[0]
            self.at = at
        elif kind == _ARRAY:
            for _ in range(count):
                self._pass_list()
        else:
            self.at += count * struct.calcsize(f"<{_SINGLE[int(kind)]}")

    def _tensor(self) -> int:
        self._text()
        sizes = [int(self._single("Q")) for _ in range(int(self._single("I")))]
        self._single("I"), self._single("Q")  # its type, and where its numbers start
        return prod(sizes)
