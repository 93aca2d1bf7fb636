"""YAML and --set to a TrainConfig: merging, variants, and errors that name the nearest key."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trashseg.config import TrainConfig, fingerprint
from trashseg.config_file import (
    get_path,
    load_train_config,
    merge,
    nearest,
    parse_overrides,
    read_yaml,
    sections_of,
    set_path,
    validate,
    write_yaml,
)
from trashseg.errors import ConfigError

DEFAULTS = TrainConfig().model_dump()
VARIANTS = [
    (section, name)
    for section in ("loss", "sampling", "optim", "schedule", "averaging")
    for name in sections_of(TrainConfig.model_fields[section].annotation)
]


def _config(tree: dict[str, Any]) -> TrainConfig:
    return validate(TrainConfig, merge(DEFAULTS, tree), where="here")


# --- merging -----------------------------------------------------------------------------------


def test_merging_nothing_changes_nothing() -> None:
    assert merge(DEFAULTS, {}) == DEFAULTS
    assert validate(TrainConfig, DEFAULTS, where="here") == TrainConfig()


def test_merging_leaves_both_trees_as_they_were() -> None:
    base, change = {"optim": {"name": "adam", "decoder_lr": 1.0}}, {"optim": {"decoder_lr": 2.0}}
    merge(base, change)
    assert base == {"optim": {"name": "adam", "decoder_lr": 1.0}}
    assert change == {"optim": {"decoder_lr": 2.0}}


def test_a_part_of_a_section_leaves_the_rest_of_it() -> None:
    config = _config({"augment": {"random_resized_crop": {"p": 0.9}}})
    assert config.augment.random_resized_crop.p == 0.9
    assert config.augment.random_resized_crop.min_scale == 0.08  # AugmentConfig's, not the class's
    assert config.augment.horizontal_flip == TrainConfig().augment.horizontal_flip


@pytest.mark.parametrize(("section", "name"), VARIANTS)
def test_every_variant_survives_a_dump_and_is_the_same_again(
    section: str, name: str, tmp_path: Path
) -> None:
    config = _config({section: {"name": name}})
    assert getattr(config, section).name == name
    write_yaml(tmp_path / "config.yaml", config.model_dump())
    again = load_train_config(tmp_path / "config.yaml")
    assert again == config
    assert fingerprint(again) == fingerprint(config)


def test_another_variant_keeps_the_keys_it_shares_and_drops_the_others() -> None:
    base = merge(DEFAULTS, {"optim": {"name": "sgd", "momentum": 0.5, "decoder_lr": 0.02}})
    adam = merge(base, {"optim": {"name": "adam"}})["optim"]
    assert adam["decoder_lr"] == 0.02
    assert "momentum" not in adam


def test_a_key_given_for_the_variant_that_was_left_is_not_dropped_silently() -> None:
    with pytest.raises(ConfigError, match=r"loss\.gamma: unknown key"):
        _config({"loss": {"name": "dice", "gamma": 2.0}})


def test_the_same_variant_keeps_all_its_keys() -> None:
    base = merge(DEFAULTS, {"loss": {"name": "focal", "gamma": 3.0}})
    assert merge(base, {"loss": {"name": "focal", "class_weights": "inverse"}})["loss"] == {
        "name": "focal",
        "gamma": 3.0,
        "class_weights": "inverse",
    }


@given(
    epochs=st.integers(1, 10**6),
    decoder_lr=st.floats(1e-12, 1e3),
    rotate=st.floats(0, 180),
    variant=st.sampled_from(VARIANTS),
)
def test_a_merged_change_is_there_and_merging_it_again_changes_nothing(
    epochs: int, decoder_lr: float, rotate: float, variant: tuple[str, str]
) -> None:
    change: dict[str, Any] = {
        "epochs": epochs,
        "optim": {"decoder_lr": decoder_lr},
        "augment": {"shift_scale_rotate": {"rotate": rotate}},
    }
    section, name = variant
    change[section] = {**change.get(section, {}), "name": name}
    once = merge(DEFAULTS, change)
    assert merge(once, change) == once
    config = validate(TrainConfig, once, where="here")
    assert (config.epochs, config.optim.decoder_lr) == (epochs, decoder_lr)
    assert config.augment.shift_scale_rotate.rotate == rotate
    assert getattr(config, section).name == name


# --- errors ------------------------------------------------------------------------------------


def test_an_error_lists_every_problem_at_once_with_the_nearest_keys() -> None:
    tree = {
        "epoch": 3,
        "batch_size": 1,
        "optim": {"decoder_rl": 0.1},
        "loss": {"name": "focal", "gama": 3},
        "augment": {"cutout": {"hole": 1, "size": 2}},
    }
    with pytest.raises(ConfigError) as caught:
        _config(tree)
    assert set(str(caught.value).removeprefix("here: ").split("; ")) == {
        "epoch: unknown key, did you mean 'epochs'?",
        "batch_size: input should be greater than or equal to 2, got 1",
        "optim.decoder_rl: unknown key, did you mean 'decoder_lr'?",
        "loss.gama: unknown key, did you mean 'gamma'?",
        "augment.cutout.hole: unknown key, did you mean 'holes'?",
        "augment.cutout.size: input should be less than or equal to 1, got 2",
    }


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"loss": {"name": "fokal"}}, "loss.name: unknown value 'fokal', did you mean 'focal'?"),
        ({"optim": {"name": "rmsprop"}}, "optim.name: unknown value 'rmsprop', choose one of adam"),
        ({"model": {"arch": "fpnn"}}, "model.arch: unknown value 'fpnn', did you mean 'fpn'?"),
        ({"metric": "mIoU"}, "metric: unknown value 'mIoU', did you mean 'miou'?"),
        ({"data": {"image_size": 100}}, "data.image_size: 100 is not a multiple of 32"),
        ({"epochs": 2.5}, "epochs: input should be a valid integer"),
        ({"loss": "focal"}, "loss: input should be a valid dictionary"),
        ({"data": None}, "data: input should be a valid dictionary"),
        ({"loss": {"name": None}}, "loss.name: unknown value 'None'"),
        ({"loss": {"name": ["focal"]}}, "loss"),
        ({"optim": {"decoder_lr": float("inf")}}, "optim.decoder_lr: input should be a finite"),
        ({3: 4}, "3: keys should be strings"),
    ],
)
def test_a_value_that_does_not_work_is_named(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _config(tree)
    assert message in str(caught.value)


def test_a_word_that_is_near_nothing_gets_the_options() -> None:
    assert nearest("decodr_lr", ["encoder_lr", "decoder_lr"]) == ", did you mean 'decoder_lr'?"
    assert nearest("zzz", ["b", "a"]) == ", choose one of a, b"


# --- files -------------------------------------------------------------------------------------


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_train_config(tmp_path / "empty.yaml") == TrainConfig() == load_train_config(None)


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("epochs: 7\npatience: 3\nloss: {name: focal, gamma: 1.5}\n")
    config = load_train_config(path, ["epochs=9", "loss.class_weights=inverse"])
    assert (config.epochs, config.patience, config.batch_size) == (9, 3, TrainConfig().batch_size)
    assert config.loss.model_dump() == {"name": "focal", "gamma": 1.5, "class_weights": "inverse"}


@pytest.mark.parametrize("written", ["1e-3", "1.0e-3", "0.001"])
def test_a_rate_can_be_written_in_any_notation_in_a_file(written: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"optim: {{decoder_lr: {written}}}\n")
    assert load_train_config(tmp_path / "config.yaml").optim.decoder_lr == 0.001


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2]", "holds a list, not keys and values"),
        (b"epochs: [1", "is not YAML"),
        (b"\xff\xfe\xfa", "cannot be read"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_train_config(tmp_path / "none.yaml")


def test_yaml_keeps_the_order_of_keys(tmp_path: Path) -> None:
    write_yaml(tmp_path / "new" / "a.yaml", {"z": 1, "a": {"y": [1, 2], "b": None}, "ß": "ü"})
    tree = read_yaml(tmp_path / "new" / "a.yaml")
    assert list(tree) == ["z", "a", "ß"]
    assert tree == {"z": 1, "a": {"y": [1, 2], "b": None}, "ß": "ü"}


# --- --set -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),  # a string to YAML 1.1
        ("5E+2", 500.0),
        ("-2.e-3", -0.002),
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("focal", "focal"),
        ("a=b", "a=b"),
        ("[1, 2]", [1, 2]),
        ("'1e-3'", "1e-3"),
    ],
)
def test_an_override_is_read_as_yaml_and_numbers_as_people_write_them(
    text: str, value: object
) -> None:
    parsed = parse_overrides([f"a.b={text}"])
    assert parsed == {"a": {"b": value}}
    assert type(parsed["a"]["b"]) is type(value)


def test_several_overrides_make_one_tree_and_the_last_wins() -> None:
    overrides = ["loss.name=focal", "epochs=3", "loss.gamma=1e0", "epochs=4"]
    assert parse_overrides(overrides) == {"loss": {"name": "focal", "gamma": 1.0}, "epochs": 4}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "--set epochs: has no '=': write --set section.key=value"),
        ("=3", "--set =3: has no '='"),
        ("epochs=[1", "the value is not YAML: quote it"),
    ],
)
def test_an_override_that_cannot_be_read_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides([override])
    assert message in str(caught.value)


def test_an_override_cannot_make_a_value_a_section() -> None:
    with pytest.raises(ConfigError, match=r"epochs\.max: epochs is a value, not a section"):
        parse_overrides(["epochs=3", "epochs.max=4"])


def test_an_unknown_override_names_the_command_line_and_the_nearest_key() -> None:
    with pytest.raises(ConfigError, match=r"^command line: optim\.lr: unknown key"):
        load_train_config(None, ["optim.lr=1"])


# --- dotted paths ------------------------------------------------------------------------------


@given(
    path=st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), value=st.integers()
)
def test_a_value_set_at_a_path_is_read_there(path: str, value: int) -> None:
    tree: dict[str, Any] = {}
    set_path(tree, path, value)
    assert get_path(tree, path) == value


@pytest.mark.parametrize("path", ["b", "a.c", "a.b.c"])
def test_a_path_that_is_not_there_is_a_key_error(path: str) -> None:
    with pytest.raises(KeyError):
        get_path({"a": {"b": 1}}, path)
