"""What holds for every search space in configs/spaces, and for sampling and applying points."""

from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search.config import load_search_config
from search.run_folder import space_tree
from search.space import SPACES, Parameter, Point, Space, by_key, key_of, known_paths, load_space
from trashseg.config import TrainConfig
from trashseg.config_file import get_path, load_train_config, write_yaml
from trashseg.errors import ConfigError

NAMES = sorted(file.stem for file in SPACES.glob("*.yaml"))
CONFIGS = SPACES.parent
SAMPLES = 300  # conditions that rarely hold have rare values

every_space = pytest.mark.parametrize("name", NAMES)


def samples(space: Space, count: int = SAMPLES) -> list[Point]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    return [space.sample(study.ask()) for _ in range(count)]


def written(tmp_path: Path, text: str) -> Space:
    (tmp_path / "mine.yaml").write_text(text)
    return load_space(str(tmp_path / "mine.yaml"))


# --- the contract of every shipped space -------------------------------------------------------


def test_the_shipped_spaces_are_these() -> None:
    assert NAMES == ["aug_loss", "essentials", "extras", "full", "model", "optim"]


@every_space
def test_a_shipped_space_says_in_its_first_line_what_it_asks(name: str) -> None:
    assert (SPACES / f"{name}.yaml").read_text().startswith("# ")


@every_space
def test_every_parameter_is_a_key_of_a_training_configuration(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.parameters
    assert set(map(key_of, space.parameters)) <= known_paths()


@every_space
def test_the_hand_tuned_default_lies_inside_and_comes_back_unchanged(name: str) -> None:
    space, base = load_space(name), TrainConfig()
    assert space.apply(base, space.point_of(base)) == base


@pytest.mark.parametrize("file", ["demo", "taco_cpu", "gpu"])
@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_search_files_lie_inside_every_space(file: str, name: str) -> None:
    space, base = load_space(name), load_search_config(CONFIGS / f"{file}.yaml").train
    assert space.apply(base, space.point_of(base)) == base


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *product(["base", "demo", "taco_cpu", "gpu"], NAMES),
        ("results", "essentials"),
        ("results_gpu", "essentials"),
    ],
)
def test_what_is_tried_first_lies_inside_every_space_and_is_what_it_says(
    file: str, name: str
) -> None:
    space, base = load_space(name), load_search_config(CONFIGS / f"{file}.yaml").train
    points = space.first_points(base)
    assert points[0] == space.point_of(base)
    for point in points:
        assert space.point_of(space.apply(base, point)) == point
    for changes in space.first:
        assert any(changes.items() <= by_key(point).items() for point in points)


@every_space
def test_random_points_give_valid_configurations_with_those_values(name: str) -> None:
    space, base = load_space(name), TrainConfig()
    for point in samples(space):
        config = space.apply(base, point)
        tree = config.model_dump()
        assert {path: get_path(tree, key_of(path)) for path in point} == point
        assert space.point_of(config) == point


@every_space
def test_random_points_leave_all_other_keys_as_they_were(name: str) -> None:
    space, base = load_space(name), TrainConfig()
    before = base.model_dump()
    for point in samples(space, 10):
        tree = space.apply(base, point).model_dump()
        touched = {path.partition(".")[0] for path in point}
        for key in set(before) - touched:
            assert tree[key] == before[key]


@every_space
def test_random_points_hold_a_parameter_exactly_where_its_condition_does(name: str) -> None:
    space = load_space(name)
    seen: dict[str, set[bool]] = {path: set() for path in space.parameters}
    for point in samples(space):
        for path, parameter in space.parameters.items():
            wanted = all(
                by_key(point).get(other) in values for other, values in parameter.when.items()
            )
            assert (path in point) == wanted
            seen[path].add(wanted)
    for path, parameter in space.parameters.items():
        assert True in seen[path], f"{path} never came up"
        assert bool(parameter.when) == (False in seen[path])


@every_space
def test_random_points_stay_in_their_ranges_and_reach_every_choice(name: str) -> None:
    space = load_space(name)
    chosen: dict[str, set[Any]] = {path: set() for path in space.parameters}
    for point in samples(space):
        for path, value in point.items():
            chosen[path].add(value)
    for path, parameter in space.parameters.items():
        if parameter.choice is not None:
            assert chosen[path] == set(parameter.choice)
        elif parameter.int_range is not None:
            assert all(type(value) is int for value in chosen[path])
            assert parameter.int_range[0] <= min(chosen[path])
            assert max(chosen[path]) <= parameter.int_range[1]
        else:
            assert parameter.float_range is not None
            assert parameter.float_range[0] <= min(chosen[path])
            assert max(chosen[path]) <= parameter.float_range[1]


@every_space
def test_a_space_kept_in_a_run_folder_is_read_back_equal(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    write_yaml(tmp_path / "space.yaml", space_tree(space))
    again = load_space(str(tmp_path / "space.yaml"))
    assert again.parameters == space.parameters
    assert list(again.parameters) == list(space.parameters)
    assert again.first == space.first


@every_space
def test_points_pass_through_a_best_file_unchanged(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    for point in samples(space, 5):
        config = space.apply(TrainConfig(), point)
        write_yaml(tmp_path / "best.yaml", config.model_dump(mode="json"))
        assert load_train_config(tmp_path / "best.yaml") == config


# --- include -----------------------------------------------------------------------------------


def test_full_is_the_four_others_together() -> None:
    parts: dict[str, Parameter] = {}
    for name in ("extras", "aug_loss", "model", "optim"):  # aug_loss has more losses than extras
        parts |= load_space(name).parameters
    assert load_space("full").parameters == parts
    assert set(load_space("extras").parameters["loss.name"].choice or ()) < set(
        load_space("full").parameters["loss.name"].choice or ()
    )


def test_what_a_file_says_itself_wins_over_what_it_includes(tmp_path: Path) -> None:
    space = written(tmp_path, "include: [optim]\nbatch_size: {int: [2, 4]}\nepochs: {int: [1, 3]}")
    assert set(space.parameters) == {*load_space("optim").parameters, "epochs"}
    assert space.parameters["batch_size"] == Parameter.model_validate({"int": [2, 4]})


def test_a_condition_may_name_an_included_parameter(tmp_path: Path) -> None:
    space = written(
        tmp_path, "include: [optim]\npatience: {int: [1, 4], when: {optim.name: [sgd]}}"
    )
    for point in samples(space, 20):
        assert ("patience" in point) == (point["optim.name"] == "sgd")


# --- points ------------------------------------------------------------------------------------


def test_an_inactive_condition_takes_what_hangs_on_it_along(tmp_path: Path) -> None:
    space = written(
        tmp_path,
        """
        optim.name: {choice: [adam, sgd]}
        schedule.name: {choice: [step, constant], when: {optim.name: [sgd]}}
        schedule.gamma: {float: [0.1, 0.9], when: {schedule.name: [step]}}
        """,
    )
    assert not space.active("schedule.gamma", {"optim.name": "adam"})
    assert space.active("schedule.gamma", {"optim.name": "sgd", "schedule.name": "step"})
    assert not space.active("schedule.gamma", {"optim.name": "sgd", "schedule.name": "constant"})


def test_a_parameter_with_two_conditions_needs_both(tmp_path: Path) -> None:
    space = written(
        tmp_path,
        """
        loss.name: {choice: [focal, dice]}
        optim.name: {choice: [adam, sgd]}
        loss.gamma: {float: [0.5, 4], when: {loss.name: [focal], optim.name: [sgd]}}
        """,
    )
    assert space.active("loss.gamma", {"loss.name": "focal", "optim.name": "sgd"})
    assert not space.active("loss.gamma", {"loss.name": "focal", "optim.name": "adam"})
    assert not space.active("loss.gamma", {"loss.name": "dice", "optim.name": "sgd"})


def test_a_key_given_twice_is_what_the_condition_that_holds_says(tmp_path: Path) -> None:
    space = written(
        tmp_path,
        """
        model.arch: {choice: [unet, dpt]}
        model.encoder: {choice: [resnet18, resnet34], when: {model.arch: [unet]}}
        model.encoder@vit: {choice: [tu-vit_tiny_patch16_224], when: {model.arch: [dpt]}}
        model.weights: {choice: [none], when: {model.encoder: [resnet34, tu-vit_tiny_patch16_224]}}
        """,
    )
    dpt: Point = {"model.arch": "dpt", "model.encoder@vit": "tu-vit_tiny_patch16_224"}
    assert space.active("model.weights", dpt)
    assert not space.active("model.weights", {"model.arch": "unet", "model.encoder": "resnet18"})
    config = space.apply(TrainConfig(), {**dpt, "model.weights": "none"})
    assert (config.model.arch, config.model.encoder) == ("dpt", "tu-vit_tiny_patch16_224")
    assert space.point_of(config) == {**dpt, "model.weights": "none"}
    space.check(config)


def test_applying_another_variant_drops_the_keys_of_the_one_before() -> None:
    base = load_train_config(None, ["loss.name=focal", "loss.gamma=3.0"])
    config = load_space("aug_loss").apply(base, {"loss.name": "dice"})
    assert config.loss.model_dump() == {"name": "dice", "smooth": 1.0}


def test_first_points_are_the_hand_tuned_one_and_changes_of_it_none_twice(tmp_path: Path) -> None:
    space = written(
        tmp_path,
        "loss.name: {choice: [cross_entropy, focal]}\n"
        "loss.gamma: {float: [0.5, 4.0], when: {loss.name: [focal]}}\n"
        "batch_size: {int: [2, 9]}\n"
        "first: [{batch_size: 4}, {loss.name: focal, loss.gamma: 3}, {loss.name: cross_entropy}]",
    )
    assert space.first_points(load_train_config(None, ["batch_size=8"])) == [
        {"loss.name": "cross_entropy", "batch_size": 8},
        {"loss.name": "cross_entropy", "batch_size": 4},
        {"loss.name": "focal", "loss.gamma": 3.0, "batch_size": 8},
    ]
    # where the configuration is one of them already, there is one less
    assert space.first_points(load_train_config(None, ["batch_size=4"])) == [
        {"loss.name": "cross_entropy", "batch_size": 4},
        {"loss.name": "focal", "loss.gamma": 3.0, "batch_size": 4},
    ]


def test_a_space_that_includes_another_does_not_take_over_what_that_tries_first(
    tmp_path: Path,
) -> None:
    (tmp_path / "other.yaml").write_text("batch_size: {int: [2, 9]}\nfirst: [{batch_size: 4}]")
    other = tmp_path / "other.yaml"
    assert load_space(str(other)).first == ({"batch_size": 4},)
    assert written(tmp_path, f"include: [{other}]\nepochs: {{int: [2, 9]}}").first == ()


def test_a_hand_tuned_value_outside_the_space_is_refused_with_its_name() -> None:
    base = load_train_config(None, ["optim.decoder_lr=0.5"])
    message = r"optim\.decoder_lr: the configuration's 0\.5 lies outside the space aug_loss: widen"
    with pytest.raises(ConfigError, match=message):
        load_space("aug_loss").point_of(base)


def test_a_hand_tuned_choice_outside_the_space_is_refused_with_its_name() -> None:
    base = load_train_config(None, ["model.arch=deeplabv3"])
    with pytest.raises(ConfigError, match=r"model\.arch: the configuration's 'deeplabv3' lies out"):
        load_space("model").point_of(base)


def test_a_parameter_that_the_hand_tuned_variant_lacks_is_refused_with_its_name(
    tmp_path: Path,
) -> None:
    space = written(tmp_path, "loss.gamma: {float: [0.5, 4.0]}")  # cross entropy has none
    with pytest.raises(ConfigError, match=r"loss\.gamma: .*mine"):
        space.point_of(TrainConfig())


def test_applying_a_value_that_the_configuration_refuses_names_space_and_key() -> None:
    with pytest.raises(ConfigError, match=r"space optim: batch_size: .*got 1"):
        load_space("optim").apply(TrainConfig(), {"batch_size": 1})


@given(
    low=st.floats(1e-6, 1e3),
    width=st.floats(1e-3, 1e3),
    share=st.floats(-0.5, 1.5),
)
def test_a_range_contains_exactly_what_lies_between_its_ends(
    low: float, width: float, share: float
) -> None:
    high, value = low + width, low + share * width
    parameter = Parameter.model_validate({"float": [low, high]})
    assert parameter.contains(value) == (low <= value <= high)
    assert parameter.contains(low)
    assert parameter.contains(high)
    assert not parameter.contains("low")


@given(
    kind=st.sampled_from(["float", "int"]),
    low=st.integers(1, 50),
    width=st.integers(1, 50),
    log=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_whatever_the_range_its_samples_lie_in_it(
    kind: str, low: int, width: int, log: bool, seed: int
) -> None:
    parameter = Parameter.model_validate({kind: [low, low + width], "log": log})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    value = parameter.suggest(study.ask(), "x")
    assert parameter.contains(value)
    assert isinstance(value, int if kind == "int" else float)


def test_a_stepped_parameter_only_takes_its_steps(tmp_path: Path) -> None:
    space = written(
        tmp_path, "clip_norm: {float: [0, 1], step: 0.25}\nepochs: {int: [2, 8], step: 3}"
    )
    points = samples(space)
    assert {point["clip_norm"] for point in points} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {point["epochs"] for point in points} == {2, 5, 8}


def test_the_examples_of_the_module_are_a_space(tmp_path: Path) -> None:
    import search.space

    examples = [
        line.strip()
        for line in (search.space.__doc__ or "").splitlines()
        if line.startswith("    ")
    ]
    (tmp_path / "mine.yaml").write_text("\n".join(examples))
    assert len(load_space(str(tmp_path / "mine.yaml")).parameters) == len(
        yaml.safe_load("\n".join(examples))
    )
