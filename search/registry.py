"""The ensemble of a run as a version of a model in MLflow's registry, and who is its champion.

A version is all that it takes to run it (search/model_folder.py): it costs the size of its members'
weights once more, where MLflow keeps artifacts, and nothing on the disk of the run.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from sqlalchemy.exc import SQLAlchemyError

from search.champion import ALIAS, Score, contest
from search.mlflow_store import environment, few_retries, first_line
from search.model_card import shortened, write_model_card
from search.model_folder import content_key, scratch, write_model
from search.run_folder import RunFolder
from search.tables import command
from search.tracking import Tracker
from trashseg.errors import ConfigError, TrashSegError

KEY = "ensemble"  # the tag that tells which ensemble a version is
MEGABYTE = 1e6
Say = Callable[[str], None]


def register_later(run: RunFolder, name: str | None, say: Say) -> None:
    """Register the run's ensemble, under its own setting where there is no `name`; TrashSegError where
    that cannot be."""
    name = name or run.config.search.registered_model
    if name is None:
        raise ConfigError(
            f"{run.search_yaml}: search.registered_model is null: name a model with --as"
        )
    with run.locked():
        if not (run.ensemble / "manifest.yaml").is_file():
            raise ConfigError(f"{run.path}: has no ensemble yet: run {command('ensemble', run)}")
        if not run.model_card.is_file():
            write_model_card(run, run.dataset())
        with Tracker(run, run.config.search.tracking_uri, warn=say).closing():
            pass  # what waits for MLflow is sent first: a version names the run that it comes from
        register(run, name, say)


def register_now(run: RunFolder, say: Say) -> None:
    """As a command's last step: where the registry cannot be had the rest is done all the same. The run
    must be locked, and MLflow have all that was said of it."""
    name = run.config.search.registered_model
    if name is not None:
        try:
            register(run, name, say)
        except TrashSegError as error:
            say(f"not registered: {error}")


def register(run: RunFolder, name: str, say: Say) -> None:
    """Make the ensemble a version of the model `name`, once however often it is called, and champion
    where it is better; say both."""
    uri = run.config.search.tracking_uri
    quiet = environment(MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false")
    with or_later(run), quiet, _use_tracking_uri(uri):  # where its sqlite registry looks models up
        client = MlflowClient(uri)
        with few_retries():
            source = client.get_run(ensemble_run(run)).info
        key, score = content_key(run), read_score(run)
        ensure_model(client, name)
        version = find_version(client, name, key)
        if version:
            say(f"this ensemble is version {version.version} of {name} already")
        else:
            tags = {KEY: key, "run": run.path.name, **score.tags}
            version = add_version(client, run, name, source.experiment_id, source.run_id, tags, say)
        crown(client, name, str(version.version), score, say)


def ensemble_run(run: RunFolder) -> str:
    """The id of its MLflow run."""
    ids = run.mlflow_ids()
    if "ensemble" not in ids:
        raise MlflowException("it has not heard of the ensemble yet")
    return ids["ensemble"]


def read_score(run: RunFolder) -> Score:
    nested = json.loads((run.ensemble / "metrics.json").read_text())["nested"]
    metric = json.loads((run.ensemble / "post.json").read_text())["metric"]
    return Score(nested[metric], metric, json.loads(run.dataset_json.read_text())["key"])


# --- what is asked of MLflow -------------------------------------------------------------------


def ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def find_version(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = '{name}' AND tags.{KEY} = '{key}'")
    return found[0] if found else None


def add_version(
    client: MlflowClient,
    run: RunFolder,
    name: str,
    experiment: str,
    run_id: str,
    tags: dict[str, str],
    say: Say,
) -> ModelVersion:
    logged = client.create_logged_model(experiment, "ensemble", run_id, tags, model_type="ensemble")
    model = Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id)
    with scratch(run.path / "model.partial") as folder:
        write_model(run, folder, model, {"run": run.path.name, **tags})
        upload(client, logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    version = client.create_model_version(
        name,
        source=f"models:/{logged.model_id}",
        run_id=run_id,
        tags=tags,
        description=shortened(run.model_card.read_text()),
        model_id=logged.model_id,
    )
    megabytes = (model.model_size_bytes or 0) / MEGABYTE
    say(f"registered: version {version.version} of {name}, {megabytes:.0f} MB")
    return version


def upload(client: MlflowClient, model_id: str, folder: Path) -> None:
    try:
        client.log_model_artifacts(model_id, str(folder))
    except Exception as error:  # each kind of store has a library with errors of its own
        raise OSError(f"artifacts: {type(error).__name__}: {first_line(error)}") from error


def crown(client: MlflowClient, name: str, version: str, score: Score, say: Say) -> None:
    """Move the alias to `version` if it wins."""
    aliases = {alias: str(of) for alias, of in client.get_registered_model(name).aliases.items()}
    champion = aliases.get(ALIAS)
    if champion == version:
        say(f"{ALIAS} of {name}: version {version} is it")
        return
    tags = client.get_model_version(name, champion).tags if champion else {}
    verdict = contest(score, champion, Score.of_tags(tags))
    if verdict.wins:
        client.set_registered_model_alias(name, ALIAS, version)
        say(f"{ALIAS} of {name}: version {version}, {verdict.why}")
    else:
        say(f"{ALIAS} of {name}: {verdict.why}")


@contextmanager
def or_later(run: RunFolder) -> Iterator[None]:
    """TrashSegError with the command that tries again, for whatever keeps MLflow from it."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrashSegError(
            f"MLflow at {run.config.search.tracking_uri} cannot take the ensemble "
            f"({first_line(error)}): when it can, run {command('register', run)}"
        ) from error
