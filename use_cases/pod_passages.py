"""Perl's documentation format (pod) as plain text: sections, their paragraphs, and passages of a bounded size.

It knows what the manual uses of perlpodspec, not all of it: tables and other formats between `=begin` and `=end` are
left out, and an unbalanced formatting code stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

PASSAGE_CHARACTERS = 800  # about 200 tokens of prose; the encoder reads 256
_ESCAPES = {"lt": "<", "gt": ">", "verbar": "|", "sol": "/", "quot": '"', "amp": "&"}
_DOUBLED = re.compile(r"([A-Z])(<<+)\s+(.*?)\s+(>>+)", re.DOTALL)
_INNERMOST = re.compile(r"([A-Z])<([^<>]*)>")
_MARK = re.compile(r"[*o]|\(?\d+[.)]?")
_HIDDEN = str.maketrans("<>", "\x01\x02")  # brackets that are text, while codes around them are still open
_SHOWN = str.maketrans("\x01\x02", "<>")


@dataclass
class Section:
    """A heading of a page (its level as in =head1) and the paragraphs up to the next one; verbatim ones keep
    their indent.
    """

    page: str
    level: int
    heading: str
    paragraphs: list[str] = field(default_factory=list)


def sections(page: str, pod: str) -> list[Section]:
    """Every section of one page in order, those without text too; what comes before the first heading has an
    empty one.
    """
    found, left_out, mark = [Section(page, 0, "")], False, ""
    for block in re.split(r"\n[ \t]*\n", pod.replace("\r\n", "\n")):
        command = re.match(r"\s*=([a-zA-Z]\w*)[ \t]*(.*)", block, re.DOTALL)
        name, words = (command[1], command[2]) if command else ("", block)
        if name in ("begin", "end"):
            left_out = name == "begin"
        elif left_out or name in ("for", "cut", "pod", "encoding", "over", "back") or not block.strip():
            continue
        elif name.startswith("head"):
            found.append(Section(page, int(name[4:] or 1), plain(words)))
        elif name == "item" and _MARK.fullmatch(plain(words)):
            mark = f"{plain(words)} "  # stands before the paragraph it marks
        elif text := block.strip("\n").expandtabs() if not name and _is_indented(block) else mark + plain(words):
            found[-1].paragraphs.append(text)
            mark = ""
    return found


def _is_indented(block: str) -> bool:
    return block.lstrip("\n").startswith((" ", "\t"))


def plain(text: str) -> str:
    """A paragraph without formatting codes and line breaks; what a code only indexes (X, Z) is gone."""
    text = _DOUBLED.sub(lambda code: _rendered(code[1], code[3].translate(_HIDDEN)), text)
    while (shown := _INNERMOST.sub(lambda code: _rendered(code[1], code[2]), text)) != text:
        text = shown
    return " ".join(text.translate(_SHOWN).split())


def _rendered(code: str, content: str) -> str:
    if code in "XZ":
        return ""
    if code == "E":
        return _ESCAPES.get(content, _character(content)).translate(_HIDDEN)
    return _linked(content) if code == "L" else content


def _character(name: str) -> str:
    import html

    if name.isdigit():
        return chr(int(name))
    return chr(int(name, 16)) if re.fullmatch(r"0x[0-9a-fA-F]+", name) else html.unescape(f"&{name};")


def _linked(content: str) -> str:
    """The words of a link; without words of its own its target as one would say it."""
    words, bar, target = content.partition("|")
    if bar or re.match(r"\w+://|mailto:", content):
        return words
    page, slash, part = content.partition("/")
    part = part.strip('"')
    return f"{part} in {page}" if slash and page else part if slash else target or page


def is_verbatim(paragraph: str) -> bool:
    """Whether a paragraph is code or other text set as it is."""
    return paragraph[0] in " \t"


def passages(paragraphs: list[str], limit: int = PASSAGE_CHARACTERS) -> list[str]:
    """Paragraphs of one section joined into as few passages of at most `limit` characters as their order allows.

    A longer paragraph is split after sentences (verbatim: lines); only a sentence or line longer than `limit` is cut
    within.
    """
    made: list[str] = []
    for piece in (piece for paragraph in paragraphs for piece in _pieces(paragraph, limit)):
        if made and len(made[-1]) + 2 + len(piece) <= limit:
            made[-1] += f"\n\n{piece}"
        else:
            made.append(piece)
    return made


def _pieces(paragraph: str, limit: int) -> Iterator[str]:
    if len(paragraph) <= limit:
        yield paragraph
        return
    joint = "\n" if is_verbatim(paragraph) else " "
    parts = paragraph.split("\n") if is_verbatim(paragraph) else re.split(r"(?<=[.!?:;])\s", paragraph)
    held = ""
    for part in (whole[at : at + limit] for whole in parts for at in range(0, max(len(whole), 1), limit)):
        if held and len(held) + 1 + len(part) > limit:
            yield held
            held = part
        else:
            held = f"{held}{joint}{part}" if held else part
    yield held
