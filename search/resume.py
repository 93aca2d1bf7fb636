"""Going on with a search: is it the same one, and what did the last command not get to do?"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from search.config import SearchConfig
from search.ledger import Ledger
from search.run_folder import RunFolder, space_tree
from search.space import Space
from trashseg.data.cache import dataset_key
from trashseg.data.coco import CocoDataset
from trashseg.errors import ConfigError

# Where and how fast a search runs; everything else decides what it finds.
MAY_CHANGE = {
    "search.trials",
    "search.space",  # a file's place; what it says is compared
    "search.data_dir",  # a folder's place; its photos are compared
    "search.storage",
    "search.tracking_uri",
    "search.registered_model",
    "search.address",
    "search.finalists",  # what comes after the search
    "search.final_rounds",
    "search.gpus_per_trial",
    "search.cpus_per_trial",
    "search.max_failures",
    "search.time_budget",
    "search.min_free_gb",
}


def check_same_search(
    run: RunFolder, config: SearchConfig, space: Space, dataset: CocoDataset
) -> None:
    """ConfigError, naming the key that differs, where `config` is another search than `run`'s."""
    was, now = run.config.model_dump(mode="json"), config.model_dump(mode="json")
    for key, before, after in differences(was, now):
        if key not in MAY_CHANGE:
            raise ConfigError(
                f"{key}: is {after}, the run's is {before}: leave it as it was, or search under "
                "another --name"
            )
    if space_tree(run.space) != space_tree(space):
        changed = first_difference(space_tree(run.space), space_tree(space))
        raise ConfigError(
            f"search.space: {config.search.space} says something else of {changed} than the run's "
            f"{run.space_yaml}: search under another --name"
        )
    if json.loads(run.dataset_json.read_text())["key"] != dataset_key(dataset):
        raise ConfigError(
            f"search.data_dir: {dataset.root} holds other photos or polygons than the run's: "
            "give the same ones, or search under another --name"
        )


def differences(
    was: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, before, after) of every leaf that differs; a `name` comes before its siblings."""
    for key in sorted({*was, *now}, key=lambda key: (key != "name", key)):
        before, after = was.get(key), now.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield prefix + key, before, after


def first_difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return next(key for key in [*was, *now] if was.get(key) != now.get(key))


def check_trials(ledger: Ledger, config: SearchConfig, run: RunFolder) -> None:
    """ConfigError where fewer trials are asked for than there are."""
    if config.search.trials < ledger.proposed:
        raise ConfigError(
            f"--trials {config.search.trials}: {run.path} has {ledger.proposed} trials already: "
            "ask for more, or leave it out"
        )
