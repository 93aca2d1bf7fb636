"""What the page says in words. Sentences say no more than the numbers do."""

from dataclasses import dataclass

from search.report.effects import Family
from search.report.facts import Facts
from search.report.trainings import Contender
from search.report.trials import TrialFacts, by_rank
from search.significance import Comparison

Setting = tuple[str, str, str]  # key, hand-tuned value, winner's value
COUNTED = ("finished", "pruned", "failed", "open")


@dataclass(frozen=True)
class Headline:
    """A number that is read first."""

    value: str
    error: str
    """± its standard error; empty where it has none."""
    what: str
    detail: str


def score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def signed(value: float | None, error: float | None = None) -> str:
    """With its standard error, where it has one."""
    if value is None:
        return "-"
    return f"{value:+.3f} {give_or_take(error)}".rstrip()


def give_or_take(error: float | None) -> str:
    return "" if error is None else f"± {error:.3f}"


def percent(share: float) -> str:
    return f"{share:.0%}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "not recorded"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


# --- headlines ---------------------------------------------------------------------------------


def headlines(facts: Facts) -> list[Headline]:
    found = [_best(facts)]
    winner = facts.outcome.contender(facts.outcome.winner)
    if winner is not None and winner.against_hand is not None:
        found.append(_gain("best configuration over hand tuning", winner.against_hand))
    if facts.ensemble is not None and facts.ensemble.against_hand is not None:
        found.append(_gain("ensemble over hand tuning", facts.ensemble.against_hand))
    saved = facts.saved
    found.append(
        Headline(
            percent(saved.share),
            "",
            "of the epochs saved",
            f"{saved.trained} trained; to the end it would have been {saved.full}"
            if saved.full
            else "no trial has ended yet",
        )
    )
    ended = ", ".join(f"{n} {state}" for state in COUNTED if (n := facts.count(state)))
    found.append(
        Headline(str(len(facts.trials)), "", "trials" + (" so far" if facts.active else ""), ended)
    )
    return found


def _best(facts: Facts) -> Headline:
    if facts.ensemble is not None:
        value = facts.ensemble.nested[facts.metric]
        return Headline(
            score(value), "", f"{facts.metric} of the ensemble",
            "out of fold, under choices made on the other folds: the score to quote",
        )  # fmt: skip
    winner = facts.outcome.contender(facts.outcome.winner)
    if winner is not None and len(winner.scores) > 1:
        return Headline(
            score(winner.mean), give_or_take(winner.standard_error),
            f"{facts.metric} of {winner.name}", f"mean of {len(winner.scores)} trainings, out of fold",
        )  # fmt: skip
    best = max(facts.trials, key=lambda trial: trial.best or 0.0)
    detail = "its best epoch, on the fold that the search compared on"
    return Headline(score(best.best), "", f"{facts.metric} of {best.name}", detail)


def _gain(what: str, compared: Comparison) -> Headline:
    verdicts = {
        "better": "more than chance",
        "worse": "less, by more than chance",
        "undecided": "within the noise",
    }
    return Headline(
        signed(compared.difference), give_or_take(compared.standard_error), what,
        f"{verdicts[compared.verdict]}; {compared.pairs} paired trainings",
    )  # fmt: skip


# --- who won -----------------------------------------------------------------------------------


def verdicts(facts: Facts) -> list[str]:
    """Sentences on who won, and whether that is more than noise."""
    outcome = facts.outcome
    winner, hand = facts.trial(outcome.winner), facts.hand_tuned
    if winner is None:
        return [_nobody(facts)]
    if hand is None or hand.state == "failed":
        return [f"{winner.name} won. The hand-tuned settings have no score to compare it with."]
    if winner.hand_tuned:
        found = ["The hand-tuned settings won: the search found nothing better."]
        found += _second(facts)
    else:
        found = _against_hand(winner, hand, outcome.contender(winner.name), facts)
    ensemble = facts.ensemble
    if ensemble is not None and ensemble.against_hand is not None:
        found.append(f"The ensemble {_judged(ensemble.against_hand, 'hand tuning')}.")
    if ensemble is not None and ensemble.against_best is not None and not winner.hand_tuned:
        alone = "the best configuration alone"
        found.append(f"It {_judged(ensemble.against_best, alone)}.")
    compared = [c.against_hand for c in outcome.contenders]
    compared += [ensemble.against_hand] if ensemble is not None else []
    if not any(c is not None and c.verdict == "better" for c in compared):
        found.append("Nothing here is better than hand tuning by more than the noise.")
    return found


def _nobody(facts: Facts) -> str:
    hand = facts.hand_tuned
    reached = "" if hand is None or hand.best is None else f"; hand tuning has {score(hand.best)}"
    return f"No trial has run to its end yet, so there is no winner{reached}."


def _second(facts: Facts) -> list[str]:
    others = [c for c in facts.outcome.contenders if not c.hand_tuned and c.against_hand]
    if not others or others[0].against_hand is None:
        return []
    return [f"The next, {others[0].name}, {_judged(others[0].against_hand, 'it')}."]


def _against_hand(
    winner: TrialFacts, hand: TrialFacts, contender: Contender | None, facts: Facts
) -> list[str]:
    compared = contender.against_hand if contender else None
    if contender is None or compared is None or compared.standard_error is None:
        difference = (winner.best or 0.0) - (hand.best or 0.0)
        return [
            f"{winner.name} has {score(winner.best)}, the hand-tuned settings {score(hand.best)} "
            f"({signed(difference)}) on what the search compared on. That is one training each, and "
            "the best of many is partly the luckiest: how much of it is noise cannot be said before "
            "both are trained on more folds."
        ]
    found = [f"{winner.name} won. It {_judged(compared, 'hand tuning')}."]
    unseen = contender.against_hand_unseen
    if unseen is not None and unseen.standard_error is not None:
        folds = ", ".join(map(str, facts.config["search"]["folds"]))
        found.append(
            f"Without fold {folds}, on which the search chose it, it "
            f"{_judged(unseen, 'hand tuning')}."
        )
    return found


def _judged(compared: Comparison, whom: str) -> str:
    """Such as: is ahead of hand tuning by +0.020 ± 0.010 over 5 paired trainings: more than chance."""
    ahead = "ahead of" if compared.difference >= 0 else "behind"
    amount = signed(compared.difference, compared.standard_error)
    start = f"is {ahead} {whom} by {amount} over {compared.pairs} paired trainings"
    if compared.p_holm is None:
        return f"{start}: one pair cannot tell whether that is noise"
    p = f"p = {compared.p_holm:.2g}"
    return f"{start}: " + (
        f"within the noise ({p})" if compared.verdict == "undecided" else f"more than chance ({p})"
    )


def changed_settings(facts: Facts) -> list[Setting]:
    """What the winner does otherwise than hand tuning."""
    winner, hand = facts.trial(facts.outcome.winner), facts.hand_tuned
    if winner is None or hand is None or winner.hand_tuned:
        return []
    keys = dict.fromkeys([*hand.point, *winner.point])
    return [
        (key, setting(hand.point.get(key)), setting(winner.point.get(key)))
        for key in keys
        if hand.point.get(key) != winner.point.get(key)
    ]


def setting(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def best_rows(facts: Facts, count: int = 10) -> list[TrialFacts]:
    return by_rank(facts.trials)[:count]


# --- effects -----------------------------------------------------------------------------------


def noun(key: str) -> str:
    """What a family's effects are of: loss, augmentation, model arch."""
    if key == "augment":
        return "augmentation"
    return key.removesuffix(".name").replace(".", " ").replace("_", " ")


def effects_sentence(family: Family) -> str:
    """Which help, which harm; or that none is shown to."""
    what = noun(family.key)
    said = [
        f"{', '.join(names)} {verdict if len(names) == 1 else verdict.removesuffix('s')}"
        for verdict in ("helps", "harms")
        if (names := [f"“{e.name}”" for e in family.effects if e.verdict == verdict])
    ]
    if said:
        return f"{what.capitalize()}, by the trials of this search: {'; '.join(said)}."
    return f"No {what} is shown to help or to harm by the {family.trials} trials of this search."
