"""`launch.py report` from top to bottom: read, draw, write, log."""

from pathlib import Path

from search.display import Display
from search.report.facts import Facts, read_facts
from search.report.figure import Figure
from search.report.figures import draw_all
from search.report.page import write_page
from search.report.photos import Gallery, read_gallery
from search.report.png import check_png, write_png
from search.run_folder import RunFolder
from trashseg.errors import TrashSegError


def write_report(run: RunFolder, png: bool = False) -> Path:
    """runs/NAME/report.html, with `png` runs/NAME/figures too; both are logged to the run's parent in
    MLflow, unless another command works on the run.

    Raises ConfigError where no trial has begun, and TrashSegError where PNGs cannot be drawn, before
    anything is written; as the tracker does where MLflow cannot be reached, after that.
    """
    if png:
        check_png()
    facts = read_facts(run)
    figures = draw_all(facts)
    with Display(f"{facts.name} report", 1, "page") as display:
        gallery, problem = look_at_photos(run, facts, display)
        write_page(run.report, facts, figures, gallery, problem)
        display.line(f"{run.report}")
        if png:
            write_png(figures, run.figures)
            display.line(f"{run.figures}: {len(figures)} figures")
        log(run, figures if png else {}, display)
        display.advance()
    return run.report


def look_at_photos(run: RunFolder, facts: Facts, display: Display) -> tuple[Gallery | None, str]:
    """None without an ensemble, and where photos, masks or votes are gone: then with the reason, which
    the page and the terminal say."""
    if facts.ensemble is None:
        return None, ""
    try:
        return read_gallery(run), ""
    except TrashSegError as error:
        display.line(f"without photos: {error}")
        return None, str(error)


def log(run: RunFolder, figures: dict[str, Figure], display: Display) -> None:
    """To the parent in MLflow, which one command at a time may speak to."""
    if run.is_locked():
        display.line(
            "not logged to MLflow: another command works on the run; report again after it"
        )
        return
    from search.tracking import Tracker

    with (
        run.locked(),
        Tracker(run, run.config.search.tracking_uri, warn=display.line).closing() as tracker,
    ):
        if not tracker.has_started("parent"):
            display.line("not logged to MLflow: it knows nothing of this run")
            return
        tracker.log_file("parent", run.report)
        if figures:
            tracker.log_files("parent", run.figures, "figures")
