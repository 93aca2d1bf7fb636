"""The model as a Ray Serve application, for many users: replicas that look at several photos at once.

    serve run search.serve:app model=runs/NAME/ensemble

`name=value` sets an argument of `ServeArgs`. The routes are those of `launch.py demo` without the
page: see trashseg/demo/api.py. What listens, Serve's HTTP and Ray itself, listens on 127.0.0.1 only.
"""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from ray import serve
from ray.serve import Application, Deployment
from ray.serve._private import replica

from search.cluster import LOCAL, connect
from trashseg.demo.api import make_api
from trashseg.demo.photos import decode_upload
from trashseg.demo.segment import Segmented, Segmenter, Settings
from trashseg.device import local_resources
from trashseg.ensemble import load_ensemble
from trashseg.errors import CheckpointError
from trashseg.sections import Positive, Section


class ServeArgs(Section):
    """What may be given as name=value."""

    model: Path
    """runs/NAME/ensemble, or a single fold's folder; at the same path on every node."""
    replicas: PositiveInt = 1
    """Copies of the model, and the fewest of them where there may be more."""
    max_replicas: PositiveInt | None = None
    """Serve adds replicas up to so many while photos wait; if left out their number is fixed."""
    batch: PositiveInt = 8
    """Photos that a replica's networks see at once, at most."""
    batch_wait: NonNegativeFloat = 0.05
    """Seconds that a photo waits for others to be seen with it."""
    cpus: Positive = 1
    """CPUs of a replica; the networks use as many threads."""
    gpus: NonNegativeFloat = 0
    """GPUs of a replica, or a share of one."""
    address: str = LOCAL
    """Ray cluster to run on; local starts one on this machine."""
    host: str = "127.0.0.1"
    """Address that the HTTP interface listens on."""
    port: PositiveInt = 8000
    """Its port."""

    @model_validator(mode="after")
    def _more_than_at_least(self) -> "ServeArgs":
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, replicas is {self.replicas}")
        return self


class Replica:
    """One loaded ensemble. Networks see photos together; what comes before and after, decoding and the
    CRF, runs in a thread for each photo."""

    def __init__(self, args: ServeArgs) -> None:
        _close_internal_server()
        resources = local_resources(cpus=max(1, round(args.cpus)))
        resources.claim()
        self._segmenter = Segmenter(load_ensemble(args.model, resources))
        self._segmenter.warm_up()
        batched = serve.batch(max_batch_size=args.batch, batch_wait_timeout_s=args.batch_wait)
        self._vote = batched(self._votes)  # of one image, seen with others
        self._photos = self._batches = 0

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(self._segmenter, self.segment, self.state)

    async def segment(self, content: bytes, settings: Settings) -> Segmented:
        image = await asyncio.to_thread(decode_upload, content)
        voted = await self._vote(image)
        return await asyncio.to_thread(self._segmenter.decide, image, voted, settings)

    async def _votes(self, images: list[Any]) -> list[Any]:
        self._photos += len(images)
        self._batches += 1
        return await asyncio.to_thread(self._segmenter.votes, images)

    def state(self) -> dict[str, int]:
        """Of this replica: photos looked at so far, and how often the networks ran for them."""
        return {"photos": self._photos, "batches": self._batches}


def _close_internal_server() -> None:
    """Open no port for calls from other deployments: here are none, and HTTP does not come this way.

    Ray Serve (2.60) has each replica listen on all interfaces for them. What is sent there is unpickled
    and nobody is asked for Ray's token: whoever reaches the machine could run code on it.
    """
    replica.add_port_to_grpc_server = lambda server, address: 0  # type: ignore[attr-defined]


def app(args: ServeArgs) -> Application:
    """What `serve run` calls. Joins or starts Ray and Serve first: left to `serve run`, Ray would listen
    on the network."""
    if not args.model.is_dir():
        raise CheckpointError(f"model={args.model}: no such folder: give runs/NAME/ensemble")
    args = args.model_copy(update={"model": args.model.resolve()})
    connect(args.address)
    serve.start(http_options={"host": args.host, "port": args.port})
    waiting = 2 * args.batch  # one batch that is seen, and one that gathers
    deployment: Deployment = serve.deployment(name="trashseg")(serve.ingress()(Replica))
    return deployment.options(
        max_ongoing_requests=waiting,
        max_queued_requests=10 * waiting,
        ray_actor_options={"num_cpus": args.cpus, "num_gpus": args.gpus},
        **_scaling(args),
    ).bind(args)


def _scaling(args: ServeArgs) -> dict[str, Any]:
    if args.max_replicas is None:
        return {"num_replicas": args.replicas}
    bounds = {"min_replicas": args.replicas, "max_replicas": args.max_replicas}
    return {"autoscaling_config": {**bounds, "target_ongoing_requests": args.batch}}
