"""Serve: one model behind an HTTP address, for other programs of the house.

It listens on the loopback address unless told otherwise; elsewhere every request must carry a token. ``app.py`` says
what may be asked.
"""

import ipaddress
import secrets
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from fmseg.errors import EnvironmentProblem, UsageError
from fmseg.workspace import Workspace

__all__ = ["ServeOptions", "is_loopback", "serve"]

TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What the user may choose."""

    host: str = "127.0.0.1"
    #: 0 takes a free one
    port: int = 8000
    #: of one request
    max_mb: float = 64.0
    #: requests that may wait for the model; more are told to come again
    max_waiting: int = 16
    mirror: bool = True


def serve(
    workspace: Workspace,
    dataset: str | None,
    model: Path | None,
    options: ServeOptions,
    tell: Callable[[str], None],
    plugins: Sequence[str] = (),
) -> None:
    """Serve the models of a dataset, or of a .fmseg file, until Ctrl-C.

    tell: called with what the user must know, once it is served. Raises EnvironmentProblem where the extra ``serve`` is
    missing or the port is taken.
    """
    import socket

    if model is not None and dataset is not None:
        raise UsageError(f"Whose models: those of {model} (-m) or of {dataset} (-d)? Type one of them.")
    try:
        import uvicorn

        from fmseg.stages.serve.app import Service, make_app
    except ImportError as error:
        raise EnvironmentProblem(
            f"fmseg serve needs the extra 'serve' ({error}): pip install 'fmseg[serve]'"
        ) from error
    from fmseg.inference.bundles import opened
    from fmseg.inference.choice import load_choice
    from fmseg.inference.trained import trained_results

    with opened(model, plugins) if model else nullcontext(trained_results(workspace, dataset)) as results:
        networks = load_choice(results).predictor(mirror=options.mirror)
        name = results.name
    token = None if is_loopback(options.host) else secrets.token_urlsafe(TOKEN_BYTES)
    service = Service(networks, name, options.max_waiting)
    app = make_app(service, max_bytes=int(options.max_mb * 1e6), token=token, host=options.host)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        listener.listen()  # who asks as soon as the address is told waits, and is not turned away
    except OSError as error:
        raise EnvironmentProblem(
            f"{options.host}, port {options.port}: {error.strerror}. Type another one after --host or --port."
        ) from error
    tell(f"{name} answers at http://{options.host}:{listener.getsockname()[1]}. Ctrl-C ends it.")
    if token is not None:
        tell(f"Others can reach it, without encryption. Requests need the header  Authorization: Bearer {token}")
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_keep_alive=5)
    # the way to end it, so no error
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone. Raises UsageError for what is none."""
    if host == "localhost":
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError as error:
        raise UsageError(f"--host {host}: type an IPv4 address, as 127.0.0.1 or 0.0.0.0.") from error
