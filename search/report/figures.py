"""From facts to all figures of the page, in its order. What a run has no data for is left out."""

from search.report.facts import Facts
from search.report.figure import Figure
from search.report.figures_of_effects import draw_effects, draw_importance
from search.report.figures_of_scores import (
    draw_additions,
    draw_classes,
    draw_confusion,
    draw_contenders,
    draw_timeline,
)
from search.report.figures_of_trials import draw_curves, draw_epochs, draw_parallel


def draw_all(facts: Facts) -> dict[str, Figure]:
    """By name."""
    figures = [
        draw_contenders(facts),
        draw_additions(facts),
        *(draw_effects(family, facts.metric) for family in facts.families),
        draw_importance(facts.importances),
        draw_curves(facts),
        draw_epochs(facts),
        draw_parallel(facts),
        *((draw_classes(facts.ensemble), draw_confusion(facts.ensemble)) if facts.ensemble else ()),
        draw_timeline(facts.times),
    ]
    return {figure.name: figure for figure in figures if figure is not None}
