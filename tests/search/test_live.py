"""What a search shows in a terminal; test_display.py has what it prints elsewhere."""

import pytest

from search.config import SearchConfig
from search.live import SearchDisplay
from search.progress import Pace, Progress

CONFIG = SearchConfig.model_validate({"epochs": 8, "search": {"name": "night", "trials": 3}})
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor
UP = "\x1b[1A"  # a line up: the table is drawn over


@pytest.fixture
def progress() -> Progress:
    progress = Progress(CONFIG, Pace(0.0, 0.0))
    progress.proposed("trial_000")
    return progress


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich takes what pytest captures for one, of 60 columns and 10 rows."""
    variables = {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "TERM": "xterm"}
    for name, value in {**variables, "COLUMNS": "60", "LINES": "10"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_terminal")
def test_the_table_is_drawn_over_and_lines_are_above_it(
    progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    with SearchDisplay(CONFIG) as display:
        display.show(progress.status(active=True))
        first = capsys.readouterr().out
        display.trial_started("trial_000", {"loss.name": "dice"})
        assert capsys.readouterr().out == ""  # its row in the table says it
        display.trial_ended("trial_000", "failed", "ValueError: [/x]", None)
        second = capsys.readouterr().out
    assert HIDE in first
    assert "1 running" in first
    assert UP not in first
    assert second.startswith("\r\x1b[2K" + UP)
    assert second.index("ValueError: [/x]") < second.index("night: running")
    assert capsys.readouterr().out.rstrip("\n").endswith(SHOW)


@pytest.mark.usefixtures("_terminal")
def test_ctrl_c_leaves_the_last_table_and_a_cursor(
    progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    def be_interrupted() -> None:
        with SearchDisplay(CONFIG) as display:
            display.show(progress.status(active=True))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    out = capsys.readouterr().out
    assert out.count(HIDE) == out.count(SHOW) == 1
    assert "1 running" in out[out.rindex(UP) :]


@pytest.mark.usefixtures("_terminal")
def test_a_table_that_is_higher_than_the_terminal_is_cut(
    progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else each drawing would push the last one up, and flood the terminal."""
    progress.reported("trial_000", 1, 0.5)
    for milestone in range(1, 20):
        progress.arrived("trial_000", milestone, 0.5)
    with SearchDisplay(CONFIG) as display:
        display.show(progress.status(active=True))
        assert len(capsys.readouterr().out.splitlines()) == 10


def test_elsewhere_no_table_is_drawn(
    progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    with SearchDisplay(CONFIG) as display:
        display.show(progress.status(active=True))
    assert capsys.readouterr().out == ""
