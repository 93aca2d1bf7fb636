"""A search file is a training file with a `search:` section; both are checked together."""

from pathlib import Path

import pytest
import yaml

from search.config import SearchConfig, load_search_config
from trashseg.config import TrainConfig
from trashseg.config_file import load_train_config, validate, write_yaml
from trashseg.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
SEARCH_FILES = sorted(CONFIGS.glob("*.yaml"))


def test_the_defaults_are_the_training_defaults_and_a_search_section() -> None:
    config = load_search_config(None)
    assert config.train == TrainConfig()
    folders = {"data_dir", "storage", "tracking_uri"}
    defaults = SearchConfig().search.model_dump(exclude=folders)
    assert config.search.model_dump(exclude=folders) == defaults
    assert config.crf == SearchConfig().crf


def test_folders_and_the_sqlite_file_are_kept_as_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_search_config(None, ["search.name=x", "search.data_dir=photos"])
    assert config.search.data_dir == str(tmp_path / "photos")
    assert config.search.storage == str(tmp_path / "runs")
    assert config.search.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    server = load_search_config(None, ["search.tracking_uri=http://host:5000"])
    assert server.search.tracking_uri == "http://host:5000"


@pytest.mark.parametrize("file", SEARCH_FILES, ids=lambda file: file.stem)
def test_every_shipped_file_loads(file: Path) -> None:
    found = load_search_config(file).search.model_dump(mode="json")
    said = yaml.safe_load(file.read_text()).get("search", {})
    assert {key: found[key] for key in said} == said


def test_a_name_on_the_command_line_keeps_the_files_other_search_settings(tmp_path: Path) -> None:
    """Elsewhere `name` picks a variant, whose keys go with it; here it is a name."""
    file = tmp_path / "small.yaml"
    file.write_text("search: {name: small, trials: 4, grace_period: 2}\n")
    config = load_search_config(file, ["search.name=other"])
    assert (config.search.name, config.search.trials, config.search.grace_period) == ("other", 4, 2)


def test_a_file_holds_training_keys_beside_a_search_section(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        "epochs: 9\nloss: {name: focal, gamma: 3.0}\n"
        "search: {trials: 4, grace_period: 2}\ncrf: {iterations: 5}\n"
    )
    config = load_search_config(file)
    assert (config.epochs, config.search.trials, config.crf.iterations) == (9, 4, 5)
    assert config.train.loss.model_dump() == {
        "name": "focal", "gamma": 3.0, "class_weights": "none"
    }  # fmt: skip
    assert config.search.folds == SearchConfig().search.folds == (0,)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text("epochs: 9\nsearch: {trials: 4}\n")
    config = load_search_config(file, ["search.trials=6", "optim.decoder_lr=3e-3"])
    assert (config.epochs, config.search.trials, config.optim.decoder_lr) == (9, 6, 3e-3)


def test_a_recipe_is_a_search_file_too() -> None:
    for recipe in sorted((CONFIGS / "recipes").glob("*.yaml")):
        assert load_search_config(recipe).train == load_train_config(recipe)


def test_the_training_configuration_has_no_search_keys() -> None:
    train = load_search_config(
        None,
        [
            "seed=5",
            "search.seed=9",
            "crf.iterations=2",
            "selection_per_class=true",
            "logit_adjustment=[]",
            "by_object=false",
        ],
    ).train
    assert type(train) is TrainConfig
    assert set(train.model_dump()) == set(TrainConfig.model_fields)
    assert train.seed == 5


@pytest.mark.parametrize("metric", ["miou", "miou_image"])
def test_the_score_is_the_best_epochs_metric(metric: str) -> None:
    assert load_search_config(None, [f"metric={metric}"]).score_key == f"best_{metric}"


# --- what is refused ---------------------------------------------------------------------------


def test_a_grace_period_longer_than_a_trial_is_refused() -> None:
    message = r"search\.grace_period \(5\) is longer than a trial \(epochs: 4\); lower it or raise"
    with pytest.raises(ConfigError, match=message):
        load_search_config(None, ["epochs=4", "search.grace_period=5"])


def test_a_grace_period_as_long_as_a_trial_is_allowed() -> None:
    assert load_search_config(None, ["epochs=4", "search.grace_period=4"]).epochs == 4


def test_a_fold_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"search\.folds \(3\) does not exist: .* folds 0 to 2"):
        load_search_config(None, ["data.folds=3", "search.folds=[0, 3]"])
    config = load_search_config(None, ["data.folds=3", "search.folds=[0, 2]"])
    assert config.search.folds == (0, 2)


@pytest.mark.parametrize(
    ("folds", "message"), [("[]", "at least 1 item"), ("[1, 1]", "name each fold once")]
)
def test_folds_that_make_no_sense_are_refused(folds: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_search_config(None, [f"search.folds={folds}"])


@pytest.mark.parametrize(
    ("budget", "seconds"), [("90s", 90.0), ("45m", 2700.0), ("8h", 28800.0), ("1.5h", 5400.0)]
)
def test_a_time_budget_is_a_number_and_a_unit(budget: str, seconds: float) -> None:
    config = load_search_config(None, [f"search.time_budget={budget}"])
    assert config.search.budget_seconds == seconds
    assert SearchConfig().search.budget_seconds is None


@pytest.mark.parametrize("budget", ["8", "8 hours", "h", "-1h"])
def test_any_other_time_budget_is_refused(budget: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.time_budget: .*such as 90m or 8h"):
        load_search_config(None, [f"search.time_budget='{budget}'"])


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("epoch: 3\nsearch: {trails: 4, trials: 0}\ncrf: {iteration: 1}\n")
    with pytest.raises(ConfigError) as caught:
        load_search_config(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "epoch: unknown key, did you mean 'epochs'?" in message
    assert "search.trails: unknown key, did you mean 'trials'?" in message
    assert "search.trials: input should be greater than 0, got 0" in message
    assert "crf.iteration: unknown key, did you mean 'iterations'?" in message


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "two words", "-x"])
def test_a_name_that_is_no_plain_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.name: use letters, digits, '\.', '_' and '-'"):
        load_search_config(None, [f"search.name='{name}'"])


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("search.reduction_factor=1.0", "search.reduction_factor"),
        ("search.gpus_per_trial=-1", "search.gpus_per_trial"),
        ("search.cpus_per_trial=0", "search.cpus_per_trial"),
        ("search.max_failures=-1", "search.max_failures"),
        ("search.startup_trials=0", "search.startup_trials"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_name(override: str, where: str) -> None:
    with pytest.raises(ConfigError, match=rf"{where}[^;]*: input should be"):
        load_search_config(None, [override])


# --- as runs/NAME/search.yaml ------------------------------------------------------------------


@pytest.mark.parametrize("file", [None, *SEARCH_FILES], ids=str)
def test_a_configuration_written_as_yaml_is_read_back_equal(
    file: Path | None, tmp_path: Path
) -> None:
    config = load_search_config(
        file, ["search.gpus_per_trial=0.5", "search.cpus_per_trial=3", "optim.decoder_lr=1e-5"]
    )
    write_yaml(tmp_path / "search.yaml", config.model_dump(mode="json"))
    tree = yaml.safe_load((tmp_path / "search.yaml").read_text())
    assert validate(SearchConfig, tree, where="search.yaml") == config
    assert load_search_config(tmp_path / "search.yaml") == config
