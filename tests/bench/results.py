"""What a run found: tables, targets met or not, faults; for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Rows under a title.

    Attributes:
        note: How it was measured, in a line.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def text(self) -> str:
        """The table in columns, as Markdown has them."""
        lines = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        lines.insert(1, ["-" * width for width in widths])
        shown = ["| " + " | ".join(map(_padded, line, widths)) + " |" for line in lines]
        return "\n".join([f"## {self.title}", *([self.note] if self.note else []), "", *shown])


@dataclass(frozen=True)
class Check:
    """A target and what was measured.

    Attributes:
        value: Measured; None: it could not be measured here.
        target: The bound.
        unit: Of both.
        at_least: The bound is a lower one.
    """

    name: str
    value: float | None
    target: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool | None:
        """Whether it is met; None: not measured."""
        if self.value is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def row(self) -> tuple[Cell, ...]:
        """As the table of targets shows it."""
        bound = f"{'≥' if self.at_least else '≤'} {_shown(self.target)} {self.unit}"
        if self.value is None:
            return self.name, bound, "not measured", ""
        if self.is_met:
            return self.name, bound, f"{_shown(self.value)} {self.unit}", "met"
        worse = self.target / self.value if self.at_least else self.value / self.target
        return self.name, bound, f"{_shown(self.value)} {self.unit}", f"NOT MET, {worse:.2f} times"


@dataclass
class Results:
    """All of a run.

    Attributes:
        machine: What it ran on.
        faults: What must never happen, however slow the machine: messages lost, viewers refused.
        notes: What could not be measured, and why.
        plot: Cost against viewers as SVG; "" where that was not measured.
    """

    machine: dict[str, str]
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plot: str = ""

    def text(self) -> str:
        """The whole of it for people."""
        parts = [", ".join(f"{name} {value}" for name, value in self.machine.items())]
        parts += [table.text() for table in self.tables]
        if self.checks:
            rows = [check.row() for check in self.checks]
            parts.append(Table("Targets", ("", "target", "measured", ""), rows).text())
        parts += [f"Not measured: {note}" for note in self.notes]
        parts += [f"FAULT: {fault}" for fault in self.faults]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Write `bench.txt`, `bench.json`, and `bench.svg` where there is a plot."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench.txt").write_text(self.text(), "utf-8")
        if self.plot:
            (folder / "bench.svg").write_text(self.plot, "utf-8")
        (folder / "bench.json").write_text(json.dumps(self._plain(), indent=1) + "\n", "utf-8")

    def _plain(self) -> dict[str, Any]:
        checks = [asdict(check) | {"is_met": check.is_met} for check in self.checks]
        plain = asdict(self) | {"checks": checks}
        del plain["plot"]
        return plain


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _padded(text: str, width: int) -> str:
    is_number = text == "-" or text.replace(",", "").replace(".", "").lstrip("-").isdigit()
    return text.rjust(width) if is_number else text.ljust(width)
