"""What is kept of a campaign, and what has to be run again."""

from pathlib import Path

import pytest

from bench import search_efficiency
from bench.lcbench import load_tasks
from bench.policies import POLICIES
from bench.search_efficiency import SIMULATED_BY, Job, campaign, code
from bench.search_outcomes import BUDGETS, RANDOM_BUDGET
from tests.bench.surrogate import needs_surrogate


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of the files that decide outcomes, all of them empty."""
    for name in (
        *(f"bench/{name}.py" for name in SIMULATED_BY),
        "bench/crf.py",
        "search/space.py",
        "search/scheduler.py",
        "requirements.lock",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gpu.yaml").touch()
    monkeypatch.setattr(search_efficiency, "ROOT", tmp_path)
    monkeypatch.setattr(search_efficiency, "SETTINGS", tmp_path / "gpu.yaml")
    return tmp_path


@pytest.mark.parametrize("changed", ["search/scheduler.py", "gpu.yaml"])
def test_after_a_change_of_ours_only_ours_is_run_again(tree: Path, changed: str) -> None:
    before = {policy: code(policy) for policy in POLICIES}
    (tree / changed).write_text("changed")
    assert [policy for policy in POLICIES if code(policy) != before[policy]] == ["ours"]


@pytest.mark.parametrize("changed", ["bench/simulation.py", "search/space.py", "requirements.lock"])
def test_what_all_are_simulated_with_runs_all_again(tree: Path, changed: str) -> None:
    before = {policy: code(policy) for policy in POLICIES}
    (tree / changed).write_text("changed")
    assert all(code(policy) != before[policy] for policy in POLICIES)


def test_another_bench_runs_none_again(tree: Path) -> None:
    before = {policy: code(policy) for policy in POLICIES}
    (tree / "bench" / "crf.py").write_text("changed")
    assert {policy: code(policy) for policy in POLICIES} == before


@pytest.mark.slow
@needs_surrogate
def test_a_campaign_goes_on_from_what_it_has_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One search of each policy; then ours is lost, and alone is run again, with the same outcome."""
    monkeypatch.setattr(search_efficiency, "KEPT", tmp_path)
    task = load_tasks()[1]
    first = campaign([task], (4,), 1, keep=True)
    kept = {policy: Job(task, policy, 4, 1).file for policy in POLICIES}
    assert {one.policy for one in first} == set(POLICIES)
    assert {*first[0].worth} == {*BUDGETS, RANDOM_BUDGET}
    written = {policy: file.stat().st_mtime_ns for policy, file in kept.items()}
    kept["ours"].unlink()
    assert campaign([task], (4,), 1, keep=True) == first
    assert [name for name in POLICIES if kept[name].stat().st_mtime_ns != written[name]] == ["ours"]
