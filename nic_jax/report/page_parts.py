"""What the report page is put together from; the template knows how each part looks."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple


class Whisker(NamedTuple):
    """A figure with its interval, drawn on a line; places are shares of the line, 0 … 1."""

    low: float
    middle: float
    high: float
    chance: float


class Shared(NamedTuple):
    """A count, and its share of its row."""

    number: int
    share: float
    right: bool  # what is where it should be


Cell = str | Whisker | Shared


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; cells that are text are escaped by the template.

    Attributes:
        caption: What it shows.
        columns: Their heads.
        rows: As many cells each as there are columns.
        numbers: Columns that are set flush right.
        best: Rows that are set in bold.
        whiskers: The column of `Whisker`s, whose head is the ends of their line; else -1.
        note: Below it.
        title: Over it, where several stand together.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: frozenset[int] = frozenset()
    best: frozenset[int] = frozenset()
    whiskers: int = -1
    note: str = ''
    title: str = ''
    kind: str = 'table'


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        source: A data URI.
        caption: What one sees.
        width: Of the picture, CSS px; wider ones than the page can be moved sideways on a phone.
    """

    source: str
    caption: str
    width: int
    kind: str = 'picture'


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture of a line of a gallery."""

    source: str
    name: str
    told: str = ''


@dataclasses.dataclass(frozen=True)
class Line:
    """One slide of a gallery."""

    slide_id: str
    told: str
    panels: Sequence[Panel]
    link: str = ''  # of its viewer, relative to the page


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Slides below each other, and what was seen in them."""

    title: str
    caption: str
    lines: Sequence[Line]
    kind: str = 'gallery'


@dataclasses.dataclass(frozen=True)
class Folded:
    """Parts that are shown when they are asked for."""

    summary: str
    parts: Sequence['Part']
    kind: str = 'folded'


@dataclasses.dataclass(frozen=True)
class Heading:
    """Of what follows it in a section."""

    text: str
    kind: str = 'heading'


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = 'text'


@dataclasses.dataclass(frozen=True)
class Links:
    """Files beside the page: names, and where they are relative to it."""

    files: Sequence[tuple[str, str]]
    kind: str = 'links'


Part = Table | Picture | Gallery | Folded | Heading | Text | Links


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page with a head of its own.

    Attributes:
        name: Its anchor.
        title: Its head.
        parts: In their order.
    """

    name: str
    title: str
    parts: Sequence[Part]


@dataclasses.dataclass(frozen=True)
class Finding:
    """The figure of a label that a reader looks for first."""

    label_name: str
    metric: str
    figure: str
    interval: str
    told: str
