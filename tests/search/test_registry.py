"""A run's ensemble in a real MLflow registry, loaded where nothing of this repository is at hand."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.models import Model
from typer.testing import CliRunner

import launch
from search.model_folder import NEEDED, SIGNATURE, content_key, write_model
from search.registry import register_later, register_now
from search.run_folder import RunFolder
from search.tracking import Tracker
from tests.search.written_runs import set_metrics, write_run
from trashseg.device import local_resources
from trashseg.ensemble import load_ensemble
from trashseg.errors import ConfigError, TrashSegError
from trashseg.predict import predict

NOBODY = "http://127.0.0.1:1"  # refuses at once
NewRun = Callable[..., RunFolder]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making one takes seconds. Each registers under a name of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def new_run(sample: Path, tmp_path: Path, uri: str) -> NewRun:
    """Writes a run that MLflow has heard of, up to its ensemble."""

    def write(name: str, nested: float, model: str) -> RunFolder:
        changes = {"registered_model": model}
        run = write_run(sample, tmp_path, uri, name, nested, changes)
        with Tracker(run, uri).closing() as tracker:
            for what in ("parent", "ensemble"):
                tracker.start(what, what, None, {})
                tracker.end(what, "finished")
        return run

    return write


def register(run: RunFolder, name: str | None = None) -> list[str]:
    said: list[str] = []
    register_later(run, name, said.append)
    return said


# --- versions and their champion ---------------------------------------------------------------


@pytest.mark.slow
def test_a_version_has_all_that_tells_what_it_is(new_run: NewRun, uri: str) -> None:
    run, client = new_run("night", 0.25, "whole"), MlflowClient(uri)
    said = register(run)
    assert re.fullmatch(r"registered: version 1 of whole, \d+ MB", said[0])
    assert said[1] == "champion of whole: version 1, it is the first"
    version = client.get_model_version_by_alias("whole", "champion")
    assert version.run_id == run.mlflow_ids()["ensemble"]
    assert version.description == run.model_card.read_text()
    assert version.tags == {
        "ensemble": content_key(run), "run": "night", "score": "0.25", "metric": "miou",
        "dataset": json.loads(run.dataset_json.read_text())["key"],
    }  # fmt: skip
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert logged.status == LoggedModelStatus.READY
    assert logged.source_run_id == version.run_id
    [output] = client.get_run(version.run_id).outputs.model_outputs
    assert output.model_id == logged.model_id
    assert not list(run.path.glob("model.partial*"))


@pytest.mark.slow
def test_only_a_better_version_becomes_champion(new_run: NewRun, uri: str) -> None:
    client = MlflowClient(uri)

    def champion() -> str:
        return str(client.get_model_version_by_alias("sorter", "champion").version)

    first = new_run("first", 0.5, "sorter")
    register(first)
    worse = register(new_run("worse", 0.25, "sorter"))
    assert worse[1] == (
        "champion of sorter: version 1 stays it: this one has a nested miou 0.2500, version 1's is "
        "0.5000"
    )
    assert champion() == "1"
    better = register(new_run("better", 0.75, "sorter"))
    assert better[1] == "champion of sorter: version 3, nested miou 0.7500, version 1's is 0.5000"
    assert champion() == "3"
    again = register(first)
    assert again[0] == "this ensemble is version 1 of sorter already"
    assert champion() == "3"
    first.dataset_json.write_text('{"key": "0123456789abcdef"}')
    set_metrics(first, test={})  # another ensemble
    said = register(first)
    assert said[0].startswith("registered: version 4 of sorter")
    assert "version 3 stays it: it was scored on other photos" in said[1]
    assert register(first, "own")[1] == "champion of own: version 1, it is the first"


# --- where it cannot be ------------------------------------------------------------------------


def test_a_lost_server_is_one_line_with_the_command_that_registers_later(
    sample: Path, tmp_path: Path
) -> None:
    run, said = write_run(sample, tmp_path, NOBODY), list[str]()
    run.mlflow.mkdir()
    run.mlflow_runs.write_text('{"ensemble": "a81315d9776449bd816022a36852bb5b"}\n')
    register_now(run, said.append)
    [line] = said
    assert line.startswith(f"not registered: MLflow at {NOBODY} cannot take the ensemble (")
    storage = run.path.parent
    assert line.endswith(
        f"): when it can, run python launch.py register --name night --storage {storage}"
    )
    assert "\n" not in line
    with pytest.raises(TrashSegError, match=f"--tracking-uri {NOBODY}: cannot be used"):
        register(run)


def test_a_store_that_has_not_heard_of_the_ensemble_is_told_apart(
    sample: Path, tmp_path: Path
) -> None:
    run, said = write_run(sample, tmp_path, NOBODY), list[str]()
    register_now(run, said.append)
    assert "cannot take the ensemble (it has not heard of the ensemble yet): when it can" in said[0]


def test_registration_can_be_switched_off(sample: Path, tmp_path: Path) -> None:
    run = write_run(sample, tmp_path, NOBODY, changes={"registered_model": None})
    said: list[str] = []
    register_now(run, said.append)
    assert said == []
    with pytest.raises(ConfigError, match="registered_model is null: name a model with --as"):
        register(run)


def test_a_run_without_an_ensemble_is_refused(sample: Path, tmp_path: Path) -> None:
    run = write_run(sample, tmp_path, NOBODY)
    (run.ensemble / "manifest.yaml").unlink()
    arguments = ["register", "--name", "night", "--storage", str(run.path.parent)]
    result = CliRunner().invoke(launch.app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {run.path}: has no ensemble yet: run python launch.py")


# --- the model ---------------------------------------------------------------------------------

ELSEWHERE = """
import json, sys
from pathlib import Path
import mlflow.pyfunc, pandas
folder, photos, out = map(Path, sys.argv[1:])
model = mlflow.pyfunc.load_model(str(folder))
files = sorted(photos.rglob("*.*"))
answers = model.predict(pandas.DataFrame({"photo": [file.read_bytes() for file in files]}))
for file, mask in zip(files, answers["mask"]):
    (out / f"{file.stem}.png").write_bytes(mask)
ours = {name: module.__file__ for name, module in sys.modules.items()
        if name.partition(".")[0] in ("trashseg", "search", "ray", "optuna")}
try:
    model.predict(pandas.DataFrame({"photo": [b"no photo"]}))
except mlflow.exceptions.MlflowException as error:
    refused = [str(error), error.get_http_status_code()]
print(json.dumps({"ours": ours, "shares": list(answers["shares"]), "refused": refused,
                  "classes": model.metadata.metadata["classes"]}))
"""


@pytest.mark.slow
def test_elsewhere_the_model_runs_on_its_own_code_and_masks_are_those_of_predict(
    sample: Path, tmp_path: Path
) -> None:
    run = write_run(sample, tmp_path, NOBODY)
    run.model_card.write_text("a card")
    folder, photos = tmp_path / "model", sample / "photos"
    write_model(run, folder, Model(), {"run": "night"})
    told = elsewhere(folder, photos, tmp_path)
    predict(load_ensemble(run.ensemble, local_resources(1)), photos, tmp_path / "here")
    here = sorted((tmp_path / "here" / "masks").iterdir())
    assert len(here) == 20
    for mask in here:
        assert mask.read_bytes() == (tmp_path / "elsewhere" / mask.name).read_bytes(), mask.name
    code = folder / "code" / "trashseg"
    assert {Path(file).is_relative_to(code) for file in told["ours"].values()} == {True}
    assert told["refused"] == ["photo 0: is not a readable photo: replace it", 400]
    assert told["classes"] == list(run.dataset().classes)
    for shares in told["shares"]:
        assert list(shares) == told["classes"]
        assert sum(shares.values()) == pytest.approx(1)
    assert max(sum(share > 0 for share in shares.values()) for shares in told["shares"]) > 1
    assert imported(told["ours"].values()) <= set(NEEDED)


def elsewhere(folder: Path, photos: Path, tmp_path: Path) -> dict[str, Any]:
    """Load and ask the model in a process of its own, in a folder that holds no code."""
    (tmp_path / "elsewhere").mkdir()
    script = tmp_path / "script.py"
    script.write_text(ELSEWHERE)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script, folder, photos, tmp_path / "elsewhere"],
        cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def imported(files: Any) -> set[str]:
    """Packages that these modules import as they are loaded, by their names on PyPI."""
    names = set[str]()
    for file in files:
        for node in ast.parse(Path(file).read_text()).body:
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    packages = packages_distributions()
    others = names - set(sys.stdlib_module_names) - {"trashseg"}
    installed_as = {packages[name][0].lower() for name in others}
    return {name if name in NEEDED else name.replace("_", "-") for name in installed_as}


@pytest.mark.slow
def test_the_model_folder_is_complete_and_shares_the_weights_with_the_run(
    sample: Path, tmp_path: Path
) -> None:
    run = write_run(sample, tmp_path, NOBODY)
    run.model_card.write_text("a card")
    write_model(run, tmp_path / "model", Model(), {"run": "night"})
    model = Model.load(str(tmp_path / "model"))
    assert model.signature == SIGNATURE
    assert model.metadata == {"classes": list(run.dataset().classes), "run": "night"}
    example = model.load_input_example(str(tmp_path / "model"))
    assert list(example.columns) == ["photo"]
    assert example["photo"][0].startswith(b"\xff\xd8")  # a JPEG
    kept = tmp_path / "model" / "artifacts" / "run"
    weights = sorted(run.path.rglob("model.safetensors"))
    assert len(weights) == 4
    for file in weights:
        assert (kept / file.relative_to(run.path)).samefile(file)
    lines = (tmp_path / "model" / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in lines] == list(NEEDED)
    assert all(re.fullmatch(r"[\w-]+==[\d.]+(\.post\d+)?", line) for line in lines)
    assert not list((tmp_path / "model").rglob("__pycache__"))
