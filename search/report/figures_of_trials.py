"""The search: how its trials learned, which were stopped, what they had in common."""

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from search.report.facts import Facts
from search.report.figure import (
    FAINT,
    GREY,
    HAND,
    NAMES,
    STATES,
    WINNER,
    Figure,
    Tree,
    titled,
    upright,
)
from search.report.trials import TrialFacts
from search.space import Value, key_of

SHOWN_AXES = 9  # of the parallel coordinates, without the score
HEADING = 12  # letters of an axis' heading on a line
Role = tuple[str, str, float]  # name in the legend, colour, width of the line


def role(trial: TrialFacts, winner: str | None) -> Role:
    """Hand tuning and the winner stand out; the others by how they ended."""
    if trial.name == winner:
        return "winner (hand-tuned)" if trial.hand_tuned else "winner", WINNER, 3.0
    if trial.hand_tuned:
        return "hand-tuned", HAND, 3.0
    return NAMES[trial.state], STATES[trial.state], 1.5


def draw_curves(facts: Facts) -> Figure | None:
    """All curves; a cross where a trial was stopped or failed."""
    trials = [trial for trial in facts.trials if trial.curve]
    if not trials:
        return None
    by_role: dict[Role, list[TrialFacts]] = {}
    for trial in trials:
        by_role.setdefault(role(trial, facts.outcome.winner), []).append(trial)
    ordered = sorted(by_role.items(), key=lambda item: item[0][2])  # thick ones on top
    return Figure(
        name="learning_curves",
        title="How every trial learned, and where it was stopped",
        note="Best score so far, by epoch, on the search's fold. Dashed lines are the rungs, from which "
        "on the weaker trials are stopped (ASHA); a cross is the last epoch of a stopped trial.",
        data=[
            *(_curves(members, of_role, facts.outcome.winner) for of_role, members in ordered),
            _crosses([trial for trial in trials if trial.state in ("pruned", "failed")]),
        ],
        layout={
            "shapes": [upright(rung.epoch, dash="dash", width=1.5) for rung in facts.rungs],
            "annotations": [
                {
                    "x": rung.epoch, "y": 1, "yref": "paper", "yanchor": "top", "xanchor": "left",
                    "text": "rung", "showarrow": False, "font": {"size": 11}, "xshift": 2,
                }
                for rung in facts.rungs
            ],
            "xaxis": titled(
                "epoch", tickformat="d", showgrid=False, range=[0.5, facts.epochs * 1.03]
            ),
            "yaxis": titled(f"best {facts.metric} so far", tickformat=".2f"),
        },
        height=460,
    )  # fmt: skip


def _curves(trials: Sequence[TrialFacts], of_role: Role, winner: str | None) -> Tree:
    """One line broken between trials: hundreds of lines of their own would be slow."""
    name, colour, width = of_role
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        x += [*trial.curve, None]
        y += [*trial.curve.values(), None]
        text += [described(trial)] * (len(trial.curve) + 1)
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "text": text,
        "line": {"color": colour, "width": width}, "opacity": 1 if width > 2 else 0.8,
        "hovertemplate": "%{text}<br>epoch %{x}: %{y:.4f}<extra></extra>",
    }  # fmt: skip


def _crosses(trials: Sequence[TrialFacts]) -> Tree:
    return {
        "type": "scatter", "mode": "markers", "showlegend": False,
        "x": [max(trial.curve) for trial in trials],
        "y": [trial.best for trial in trials],
        "text": [described(trial) for trial in trials],
        "marker": {"symbol": "x", "size": 7, "color": [STATES[trial.state] for trial in trials]},
        "hovertemplate": "%{text}<br>%{y:.4f} after epoch %{x}<extra></extra>",
    }  # fmt: skip


def described(trial: TrialFacts) -> str:
    chosen = [str(trial.point[key]) for key in ("model.arch", "loss.name") if key in trial.point]
    return ", ".join([trial.name, *chosen, NAMES[trial.state]])


def draw_epochs(facts: Facts) -> Figure:
    """What each trial trained, and what stopping it saved."""
    left = {
        trial.name: facts.epochs - trial.epochs if trial.state in ("pruned", "finished") else 0
        for trial in facts.trials
    }
    names = [trial.name for trial in facts.trials]
    roles = [role(trial, facts.outcome.winner) for trial in facts.trials]
    bars = [
        {
            "type": "bar", "name": name, "marker": {"color": colour},
            "x": [n for n, (of, _, _) in zip(names, roles, strict=True) if of == name],
            "y": [t.epochs for t, (of, _, _) in zip(facts.trials, roles, strict=True) if of == name],
            "hovertemplate": "%{x}: %{y} epochs<extra></extra>",
        }
        for name, colour in dict.fromkeys((name, colour) for name, colour, _ in roles)
    ]  # fmt: skip
    saved = {
        "type": "bar", "name": "saved", "x": names, "y": [left[name] for name in names],
        "marker": {"color": FAINT, "line": {"color": GREY, "width": 1}},
        "hovertemplate": "%{x}: %{y} epochs saved<extra></extra>",
    }  # fmt: skip
    step = -(-len(names) // 15)  # more numbers than that would overlap on a phone
    return Figure(
        name="epochs",
        title="Epochs trained and saved",
        note=_savings(facts),
        data=[*bars, saved],
        layout={
            "barmode": "stack",
            "legend": {"traceorder": "normal"},
            "bargap": 0.15,
            "xaxis": titled(
                "trial, in the order of proposal",
                type="category", categoryorder="array", categoryarray=names, ticks="",
                ticktext=[str(number) for number in range(0, len(names), step)], tickvals=names[::step],
            ),
            "yaxis": titled("epochs", tickformat="d"),
        },
        height=320,
    )  # fmt: skip


def _savings(facts: Facts) -> str:
    saved = facts.saved
    patience = f", ending what no longer got better {saved.saved_by_patience}"
    return (
        f"{saved.trained} epochs were trained; training all finished and stopped trials to epoch "
        f"{facts.epochs} would have taken {saved.full}. Stopping at rungs saved {saved.saved_by_rungs}"
        f"{patience if saved.saved_by_patience else ''}."
    )


# --- parallel coordinates ----------------------------------------------------------------------


def draw_parallel(facts: Facts) -> Figure | None:
    """A line for each trial over the parameters that matter most. Drawn as plain lines: plotly's own
    needs WebGL, and knows neither conditional parameters nor small screens."""
    axes = shown_axes(facts)
    trials = [trial for trial in facts.trials if trial.best is not None]
    if not axes or not trials:
        return None
    scales = [Axis(key, [trial.point.get(key) for trial in trials]) for key in axes]
    score = Axis(f"best {facts.metric}", [trial.best for trial in trials])
    columns = [*scales, score]
    lines = sorted(trials, key=lambda trial: role(trial, facts.outcome.winner)[2])
    seen: set[str] = set()
    return Figure(
        name="parallel",
        title="What the trials had in common",
        note="Each line is a trial: its choices from left to right, its best score at the right end. "
        "A line is broken where the trial does not have the parameter. "
        + (
            f"The {len(axes)} parameters that stand out most."
            if len(axes) < len(all_keys(facts))
            else "All parameters of the search."
        ),
        data=[_line(trial, columns, facts, seen) for trial in lines],
        layout={
            "shapes": [upright(place, dash="solid") for place in range(len(columns))],
            "annotations": [
                note for place, axis in enumerate(columns) for note in axis.labels(place)
            ],
            "xaxis": {
                "tickvals": list(range(len(columns))), "ticks": "", "showgrid": False,
                "ticktext": [axis.heading for axis in columns],
                "range": [-0.95, len(columns) - 0.55], "tickangle": 0,
            },
            "yaxis": {"visible": False, "range": [-0.1, 1.12]},
        },
        height=520,
        least_width=98 * len(columns),
    )  # fmt: skip


def all_keys(facts: Facts) -> list[str]:
    return list(dict.fromkeys(key for trial in facts.trials for key in trial.point))


def shown_axes(facts: Facts) -> list[str]:
    """By how far their importance is above chance, where that is known; the loss always, first."""
    ranked = sorted(facts.importances.parameters, key=lambda each: each.chance - each.share)
    known = [key_of(each.parameter) for each in ranked]
    keys = list(dict.fromkeys([*known, *all_keys(facts)]))
    keys.sort(key=lambda key: key != "loss.name")
    return keys[:SHOWN_AXES]


class Axis:
    """Values of one parameter, laid out from 0 to 1: numbers by size, on a logarithmic scale where they
    span more than two decades; words and switches evenly."""

    def __init__(self, key: str, values: Sequence[Value | None]) -> None:
        parts = key.removeprefix("augment.").removesuffix(".name").replace("_", " ").split(".")
        self.heading = "<br>".join(line for part in parts for line in wrap(part, HEADING))
        present = [value for value in values if value is not None]
        self._words = sorted({str(v) for v in present if isinstance(v, str | bool)})
        self._numbers = [float(v) for v in present if not isinstance(v, str | bool)]
        low, high = min(self._numbers, default=0.0), max(self._numbers, default=0.0)
        self._log = low > 0 and high / low > 100

    def at(self, value: Value | None) -> float | None:
        """Its height; None of what a trial does not have."""
        if value is None:
            return None
        if isinstance(value, str | bool):
            return self._words.index(str(value)) / max(1, len(self._words) - 1)
        low, high, place = map(self._scaled, (min(self._numbers), max(self._numbers), value))
        return (place - low) / (high - low) if high > low else 0.5

    def _scaled(self, number: float) -> float:
        return math.log(number) if self._log else float(number)

    def labels(self, place: int) -> list[Tree]:
        """Its words, those of the first axis to its left; or its ends."""
        if self._words:
            left = place == 0
            return [
                _note(place, self.at(word), word, xanchor="right" if left else "left",
                      yanchor="middle", xshift=-8 if left else 6)
                for word in self._words
            ]  # fmt: skip
        low, high = min(self._numbers), max(self._numbers)
        ends = [(low, "top"), (high, "bottom")] if high > low else [(low, "bottom")]
        return [
            _note(place, self.at(end), f"{end:.3g}", xanchor="center", yanchor=anchor)
            for end, anchor in ends
        ]


def _note(place: int, height: float | None, text: str, **where: Any) -> Tree:
    return {
        "x": place,
        "y": height,
        "text": text,
        "showarrow": False,
        "font": {"size": 11},
        **where,
    }


def _line(trial: TrialFacts, columns: Sequence[Axis], facts: Facts, seen: set[str]) -> Tree:
    name, colour, width = role(trial, facts.outcome.winner)
    *axes, score = columns
    keys = shown_axes(facts)
    heights = [axis.at(trial.point.get(key)) for axis, key in zip(axes, keys, strict=True)]
    first = name not in seen
    seen.add(name)
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "legendgroup": name,
        "showlegend": first, "x": list(range(len(columns))),
        "y": [*heights, score.at(trial.best)],
        "line": {"color": colour, "width": width},
        "marker": {"size": 4 + width, "color": colour}, "opacity": 1 if width > 2 else 0.65,
        "text": [f"{key}: {shown(trial.point.get(key))}" for key in keys]
        + [f"best {facts.metric}: {shown(trial.best)}"],
        "hovertemplate": f"{described(trial)}<br>%{{text}}<extra></extra>",
    }  # fmt: skip


def shown(value: Value | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
