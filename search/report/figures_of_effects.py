"""What helps: differences with their intervals, and which parameters matter."""

from search.report.effects import FEWEST, Effect, Family
from search.report.figure import (
    BLUE,
    GREY,
    ORANGE,
    Figure,
    Tree,
    error_bars,
    rows_height,
    titled,
    upright,
)
from search.report.importance import Importances
from search.report.wording import noun

COLOURS = {"helps": BLUE, "harms": ORANGE, "not shown": GREY, "too few": GREY}
SHOWN_PARAMETERS = 15


def draw_effects(family: Family, metric: str) -> Figure | None:
    """A forest plot; those without an interval as open marks."""
    drawn = [effect for effect in family.effects if effect.difference is not None]
    if not drawn:
        return None
    return Figure(
        name=f"effect_{family.key.replace('.', '_')}",
        title=f"Effect of each {noun(family.key)}",
        note=f"Difference of the mean {metric} after epoch {family.epoch} between trials with it and "
        "the others (their numbers in brackets), with its 95 % bootstrap interval. An open mark has "
        f"under {FEWEST} trials on a side, and no interval. Grey: not shown to be more than chance.",
        data=[_forest([e for e in drawn if e.verdict == verdict], verdict) for verdict in COLOURS],
        layout={
            "showlegend": False,
            "shapes": [upright(0, dash="solid")],
            "xaxis": titled(f"difference in {metric}", tickformat="+.3~f"),
            "yaxis": {
                "categoryorder": "array",
                "categoryarray": [_label(effect) for effect in reversed(drawn)],
                "type": "category",
                "ticks": "",
            },
        },
        height=rows_height(len(drawn)),
    )


def _label(effect: Effect) -> str:
    return f"{effect.name} ({effect.trials}:{effect.others})"


def _forest(effects: list[Effect], verdict: str) -> Tree:
    """Those of one verdict; without bars where there are no intervals."""
    differences = [effect.difference or 0.0 for effect in effects]
    ends = [effect.interval or (d, d) for effect, d in zip(effects, differences, strict=True)]
    return {
        "type": "scatter", "mode": "markers", "name": verdict,
        "x": differences, "y": [_label(effect) for effect in effects],
        "error_x": error_bars(
            [d - low for (low, _), d in zip(ends, differences, strict=True)],
            [high - d for (_, high), d in zip(ends, differences, strict=True)],
            COLOURS[verdict],
        )
        | {"visible": verdict != "too few"},
        "marker": {
            "color": COLOURS[verdict], "size": 10,
            "symbol": "circle-open" if verdict == "too few" else "circle",
        },
        "customdata": [
            [effect.contrast, effect.trials, effect.others, verdict] for effect in effects
        ],
        "hovertemplate": "%{y}<br>%{x:+.4f}, %{customdata[0]}<br>%{customdata[1]} trials against "
        "%{customdata[2]}: %{customdata[3]}<extra></extra>",
    }  # fmt: skip


def draw_importance(importances: Importances) -> Figure | None:
    """Bars, with what chance stays below as a mark on each."""
    shown = importances.parameters[:SHOWN_PARAMETERS][::-1]
    if not shown:
        return None
    names = [each.parameter for each in shown]
    return Figure(
        name="importance",
        title="Which parameters matter",
        note=f"PED-ANOVA: how differently the best {importances.best_share:.0%} of "
        f"{importances.trials} trials after epoch {importances.epoch} choose a parameter than all do. "
        "Chance alone stays below the mark in 19 of 20 cases: grey bars are no more than that, and of "
        f"{len(importances.parameters)} parameters about one in 20 is blue by chance.",
        data=[
            {
                "type": "bar", "orientation": "h", "name": "importance", "y": names,
                "x": [each.share for each in shown],
                "marker": {
                    "color": [BLUE if each.share > each.chance else GREY for each in shown]
                },
                "hovertemplate": "%{y}<br>%{x:.1%}<extra></extra>",
            },
            {
                "type": "scatter", "mode": "markers", "name": "chance (95 %)", "y": names,
                "x": [each.chance for each in shown],
                "marker": {"symbol": "line-ns-open", "size": 14, "color": ORANGE,
                           "line": {"width": 3}},
                "hovertemplate": "chance stays below %{x:.1%}<extra></extra>",
            },
        ],
        layout={
            "bargap": 0.35,
            "xaxis": titled("share of all parameters' importance", tickformat=".0%",
                            rangemode="tozero"),
            "yaxis": {"type": "category", "ticks": ""},
        },
        height=rows_height(len(shown), 26, 120),
        least_width=520,
    )  # fmt: skip
