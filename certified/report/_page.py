"""A page as values: sections of text, facts, tables, curves and commands. What draws them is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Block", "Code", "Curve", "Facts", "Items", "Page", "Section", "Table", "Text"]


@dataclass(frozen=True)
class Text:
    """A paragraph; a strong one is a claim."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and values, with a remark to each where it needs one."""

    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """Columns with headings; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Curve:
    """Points (epsilon, delta), drawn with delta on a logarithmic scale; and the point that the document quotes."""

    points: Sequence[tuple[float, float]]
    quoted: tuple[float, float]
    caption: str


@dataclass(frozen=True)
class Code:
    """Commands or text as a machine writes it."""

    text: str


Block = Text | Items | Facts | Table | Curve | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A title, a line under it, and sections."""

    title: str
    subtitle: str
    sections: Sequence[Section]
