"""The files in configs/ are what the code takes, the clusters' what Ray takes."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from search.config import load_search_config
from search.space import load_space
from tests.conftest import ROOT
from trashseg.config import TrainConfig
from trashseg.config_file import read_yaml

CLUSTERS = [ROOT / "cluster.yaml", *sorted((ROOT / "configs" / "clusters").glob("*.yaml"))]
SEARCHES = sorted((ROOT / "configs").glob("*.yaml"))


def test_base_yaml_lists_every_setting_with_its_default() -> None:
    assert read_yaml(ROOT / "configs" / "base.yaml") == TrainConfig().model_dump(mode="json")


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_every_search_file_loads_and_its_first_trial_lies_in_its_space(path: Path) -> None:
    config = load_search_config(path)
    space = load_space(config.search.space)
    assert space.apply(config.train, space.point_of(config.train)) == config.train


def test_a_recipe_can_be_searched_around() -> None:
    recipe = ROOT / "configs" / "recipes" / "fpn_efficientnet_b4.yaml"
    space = load_space("aug_loss")
    assert space.point_of(load_search_config(recipe).train)["loss.name"] == "cross_entropy"


# --- clusters ----------------------------------------------------------------------------------


@pytest.fixture(params=CLUSTERS, ids=lambda path: path.stem)
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A cluster file as `ray up` sees it, with Ray's own defaults for what it leaves out."""
    prepared = prepare_config(yaml.safe_load(request.param.read_text()))
    validate_config(prepared)
    return dict(prepared)


def test_a_cluster_gets_all_that_its_setup_needs_and_nothing_large(cluster: dict[str, Any]) -> None:
    mounts = dict(cluster["file_mounts"])
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert remote == f"~/trashseg/{local}"
        assert (ROOT / local).exists(), local
    needed = ["trashseg", "search", "configs", "launch.py", "Makefile", "pyproject.toml"]
    assert {*needed, "requirements.lock", "README.md"} == set(mounts.values())
    assert "make -C ~/trashseg install" in " ".join(cluster["setup_commands"])


def test_every_node_of_a_cluster_asks_for_the_token(cluster: dict[str, Any]) -> None:
    for which in ("head", "worker"):
        [start] = [c for c in cluster[f"{which}_start_ray_commands"] if "ray start" in c]
        assert start.startswith("RAY_AUTH_MODE=token TRASHSEG_CACHE=/var/tmp/trashseg ")
    assert cluster["setup_commands"][0] == "chmod 600 ~/.ray/auth_token"


def test_a_clusters_dashboard_is_not_on_the_network(cluster: dict[str, Any]) -> None:
    assert "--dashboard-host=127.0.0.1" in " ".join(cluster["head_start_ray_commands"])


def test_the_commands_of_a_cluster_are_a_shells(cluster: dict[str, Any]) -> None:
    """Folded lines of YAML may lose a quote or a bracket: bash reads each without running it."""
    kinds = ("head_setup_commands", "worker_setup_commands")
    kinds += ("head_start_ray_commands", "worker_start_ray_commands")
    for command in [command for kind in kinds for command in cluster[kind]]:
        checked = subprocess.run(["bash", "-nc", command], capture_output=True, text=True)
        assert checked.returncode == 0, f"{command}: {checked.stderr}"
        assert "#" not in command, "a comment in a folded line would be part of the command"


def test_setting_up_a_shell_twice_changes_it_once(cluster: dict[str, Any], tmp_path: Path) -> None:
    [command] = [command for command in cluster["setup_commands"] if ".bashrc" in command]
    (tmp_path / ".bashrc").touch()
    for _ in range(2):
        subprocess.run(["bash", "-ec", command], env={"HOME": str(tmp_path)}, check=True)
    assert (tmp_path / ".bashrc").read_text() == (
        "export RAY_AUTH_MODE=token TRASHSEG_CACHE=/var/tmp/trashseg "
        "PATH=~/trashseg/.venv/bin:$PATH\n"
    )


def test_the_head_in_the_cloud_trains_nothing() -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
