"""The final choice, the additions, the ensemble by class, and when what ran."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.report.ensembles import EnsembleFacts
from search.report.facts import Facts
from search.report.figure import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    HAND,
    ORANGE,
    PURPLE,
    SHADES,
    SKY,
    STATES,
    WINNER,
    Figure,
    Tree,
    error_bars,
    rows_height,
    titled,
    upright,
)
from search.report.times import Span, Times, lanes
from search.report.trainings import Contender

KINDS = {"soft_vote": "ensemble", "soft_vote_crf": "ensemble with CRF"}
VERDICTS = {"better": BLUE, "worse": ORANGE, "undecided": GREY}


def draw_contenders(facts: Facts) -> Figure | None:
    """Each configuration's trainings, their mean and its standard error."""
    contenders = facts.outcome.contenders[::-1]
    if not contenders:
        return None
    singles = [(c, pair, score) for c in contenders for pair, score in c.scores.items()]
    colours = [_colour(contender, facts.outcome.winner) for contender in contenders]
    errors = [contender.standard_error or 0.0 for contender in contenders]
    return Figure(
        name="final_choice",
        title="The final choice: the best configurations on more folds",
        note="A small mark is one training, scored on photos that it was not trained on. A large one is "
        "the mean with its standard error, which allows for the photos that folds share.",
        data=[
            {
                "type": "scatter", "mode": "markers", "showlegend": False,
                "x": [score for _, _, score in singles],
                "y": [_label(contender) for contender, _, _ in singles],
                "text": [f"fold {pair.replace('/', ', seed ')}" for _, pair, _ in singles],
                "marker": {"color": FAINT, "size": 9, "line": {"color": GREY, "width": 1}},
                "hovertemplate": "%{y}, %{text}: %{x:.4f}<extra></extra>",
            },
            {
                "type": "scatter", "mode": "markers", "showlegend": False,
                "x": [contender.mean for contender in contenders],
                "y": [_label(contender) for contender in contenders],
                "error_x": error_bars(errors, errors),
                "marker": {"color": colours, "size": 13, "symbol": "diamond"},
                "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
            },
        ],
        layout={
            "xaxis": titled(f"{facts.metric} out of fold", tickformat=".2f"),
            "yaxis": {"type": "category", "ticks": ""},
        },
        height=rows_height(len(contenders), 40, 120),
    )  # fmt: skip


def _label(contender: Contender) -> str:
    return f"{contender.name} (hand-tuned)" if contender.hand_tuned else contender.name


def _colour(contender: Contender, winner: str | None) -> str:
    if contender.name == winner:
        return WINNER
    return HAND if contender.hand_tuned else SKY


def draw_additions(facts: Facts) -> Figure | None:
    """Each arm of `launch.py results` against what it is compared with."""
    arms = [
        (arm, measured["compared"])
        for arm in (facts.additions or {}).get("arms", ())
        if (measured := arm["metrics"][facts.metric]) and measured["compared"]
    ][::-1]
    if not arms:
        return None
    ends = [compared["interval"] or [compared["difference"]] * 2 for _, compared in arms]
    return Figure(
        name="additions",
        title="What each addition brings, tried on the same folds and seeds",
        note="Paired differences with their 95 % intervals: an experiment, which settles more than the "
        "effects below. Grey: not shown to be more than chance.",
        data=[
            {
                "type": "scatter", "mode": "markers", "showlegend": False,
                "x": [compared["difference"] for _, compared in arms],
                "y": [arm["name"] for arm, _ in arms],
                "error_x": error_bars(
                    [c["difference"] - low for (_, c), (low, _) in zip(arms, ends, strict=True)],
                    [high - c["difference"] for (_, c), (_, high) in zip(arms, ends, strict=True)],
                ),
                "marker": {
                    "size": 10, "color": [VERDICTS[compared["verdict"]] for _, compared in arms]
                },
                "text": [f"against {arm['against']}" for arm, _ in arms],
                "hovertemplate": "%{y} %{text}: %{x:+.4f}<extra></extra>",
            }
        ],
        layout={
            "shapes": [upright(0, dash="solid")],
            "xaxis": titled(f"difference in {facts.metric}", tickformat="+.3~f"),
            "yaxis": {"type": "category", "ticks": ""},
        },
        height=rows_height(len(arms)),
    )  # fmt: skip


# --- by class ----------------------------------------------------------------------------------


def draw_classes(ensemble: EnsembleFacts) -> Figure:
    """IoU of each class: members on their folds, the best configuration, the ensemble, the CRF."""
    final = ensemble.oof[ensemble.chosen]["iou"]
    classes = sorted(ensemble.classes, key=lambda name: final[name] or 0.0)
    best = next(iter(ensemble.candidates))
    shown = [
        _by_class(
            f"{best}, all its folds", ensemble.candidates[best]["iou"], classes, "circle", SKY
        ),
        *(
            _by_class(KINDS[kind], scores["iou"], classes, symbol, colour)
            for (kind, scores), symbol, colour in zip(
                ensemble.oof.items(), ("square", "diamond"), (GREEN, BLUE), strict=True
            )
        ),
    ]
    return Figure(
        name="classes",
        title="IoU by class: members, ensemble, CRF",
        note="A vertical stroke is one member on its own fold; the other marks are over all photos, out "
        "of fold, at the photos' own size. Members are on fewer photos, so they spread.",
        data=[_members(ensemble, classes), *shown],
        layout={
            "xaxis": titled("IoU", range=[-0.02, 1.02], tickformat=".1f"),
            "yaxis": {
                "type": "category", "ticks": "", "categoryorder": "array", "categoryarray": classes,
            },
        },
        height=rows_height(len(classes), 34, 130),
    )  # fmt: skip


def _members(ensemble: EnsembleFacts, classes: Sequence[str]) -> Tree:
    points = [
        (member, name, scores["iou"][name])
        for member, scores in ensemble.members.items()
        for name in classes
        if scores["iou"][name] is not None
    ]
    return {
        "type": "scatter", "mode": "markers", "name": "one member",
        "x": [iou for _, _, iou in points], "y": [name for _, name, _ in points],
        "text": [member for member, _, _ in points],
        "marker": {"symbol": "line-ns-open", "size": 11, "color": GREY, "line": {"width": 1}},
        "hovertemplate": "%{y}, %{text}: %{x:.3f}<extra></extra>",
    }  # fmt: skip


def _by_class(
    name: str, iou: Mapping[str, Any], classes: Sequence[str], symbol: str, colour: str
) -> Tree:
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [iou[each] for each in classes], "y": list(classes),
        "marker": {"symbol": symbol, "size": 10, "color": colour},
        "hovertemplate": f"%{{y}}, {name}: %{{x:.3f}}<extra></extra>",
    }  # fmt: skip


def draw_confusion(ensemble: EnsembleFacts) -> Figure:
    """Rows are what is there, columns what it is taken for, as percentages of each row."""
    shares = [[100 * cell / max(1, sum(row)) for cell in row] for row in ensemble.confusion]
    texts = [[f"{share:.0f}" if share >= 0.5 else "" for share in row] for row in shares]
    return Figure(
        name="confusion",
        title="What is taken for what",
        note=f"Of the pixels of each class (row), the percentage that the {KINDS[ensemble.chosen]} "
        "takes for each class (column), out of fold. The diagonal is what is found.",
        data=[
            {
                "type": "heatmap", "z": shares, "x": ensemble.classes, "y": ensemble.classes,
                "colorscale": SHADES, "zmin": 0, "zmax": 100, "text": texts, "xgap": 1, "ygap": 1,
                "texttemplate": "%{text}",
                "colorbar": {"title": {"text": "%"}, "thickness": 12, "outlinewidth": 0},
                "hovertemplate": "%{y} taken for %{x}: %{z:.1f} %<extra></extra>",
            }
        ],
        layout={
            "xaxis": titled("prediction", tickangle=-45, ticks="", type="category", showgrid=False),
            "yaxis": titled(
                "truth", autorange="reversed", ticks="", type="category", showgrid=False
            ),
        },
        height=rows_height(len(ensemble.classes), 32, 170),
        least_width=48 * len(ensemble.classes),
    )  # fmt: skip


# --- time --------------------------------------------------------------------------------------


def draw_timeline(times: Times) -> Figure | None:
    """Bars in as many rows as ran at once."""
    if not times.spans:
        return None
    rows = lanes(times.spans)
    unit, seconds = ("hours", 3600) if times.hours > 2 else ("minutes", 60)
    groups: dict[tuple[str, str], list[tuple[Span, int]]] = {}
    for span, row in zip(times.spans, rows, strict=True):
        groups.setdefault(_group(span), []).append((span, row))
    return Figure(
        name="timeline",
        title="When what ran",
        note="From the first trial on, as MLflow was told; each row holds what ran side by side with "
        "the others. What was cut off and taken up again is one bar, its pause too.",
        data=[
            {
                "type": "bar", "orientation": "h", "name": name, "marker": {"color": colour},
                "y": [row + 1 for _, row in members],
                "base": [span.start / seconds for span, _ in members],
                "x": [(span.end - span.start) / seconds for span, _ in members],
                "text": [f"{span.what}, {span.state}" for span, _ in members],
                "textposition": "none",
                "hovertemplate": f"%{{text}}<br>%{{x:.2f}} {unit}<extra></extra>",
            }
            for (name, colour), members in groups.items()
        ],
        layout={
            "barmode": "overlay",
            "bargap": 0.25,
            "xaxis": titled(f"{unit} since the start"),
            "yaxis": titled("side by side", dtick=1, autorange="reversed", ticks="", showgrid=False),
        },
        height=rows_height(max(rows) + 1, 34, 130),
    )  # fmt: skip


def _group(span: Span) -> tuple[str, str]:
    """Name and colour."""
    if span.kind == "trial":
        return f"trial, {span.state}", STATES.get(span.state, GREY)
    if span.kind == "fold":
        return "fold of the final choice", BLUE
    return ("ensemble", GREEN) if span.kind == "ensemble" else ("scoring", PURPLE)
