"""Where a run keeps what it leaves, and how it is found again."""

import subprocess
import sys
from pathlib import Path

import pytest

from search.config import SearchConfig, load_search_config
from search.run_folder import RunFolder, new_run_folder, open_run_folder, photos_of
from search.space import load_space
from trashseg.config_file import write_yaml
from trashseg.data.coco import load_coco
from trashseg.data.folds import stratify
from trashseg.errors import ConfigError, TrashSegError

ROOT = Path(__file__).parent.parent.parent


def make_config(storage: Path, name: str, data: Path | str = "data") -> SearchConfig:
    return load_search_config(
        None,
        [f"search.name={name}", f"search.storage={storage}", f"search.data_dir={data}"],
    )


def test_what_is_written_is_read_back_equal(tmp_path: Path, sample: Path) -> None:
    config, space = make_config(tmp_path, "night", sample), load_space("optim")
    dataset = load_coco(sample)
    folds = stratify(dataset, 5, 0)
    new_run_folder(config).create(config, space, dataset, folds)
    run = open_run_folder("night", tmp_path)
    assert run.config == config
    assert run.space.parameters == space.parameters
    assert (run.folds(run.dataset()).fold_of == folds.fold_of).all()


def test_the_photos_of_a_model_are_those_of_its_run_while_they_are_there(
    tmp_path: Path, sample: Path
) -> None:
    for name, data in (("here", sample), ("gone", tmp_path / "none")):
        config = make_config(tmp_path, name, data)
        write_yaml(tmp_path / name / "search.yaml", config.model_dump(mode="json"))
    assert photos_of(tmp_path / "here" / "ensemble") == sample
    assert photos_of(tmp_path / "here" / "folds" / "0" / "1") == sample
    assert photos_of(tmp_path / "gone" / "ensemble") is None
    assert photos_of(tmp_path / "elsewhere" / "fold") is None


def test_a_new_run_writes_nothing_before_it_is_created(tmp_path: Path) -> None:
    run = new_run_folder(make_config(tmp_path / "runs", "night"))
    assert run.path == tmp_path / "runs" / "night"
    assert list(tmp_path.iterdir()) == []


def test_an_existing_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    with pytest.raises(
        ConfigError, match=r"night: a run of this name exists: add --resume to go on"
    ):
        new_run_folder(make_config(tmp_path, "night"))


def test_an_unknown_name_is_told_the_nearest(tmp_path: Path) -> None:
    for name in ("night", "morning"):
        write_yaml(tmp_path / name / "search.yaml", {})
    with pytest.raises(ConfigError, match=r"--name nigth: no such run in .*did you mean 'night'\?"):
        open_run_folder("nigth", tmp_path)
    with pytest.raises(ConfigError, match=r"--name zzz: .*choose one of morning, night"):
        open_run_folder("zzz", tmp_path)


@pytest.mark.parametrize("exists", [True, False])
def test_a_storage_without_runs_says_how_to_start(tmp_path: Path, exists: bool) -> None:
    storage = tmp_path / "runs"
    if exists:
        (storage / "half").mkdir(parents=True)  # a folder that is no run
    with pytest.raises(ConfigError, match=r"has no runs, start with launch\.py search"):
        open_run_folder("half", storage)


def test_a_run_is_whole_or_not_there(
    tmp_path: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, "night", sample)
    dataset = load_coco(sample)
    folds = stratify(dataset, 5, 0)

    def keep(self: RunFolder, config: SearchConfig) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "keep", keep)
    with pytest.raises(KeyboardInterrupt):
        new_run_folder(config).create(config, load_space("optim"), dataset, folds)
    assert list(tmp_path.iterdir()) == []


def test_only_one_command_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "night")
    assert not run.is_locked()
    with run.locked():
        assert RunFolder(tmp_path / "night").is_locked()
        with (
            pytest.raises(TrashSegError, match="night: another command works on this run: wait"),
            RunFolder(tmp_path / "night").locked(),
        ):
            raise AssertionError("two at once")
        with RunFolder(tmp_path / "noon").locked():
            assert run.is_locked()
    assert not run.is_locked()


def test_a_killed_command_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from search.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print('locked', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "night")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert RunFolder(tmp_path / "night").is_locked()
        process.kill()
        process.wait()
        assert not RunFolder(tmp_path / "night").is_locked()
