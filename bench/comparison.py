"""One measured comparison, and the bar that it has to clear."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

NOT_MEASURED = "not measured"
COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
}


class UnequalResultsError(AssertionError):
    """Two ways whose results differ are not timed against each other."""


@dataclass(frozen=True)
class Bar:
    """What a ratio (ours / peer) has to be, such as `>= 3`."""

    relation: str
    limit: float

    @classmethod
    def of(cls, text: str) -> "Bar":
        """The inverse of `str`."""
        relation, limit = text.split()
        return cls(relation, float(limit))

    def met(self, ratio: float) -> bool:
        return bool(COMPARE[self.relation](ratio, self.limit))  # numpy has a bool of its own

    def __str__(self) -> str:
        return f"{self.relation} {self.limit:g}"


@dataclass(frozen=True)
class Comparison:
    """`ours` and `peer` are in `unit`; None where the machine lacks what it takes to measure them."""

    name: str
    """Of what is compared; its first word is the bench's."""
    unit: str
    bar: Bar | None
    """None for a figure that is only stated."""
    ours: float | None = None
    peer: float | None = None
    """None for a figure that nothing is compared with: its ratio is `ours` itself."""
    note: str = ""
    """What both did and how it was checked that they did the same; or why it was not measured."""

    @property
    def ratio(self) -> float | None:
        if self.ours is None:
            return None
        return self.ours if self.peer is None else self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """None where there is no bar, or nothing was measured."""
        if self.bar is None or self.ratio is None:
            return None
        return self.bar.met(self.ratio)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ours": self.ours,
            "peer": self.peer,
            "unit": self.unit,
            "ratio": self.ratio,
            "bar": str(self.bar) if self.bar else None,
            "met": self.met,
            "note": self.note,
        }


def table(comparisons: Sequence[Comparison]) -> str:
    """As Markdown: a row for each comparison."""
    lines = [
        "| what | ours | peer | unit | ratio | bar | met |",
        "| --- | ---: | ---: | --- | ---: | --- | --- |",
    ]
    for one in comparisons:
        cells = [one.name, _number(one.ours), _number(one.peer) if one.peer else "", one.unit]
        cells += [_number(one.ratio), str(one.bar or ""), _verdict(one)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def notes(comparisons: Sequence[Comparison]) -> str:
    """As a Markdown list; rows that follow each other and say the same share one."""
    lines = []
    for note, group in groupby(comparisons, key=lambda one: one.note):
        first, *others = group
        count = "one" if len(others) == 1 else len(others)
        more = f", and the {count} after it" if others else ""
        if note:
            lines.append(f"- {first.name}{more}: {note}\n")
    return "".join(lines)


def _number(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _verdict(one: Comparison) -> str:
    if one.ratio is None:
        return NOT_MEASURED
    return {None: "", True: "yes", False: "**no**"}[one.met]
