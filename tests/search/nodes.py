"""Several Ray nodes on this machine, each with its own raylet, name and environment."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.cluster_utils import Cluster

OWN_MOUNTS = ("unshare", "--mount", "--map-root-user", "--pid", "--fork", "--kill-child")
START_SECONDS = 120.0
# A node that is gone is missed after 3 checks half a second apart, not 5 checks 3 seconds apart; a node
# that hears nothing of the head gives up after 10 seconds, not 60, and takes 5 seconds without an answer
# from the network for silence, not 120.
WATCHFUL = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "gcs_rpc_server_reconnect_timeout_s": 10,
    "grpc_client_keepalive_timeout_ms": 5000,
}


class Nodes:
    """Nodes that a test adds and kills. No driver is connected: `connect(nodes.address)` does that."""

    def __init__(self) -> None:
        self._cluster = Cluster()  # type: ignore[no-untyped-call]
        self._nodes: dict[str, Any] = {}
        self._machines: dict[str, subprocess.Popen[bytes]] = {}
        self._networks: dict[str, Network] = {}
        self._frozen: set[str] = set()

    @property
    def address(self) -> str:
        """HOST:PORT for `search.address`."""
        return str(self._cluster.address)

    def add(self, name: str, cpus: int = 1, **environment: str) -> None:
        """Returns when the node is up; the first one is the head. `environment`: its workers'."""
        self._nodes[name] = self._cluster.add_node(
            num_cpus=cpus,
            node_name=name,
            env_vars=environment or None,
            include_dashboard=False,
            **({} if self._nodes else {"_system_config": WATCHFUL}),
        )

    def join(self, name: str, cpus: int = 1) -> None:
        """`add` while a search runs: from any thread, as `ray start` on another machine does it."""
        self._start_machine(self._ray_start(name, cpus), name)

    def add_without(self, hidden: Path, name: str, cpus: int = 1) -> None:
        """A node that sees an empty folder in the place of `hidden`, as if that were not mounted.

        It runs in namespaces of its own.
        """
        script = (
            f"mount -t tmpfs none {shlex.quote(str(hidden))} && "
            f"exec {shlex.join(self._ray_start(name, cpus))}"
        )
        self._start_machine([*OWN_MOUNTS, "--mount-proc", "sh", "-c", script], name)

    def join_over_network(self, name: str, cpus: int = 1) -> None:
        """A node with a network of its own, which reaches the others over a cable that `cut` cuts."""
        self._networks[name] = network = Network(len(self._networks) + 1)
        network.lay()
        command = [*self._ray_start(name, cpus), f"--node-ip-address={network.far}"]
        self._start_machine(["ip", "netns", "exec", network.name, *command], name)

    def cut(self, name: str) -> None:
        """The node runs on, and nobody hears of it any more."""
        self._networks[name].cut()

    def _ray_start(self, name: str, cpus: int) -> list[str]:
        ray_command = str(Path(sys.executable).with_name("ray"))
        return [
            ray_command, "start", "--block", f"--address={self.address}", f"--num-cpus={cpus}",
            f"--node-name={name}", "--object-store-memory=100000000",
        ]  # fmt: skip

    def _start_machine(self, command: list[str], name: str) -> None:
        """Returns when the connected driver sees the node."""
        self._machines[name] = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + START_SECONDS
        while name not in self.alive():
            assert self._machines[name].poll() is None, f"{name} did not start"
            assert time.monotonic() < deadline, f"{name} did not join: {self.alive()}"
            time.sleep(0.2)

    def kill(self, name: str) -> None:
        """All of its processes end at once, as when a machine is taken away."""
        if name in self._machines:
            machine = self._machines.pop(name)
            os.killpg(machine.pid, signal.SIGKILL)
            machine.wait()
        else:
            self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def freeze(self, name: str) -> None:
        """The node stops answering and is still there, until Ray has waited for 3 answers in vain."""
        [raylet] = self._nodes[name].all_processes[ray_constants.PROCESS_TYPE_RAYLET]
        os.kill(raylet.process.pid, signal.SIGSTOP)
        self._frozen.add(name)

    def alive(self) -> set[str]:
        """Names of the nodes that the connected driver sees."""
        return {node["NodeName"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]

    def restore(self, *names: str) -> None:
        """Exactly the nodes of these names, with one CPU each, whatever was added, killed or frozen. No
        driver may be connected."""
        for name in [*self._nodes, *self._machines]:
            if name not in names or name in self._frozen:
                self.kill(name)
        self._frozen.clear()
        for name in names:
            if name not in self._nodes:
                self.add(name)
        ray.init(address=self.address, logging_level="error")
        deadline = time.monotonic() + START_SECONDS
        while self.alive() != set(names):
            assert time.monotonic() < deadline, f"there are {self.alive()}"
            time.sleep(0.1)
        ray.shutdown()

    def shutdown(self) -> None:
        for name in list(self._machines):
            self.kill(name)
        for network in self._networks.values():
            network.remove()
        self._cluster.shutdown()  # type: ignore[no-untyped-call]


class Network:
    """A network namespace and a cable (a veth pair) from it to this machine's own network."""

    def __init__(self, number: int) -> None:
        self.name = f"trashseg{os.getpid() % 10_000}-{number}"
        self._near_end, self._far_end = (
            f"ts{os.getpid() % 10_000}-{number}{end}" for end in ("n", "f")
        )
        subnet = f"10.{100 + number}.{os.getpid() % 250}"
        self.near, self.far = f"{subnet}.1", f"{subnet}.2"

    def lay(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "add", self._near_end, "type", "veth", "peer", "name", self._far_end)
        ip("link", "set", self._far_end, "netns", self.name)
        ip("address", "add", f"{self.near}/30", "dev", self._near_end)
        ip("link", "set", self._near_end, "up")
        ip("-n", self.name, "address", "add", f"{self.far}/30", "dev", self._far_end)
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("-n", self.name, "link", "set", self._far_end, "up")
        ip("-n", self.name, "route", "add", "default", "via", self.near)

    def cut(self) -> None:
        ip("link", "set", self._near_end, "down")

    def remove(self) -> None:
        """With the namespace its end of the cable goes, and so does the other one."""
        ip("netns", "delete", self.name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def can_make_networks() -> bool:
    """Is iproute2 here, and may this user make network namespaces? Not in every container."""
    if shutil.which("ip") is None:
        return False
    network = Network(99)
    try:
        network.lay()
    except subprocess.CalledProcessError:
        return False
    finally:
        subprocess.run(["ip", "netns", "delete", network.name], capture_output=True)
    return True


def can_hide_folders() -> bool:
    """May this user make namespaces? Not in every container."""
    tried = subprocess.run([*OWN_MOUNTS, "--mount-proc", "true"], capture_output=True)
    return os.name == "posix" and tried.returncode == 0
