"""What is wrong with the input is said before Ray starts and before anything is written."""

from pathlib import Path

import pytest

from search.config import load_search_config
from search.driver import run_search
from trashseg.errors import TrashSegError


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(address: str) -> str:
        raise AssertionError("went as far as starting Ray")

    monkeypatch.setattr("search.driver.connect", connect)


def refusal(tmp_path: Path, data: Path, *overrides: str) -> str:
    config = load_search_config(
        None,
        [
            f"search.data_dir={data}",
            f"search.storage={tmp_path}/runs",
            f"search.tracking_uri=sqlite:///{tmp_path}/mlflow.db",
            "data.image_size=64",
            *overrides,
        ],
    )
    with pytest.raises(TrashSegError) as caught:
        run_search(config)
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()
    return str(caught.value)


def test_an_unknown_space(tmp_path: Path, sample: Path) -> None:
    assert "did you mean 'optim'?" in refusal(tmp_path, sample, "search.space=optimizer")


def test_a_hand_tuned_value_outside_the_space(tmp_path: Path, sample: Path) -> None:
    assert "optim.decoder_lr: the configuration's 0.5 lies outside" in refusal(
        tmp_path, sample, "optim.decoder_lr=0.5"
    )


def test_photos_that_are_not_there(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(tmp_path, tmp_path / "none")


def test_weights_that_cannot_be_had(tmp_path: Path, sample: Path) -> None:
    weights = tmp_path / "none.safetensors"
    assert str(weights) in refusal(tmp_path, sample, f"model.weights={weights}")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("loss.name: {choice: [cross_entropy, dicee]}", "unknown value 'dicee', did you mean"),
        ("batch_size: {int: [1, 8]}", "batch_size: input should be greater than or equal to 2"),
        (
            "loss.name: {choice: [cross_entropy, focal]}\n"
            "loss.gamma: {float: [-1.0, 2.0], when: {loss.name: [focal]}}",
            "loss.gamma: input should be greater than or equal to 0",
        ),
        (
            "loss.name: {choice: [cross_entropy, dice]}\n"
            "loss.gamma: {float: [1.0, 2.0], when: {loss.name: [dice]}}",
            "loss.gamma: unknown key",
        ),
    ],
    ids=["choice", "range", "conditional range", "key of another variant"],
)
def test_a_space_with_values_that_no_trial_could_have(
    tmp_path: Path, sample: Path, space: str, message: str
) -> None:
    """A trial with such a value would otherwise end the whole search, hours later."""
    (tmp_path / "space.yaml").write_text(space)
    assert message in refusal(tmp_path, sample, f"search.space={tmp_path}/space.yaml")
