"""How a search is drawn, in a wide and in a narrow terminal."""

from io import StringIO

import pytest
from rich.console import Console

from search.config import SearchConfig
from search.gpus import Gpu, read_gpus
from search.progress import Pace, Progress, Status
from search.status_table import Sparkline, duration, status_table

CONFIG = SearchConfig.model_validate(
    {"epochs": 8, "search": {"name": "night", "trials": 20, "reduction_factor": 3}}
)


@pytest.fixture
def progress() -> Progress:
    """Of 20 trials of 8 epochs: hand tuning ended after 8, one after 2, none failed; 10 are open."""
    progress = Progress(CONFIG, Pace(started=0.0, last=1800.0, epochs=50))
    for number in range(12):
        progress.proposed(f"trial_{number:03d}")
    for epoch, score in enumerate((0.05, 0.15, 0.15, 0.25, 0.25, 0.35, 0.35, 0.45), start=1):
        progress.reported("trial_000", epoch, score)
    for epoch, score in ((1, 0.25), (2, 0.25)):
        progress.reported("trial_001", epoch, score)
    for epoch, score in ((1, 0.55), (2, 0.75)):
        progress.reported("trial_002", epoch, score)
    for name, score in (("trial_000", 0.15), ("trial_001", 0.25), ("trial_002", 0.75)):
        progress.arrived(name, 2, score)
    progress.ended("trial_000", "finished")
    progress.ended("trial_001", "pruned")
    return progress


def drawn(status: Status, width: int, *gpus: Gpu) -> list[str]:
    """The lines, with one space for several."""
    console = Console(file=StringIO(), width=width)
    console.print(status_table(CONFIG, status, gpus))
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [" ".join(line.split()) for line in lines]


WHAT_IS_NEVER_BROKEN = [
    "10 running, 1 finished, 1 pruned, 0 failed, 8 to come",
    # 100 epochs an hour; those that ended had 5 on average: 8 are to come, nine of 0 epochs and one
    # of 2 are open: 40 + 45 + 3 epochs, 52.8 minutes
    "night: running, 100 epochs an hour, about 53 min to go",
    # both from 0.05 to 0.75, a step every 0.1
    "best so far trial_002 0.75 \u2586\u2588",
    "hand-tuned trial_000 0.45 \u2581\u2582\u2582\u2583\u2583\u2584\u2584\u2585",
    "GPU 0: 97 % busy, 62.1 of 85.5 GB, H100",
]


def test_in_a_wide_terminal_rungs_and_running_trials_are_side_by_side(progress: Progress) -> None:
    lines = drawn(
        progress.status(active=True), 120, Gpu("H100", 97, 62_100_000_000, 85_500_000_000)
    )
    assert set(WHAT_IS_NEVER_BROKEN) <= set(lines)
    assert "rung (epoch) arrived went on best miou running epoch best miou" in lines
    assert "2 3 3 0.75 trial_002 2/8 0.75" in lines
    assert any(line.endswith(" 2/20 trials ended") for line in lines)


def test_in_a_narrow_terminal_they_are_below_each_other(progress: Progress) -> None:
    lines = drawn(progress.status(active=True), 60, Gpu("H100", 97, 62_100_000_000, 85_500_000_000))
    assert set(WHAT_IS_NEVER_BROKEN) <= set(lines)
    above, below = lines.index("2 3 3 0.75"), lines.index("trial_002 2/8 0.75")
    assert above < below


def test_in_a_very_narrow_terminal_nothing_is_wider_than_it(progress: Progress) -> None:
    assert drawn(progress.status(active=True), 30)


def test_of_many_open_trials_the_first_are_shown(progress: Progress) -> None:
    lines = drawn(progress.status(active=True), 60)
    assert [line for line in lines if line.startswith("trial_0") and line.endswith("-")] == [
        f"trial_{number:03d} 0/8 -" for number in range(3, 10)
    ]
    assert "and 2 more" in lines


def test_a_search_that_is_not_running_has_open_trials(progress: Progress) -> None:
    lines = drawn(progress.status(active=False), 120)
    assert "10 open, 1 finished, 1 pruned, 0 failed, 8 to come" in lines
    assert "night: not running; add --resume to its command and it goes on" in lines


def test_at_the_beginning_there_are_no_empty_tables() -> None:
    lines = drawn(Progress(CONFIG, Pace(0.0, 0.0)).status(active=True), 60)
    assert lines[:2] == ["night: running", "0 running, 0 finished, 0 pruned, 0 failed, 20 to come"]
    assert len(lines) == 3  # and the bar


# --- its parts ---------------------------------------------------------------------------------

EIGHT = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)


@pytest.mark.parametrize(
    ("scores", "epochs", "width", "bars"),
    [
        (EIGHT, 8, 80, "_.-~=+*#"),
        (EIGHT, 8, 4, ".~+#"),  # the last of each two
        (EIGHT[:5], 8, 4, ".~="),  # 1 and 2, 3 and 4, and 5 of 5 and 6
        (EIGHT[:3], 8, 80, "_.-"),  # as long as its epochs
        ((), 8, 80, ""),
        (EIGHT, 8, 3, "-+#"),  # the epochs to 3, to 6 and to 8
    ],
)
def test_a_curve_has_a_bar_an_epoch_or_the_last_of_several(
    scores: tuple[float, ...], epochs: int, width: int, bars: str
) -> None:
    assert Sparkline(scores, 0.0, 7.0, epochs).bars(width, "_.-~=+*#") == bars


def test_a_flat_curve_is_flat() -> None:
    assert Sparkline((0.5, 0.5), 0.5, 0.5, 2).bars(80) == "\u2581\u2581"


def test_where_the_terminal_knows_ascii_only_the_bars_are_ascii(progress: Progress) -> None:
    class AsciiFile(StringIO):
        encoding = "ascii"  # type: ignore[assignment]

    console = Console(file=AsciiFile(), width=60)
    console.print(status_table(CONFIG, progress.status(active=True), []))
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().isascii()


@pytest.mark.parametrize(
    ("hours", "shown"),
    [
        (0.5, "30 min"),
        (0.97, "59 min"),
        (0.99, "1 h 00 min"),
        (1.0, "1 h 00 min"),
        (2.51, "2 h 31 min"),
    ],
)
def test_time_to_go_is_rounded_up_to_minutes(hours: float, shown: str) -> None:
    assert duration(hours) == shown


def test_a_gpu_that_does_not_tell_has_dashes(progress: Progress) -> None:
    lines = drawn(progress.status(active=True), 120, Gpu("A100 MIG", None, None, None))
    assert "GPU 0: -, -, A100 MIG" in lines


def test_gpus_are_those_of_this_machine() -> None:
    """None where there is no NVIDIA driver."""
    for gpu in read_gpus():
        assert gpu.name
        assert gpu.busy is None or 0 <= gpu.busy <= 100
        assert gpu.used is None or gpu.total is None or gpu.used <= gpu.total
