"""What a search space must not say, and how it is told so."""

from pathlib import Path

import pytest

from search.space import load_space
from trashseg.config import TrainConfig
from trashseg.errors import ConfigError


def problem(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_space(str(file))
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def test_an_unknown_space_is_told_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"--space aug_los: unknown .*, did you mean 'aug_loss'\?"
    ):
        load_space("aug_los")


def test_a_space_like_no_other_is_told_all_there_are() -> None:
    with pytest.raises(
        ConfigError,
        match=r"--space zzz: unknown .*aug_loss, essentials, extras, full, model, optim",
    ):
        load_space("zzz")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
        load_space(str(tmp_path / "gone.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no parameters: add one"),
        ("- a\n- b", "holds a list, not keys and values: mend it"),
        ("optim.lr_decoder: {float: [1, 2]}", "did you mean 'optim.decoder_lr'?"),
        ("loss: {choice: [focal]}", "loss: unknown key, did you mean 'loss.name'?"),
        ("loss.name: {choices: [focal]}", "loss.name.choices: unknown key, did you mean 'choice'?"),
        ("loss.name: focal", "loss.name: Input should be a valid dictionary"),
        ("loss.name: {}", "loss.name: needs exactly one of choice, float and int"),
        ("epochs: {int: [1, 2], float: [1, 2]}", "epochs: needs exactly one of choice, float"),
        ("loss.name: {choice: []}", "loss.name: choice needs different values, at least one"),
        ("loss.name: {choice: [dice, dice]}", "loss.name: choice needs different values"),
        ("loss.name: {choice: [dice], log: true}", "loss.name: log and step do not go with choice"),
        ("loss.name: {choice: [dice], step: 1}", "loss.name: log and step do not go with choice"),
        ("clip_norm: {float: [2, 1]}", "clip_norm: its range [2, 1] is empty: the first must be"),
        ("epochs: {int: [3, 3]}", "epochs: its range [3, 3] is empty"),
        ("epochs: {int: [1.5, 3]}", "epochs.int.0: Input should be a valid integer"),
        ("clip_norm: {float: [1, 2, 3]}", "clip_norm.float: Tuple should have at most 2 items"),
        ("clip_norm: {float: [0, .inf]}", "clip_norm.float.1: Input should be a finite number"),
        ("clip_norm: {float: [low, 2]}", "clip_norm.float.0: Input should be a valid number"),
        ("clip_norm: {float: [0, 1], log: true}", "clip_norm: log needs a range above 0"),
        ("clip_norm: {float: [1, 2], log: true, step: 1}", "clip_norm: log needs a range above 0"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    assert message in problem(tmp_path, text)


def test_all_problems_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    message = problem(
        tmp_path,
        """
        loss.nam: {choice: [dice]}
        epochs: {int: [9, 1]}
        clip_norm: {float: [0, 1], lag: true}
        loss.gamma: {float: [1, 2], when: {loss.name: [focal]}}
        """,
    )
    assert message.split("; ") == [
        "loss.nam: unknown key, did you mean 'loss.name'?",
        "epochs: its range [9, 1] is empty: the first must be the lesser",
        "clip_norm.lag: unknown key, did you mean 'log'?",
        "loss.gamma: when.loss.name is not a parameter above it",
    ]


# --- conditions --------------------------------------------------------------------------------


def test_a_condition_on_a_parameter_below_is_refused(tmp_path: Path) -> None:
    text = "loss.gamma: {float: [1, 2], when: {loss.name: [focal]}}\nloss.name: {choice: [focal]}"
    assert problem(tmp_path, text) == "loss.gamma: when.loss.name is not a parameter above it"


def test_a_condition_on_itself_is_refused(tmp_path: Path) -> None:
    text = "loss.name: {choice: [focal], when: {loss.name: [focal]}}"
    assert problem(tmp_path, text) == "loss.name: when.loss.name is not a parameter above it"


def test_a_condition_that_can_never_hold_is_refused(tmp_path: Path) -> None:
    text = (
        "loss.name: {choice: [focal, dice]}\n"
        "loss.gamma: {float: [1, 2], when: {loss.name: [focal, focall]}}"
    )
    assert problem(tmp_path, text) == "loss.gamma: when.loss.name can never be 'focall'"


def test_a_key_given_twice_that_could_have_two_values_at_once_is_refused(tmp_path: Path) -> None:
    arch = "model.arch: {choice: [fpn, unet, dpt]}\n"
    one = "model.encoder: {choice: [resnet18], when: {model.arch: [fpn, unet]}}\n"
    other = "model.encoder@big: {choice: [resnet101], when: {model.arch: [unet, dpt]}}"
    said = (
        "model.encoder@big: model.encoder may hold at the same time: give both a `when` with other "
        "values of one key"
    )
    assert problem(tmp_path, arch + one + other) == said
    always = "model.encoder: {choice: [resnet18]}\n"
    assert problem(tmp_path, arch + always + other) == said


# --- include -----------------------------------------------------------------------------------


def test_an_unknown_include_is_told_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("include: [optin]")
    with pytest.raises(ConfigError, match=r"optin: unknown .*did you mean 'optim'"):
        load_space(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("value", ["optim", "3", "{optim: 1}"])
def test_an_include_that_is_no_list_of_names_is_refused(tmp_path: Path, value: str) -> None:
    assert problem(tmp_path, f"include: {value}").startswith("include: write a list of spaces")


def test_a_space_that_includes_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"include: [{file}]")
    with pytest.raises(ConfigError, match="includes itself"):
        load_space(str(file))


# --- first ---------------------------------------------------------------------------------------

RATE = "optim.decoder_lr: {float: [1.0e-4, 1.0e-2]}\nloss.name: {choice: [cross_entropy, focal]}\n"


@pytest.mark.parametrize("value", ["focal", "{loss.name: focal}", "[focal]"])
def test_first_that_is_no_list_of_changes_is_refused(tmp_path: Path, value: str) -> None:
    said = "first: write a list of changes, [{loss.name: focal}, ...]"
    assert problem(tmp_path, f"{RATE}first: {value}") == said


def test_every_change_that_the_space_does_not_allow_is_named(tmp_path: Path) -> None:
    first = "first: [{loss.nam: focal}, {loss.name: dice, optim.decoder_lr: 0.1}]"
    assert problem(tmp_path, RATE + first) == (
        "first: loss.nam is no parameter, did you mean 'loss.name'?; "
        "first: loss.name can never be 'dice'; first: optim.decoder_lr can never be 0.1"
    )


def test_a_change_that_leaves_the_space_is_refused_with_what_it_is(tmp_path: Path) -> None:
    gamma = "loss.gamma: {float: [0.5, 1.0], when: {loss.name: [focal]}}\n"  # its default is 2
    (tmp_path / "mine.yaml").write_text(f"{RATE}{gamma}first: [{{loss.name: focal}}]")
    space = load_space(str(tmp_path / "mine.yaml"))
    with pytest.raises(ConfigError) as caught:
        space.first_points(TrainConfig())
    said = "space mine: first: {'loss.name': 'focal'}: loss.gamma: the configuration's 2.0 lies out"
    assert str(caught.value).startswith(said)


# --- steps: a search never adjusts a setting silently ------------------------------------------


@pytest.mark.parametrize(
    "entry", ["{int: [1, 10], step: 2.5}", "{int: [1, 9], step: 0}", "{int: [1, 9], step: -2}"]
)
def test_a_step_of_whole_numbers_is_a_positive_whole_number(tmp_path: Path, entry: str) -> None:
    assert "epochs: step" in problem(tmp_path, f"epochs: {entry}").replace(
        "epochs.step", "epochs: step"
    )


@pytest.mark.parametrize("entry", ["{int: [1, 10], step: 2}", "{int: [1, 3], step: 5}"])
def test_a_range_that_is_no_multiple_of_its_step_is_refused(tmp_path: Path, entry: str) -> None:
    assert "step" in problem(tmp_path, f"epochs: {entry}")
