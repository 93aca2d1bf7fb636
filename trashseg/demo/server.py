"""`launch.py demo`: page and interface on one port, for this machine alone unless a host is given."""

import ipaddress
import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from types import FrameType

import uvicorn
from fastapi import FastAPI

from trashseg.demo.api import make_api
from trashseg.demo.samples import Sample
from trashseg.demo.segment import Segmenter
from trashseg.demo.service import Service
from trashseg.ensemble import Ensemble
from trashseg.errors import ConfigError, ResourceError


def make_app(segmenter: Segmenter, samples: Sequence[Sample] = ()) -> FastAPI:
    """The interface, and the page at its root; one model for both."""
    from trashseg.demo.page import mount_page

    service = Service(segmenter)
    return mount_page(make_api(segmenter, service.segment, service.state), service, samples)


def require_gradio() -> None:
    """ConfigError where the page's library is not installed."""
    if find_spec("gradio") is None:  # imported later: it makes a folder for its files at once
        raise ConfigError(
            "launch.py demo: gradio is not installed: run pip install 'trashseg[demo]'"
        )


def serve(ensemble: Ensemble, samples: Sequence[Sample], listener: socket.socket) -> None:
    """Until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="trashseg-") as folder:
        # stays empty; without it Gradio would make one that all users of the machine share
        os.environ["GRADIO_TEMP_DIR"] = folder
        ensemble.resources.claim()
        segmenter = Segmenter(ensemble)
        segmenter.warm_up()
        app = make_app(segmenter, samples)
        host, port, *_ = listener.getsockname()
        print(f"http://{host}:{port}    Ctrl-C ends it", flush=True)
        if not ipaddress.ip_address(host).is_loopback:
            print("Whoever reaches this machine can use it: there is no password.", flush=True)
        # who sent a photo, and when, is not written down either
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,  # pages that are open keep a connection
        )
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """ResourceError where nobody can. Comes before the model is loaded, which takes seconds."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except (OSError, OverflowError) as error:
        code = getattr(error, "errno", None)
        reason = os.strerror(code) if code and code > 0 else error
        raise ResourceError(
            f"--host {host} --port {port}: cannot listen there ({reason}): choose others"
        ) from None


def _leave(_: int, __: FrameType | None) -> None:
    """uvicorn raises the signal once more when it has ended: leave through the blocks above."""
    raise SystemExit(0)
