"""The confusion matrix as a picture."""

import csv
from pathlib import Path
from typing import Any


def draw_confusion(table: Path) -> Any:
    """A matplotlib figure of the matrix in `table` (truth in rows), coloured by the row's shares."""
    from matplotlib.figure import Figure

    with table.open() as file:
        header, *rows = csv.reader(file)
    classes = header[1:]
    counts = [[int(cell) for cell in row[1:]] for row in rows]
    shares = [[cell / max(1, sum(row)) for cell in row] for row in counts]
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title("Share of each class's pixels, out of fold")
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if share >= 0.005:
                axes.text(
                    x, y, f"{share:.0%}", ha="center", va="center", fontsize=7,
                    color="white" if share > 0.6 else "black",
                )  # fmt: skip
    return figure
