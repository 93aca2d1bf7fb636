"""results.md: what was tried, what it came to, and what did not help."""

from collections.abc import Sequence

from search.ablation_results import (
    GOAL,
    METRICS,
    ArmResult,
    Measured,
    Results,
    reaches_goal,
)
from search.significance import Comparison

VERDICTS = {"better": "helps", "worse": "harms", "undecided": "not shown to help"}


def to_markdown(results: Results) -> str:
    return "\n\n".join(
        [
            "# What helped, and what did not",
            introduction(results),
            "## Trained anew",
            table([arm for arm in results.arms if arm.group == "training"]),
            winner(results),
            "## Done to the votes, nothing trained",
            table([arm for arm in results.arms if arm.group == "votes"]),
            "## All of it together",
            table([arm for arm in results.arms if arm.group == "together"]),
            goal(results),
            "## What did not help",
            did_not_help(results.arms),
            "## All photos at once",
            "The scores above are means over folds; here the pixels of all photos are counted "
            "together, as a competition does. One seed; IoU by class.",
            classes([arm for arm in results.arms if arm.pooled]),
        ]
    ) + "\n"  # fmt: skip


def introduction(results: Results) -> str:
    ended = ", ".join(f"{count} {state}" for state, count in results.trials.items())
    return (
        f"Made by `make results`: {results.photos} photos, {results.folds} folds, seeds "
        f"{', '.join(map(str, results.seeds))}; {results.architecture} on {results.encoder}, "
        f"{results.epochs} epochs at {results.image_size} px for each training. The search ran "
        f"{sum(results.trials.values())} trials ({ended}).\n\n"
        "Scores are out of fold, at the photos' own size, as mean ± standard error over folds and "
        "seeds. Differences are paired by fold and seed. Each training is scored with the weights of "
        "its best epoch on the fold, which flatters all of them alike; the search and the final choice "
        f"have seen the folds as well. Verdicts are those of a {results.test}; variants are all that "
        "are compared with the same."
    )


# --- tables ------------------------------------------------------------------------------------


def table(arms: Sequence[ArmResult]) -> str:
    head = ["", "what", "scored", *METRICS, "against", *(f"{metric} gained" for metric in METRICS)]
    rows = [
        [
            arm.name,
            arm.what,
            f"{arm.scored}" + (f" ({arm.failed} failed)" if arm.failed else ""),
            *(mean(arm.metrics[metric]) for metric in METRICS),
            arm.against or "",
            *(gained(arm.metrics[metric]) for metric in METRICS),
        ]
        for arm in arms
    ]
    return lines([head, ["---"] * len(head), *rows])


def mean(measured: Measured | None) -> str:
    if measured is None:
        return "-"
    return f"{measured.mean:.4f}" + plus_minus(measured.standard_error)


def gained(measured: Measured | None) -> str:
    if measured is None or measured.compared is None:
        return ""
    compared = measured.compared
    change = f"{compared.difference:+.4f}{plus_minus(compared.standard_error)}"
    return f"{change}, {VERDICTS[compared.verdict]}"


def plus_minus(error: float | None) -> str:
    return "" if error is None else f" ± {error:.4f}"


def classes(arms: Sequence[ArmResult]) -> str:
    names = list(arms[0].pooled["iou"]) if arms and arms[0].pooled else []
    head = ["", *METRICS, *names]
    rows = [
        [
            arm.name,
            *(f"{arm.pooled[metric]:.4f}" for metric in METRICS),
            *("-" if iou is None else f"{iou:.3f}" for iou in arm.pooled["iou"].values()),
        ]
        for arm in arms
        if arm.pooled
    ]
    return lines([head, ["---"] * len(head), *rows])


def lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


# --- sentences ---------------------------------------------------------------------------------


def winner(results: Results) -> str:
    """Whether the search's best is another configuration than the hand tuning."""
    hand, searched = results.arms[:2]
    if hand.what == searched.what:
        return (
            "The final choice, over more folds, kept the hand tuning: no other finalist of the search "
            "was better there."
        )
    return (
        "The search's row is the configuration that the final choice, over more folds, put first."
    )


def goal(results: Results) -> str:
    """Whether everything together is `GOAL` better than hand tuning, beyond two standard errors."""
    [whole] = [arm for arm in results.arms if arm.group == "together"]
    compared = comparison(whole, "miou")
    if compared is None:
        return "Nothing to compare: hand tuning or the ensemble has no scores."
    met = "met" if reaches_goal(compared) else "not met"
    return (
        f"The goal, {GOAL:g} `miou` more than hand tuning and beyond two standard errors, is {met}: "
        f"{compared.difference:+.4f}{plus_minus(compared.standard_error)} over {compared.pairs} folds."
    )


def did_not_help(arms: Sequence[ArmResult]) -> str:
    """Everything without a gain in `miou` that is more than chance."""
    found = [
        f"- {arm.name}: " + "; ".join(f"`{key}` {gained(arm.metrics[key])}" for key in METRICS)
        for arm in arms
        if (compared := comparison(arm, "miou")) is not None and compared.verdict != "better"
    ]
    return "\n".join(found) or "Everything that was tried helped."


def comparison(arm: ArmResult, metric: str) -> Comparison | None:
    measured = arm.metrics[metric]
    return measured.compared if measured else None
