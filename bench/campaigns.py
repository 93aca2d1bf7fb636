"""What takes longer to measure than `make bench` may: each campaign, a command of its own, keeps its
comparisons in bench/campaigns.json, and the table shows them with their date, and with their machine
where it is another one than the table's."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.comparison import Bar, Comparison
from trashseg.files import write_text

FILE = Path(__file__).parent / "campaigns.json"


def keep(command: str, comparisons: Sequence[Comparison]) -> None:
    """What `command` has measured, instead of what it had before."""
    campaign = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine.describe(),
        "comparisons": [one.as_json() for one in comparisons],
    }
    write_text(FILE, json.dumps({**_read(), command: campaign}, indent=1) + "\n")


def kept(measured: Sequence[Comparison]) -> list[Comparison]:
    """What campaigns have measured, but for what is among `measured`."""
    names = {one.name for one in measured}
    here = machine.describe()
    return [
        _comparison(row, _source(command, campaign, here))
        for command, campaign in _read().items()
        for row in campaign["comparisons"]
        if row["name"] not in names
    ]


def _read() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text())) if FILE.is_file() else {}


def _source(command: str, campaign: dict[str, Any], here: str) -> str:
    """The figures may be another machine's than `here`, and of other packages."""
    where = "such a machine" if campaign["machine"] == here else campaign["machine"]
    return f"`{command}`, {campaign['date']}, {where}"


def _comparison(row: dict[str, Any], source: str) -> Comparison:
    return Comparison(
        row["name"],
        row["unit"],
        Bar.of(row["bar"]) if row["bar"] else None,
        row["ours"],
        row["peer"],
        f"{source}: {row['note']}" if row["note"] else source,
    )
