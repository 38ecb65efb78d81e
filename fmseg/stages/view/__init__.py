"""View: browse cases, labels and predictions in a browser, and mark labels that should be looked at again.

A small server for one person on this machine: it listens on the loopback address alone, and answers only whoever
knows the token in the address that it prints. ``sources.py`` says what is looked at, ``app.py`` what the browser may
ask for, ``marks.py`` keeps the marks.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fmseg.errors import EnvironmentProblem, UsageError
from fmseg.stages.view.sources import Source, dataset_source, folder_source
from fmseg.workspace import Workspace

__all__ = ["HOST", "Source", "dataset_source", "folder_source", "open_source", "serve"]

HOST = "127.0.0.1"
#: bytes of the token; so many nobody guesses
TOKEN_BYTES = 24


def open_source(workspace: Workspace, dataset: str | None, images: Path | None, predictions: Path | None) -> Source:
    """Return what is to be looked at. Raises UsageError unless it is a dataset, or images, perhaps with predictions."""
    if (dataset is None) == (images is None):
        raise UsageError(
            "Say what to look at: a dataset, as in 'fmseg view 501', or 'fmseg view -i images -p predictions'."
        )
    if images is not None:
        return folder_source(images, predictions)
    assert dataset is not None
    if predictions is not None:
        raise UsageError("-p goes with -i. A dataset has its own predictions: those that find_best chose.")
    return dataset_source(workspace, dataset)


def serve(source: Source, port: int, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. tell: called with the address once it is known; port 0 takes a free one.

    Raises EnvironmentProblem where the extra ``serve`` is missing or the port is taken.
    """
    import socket

    try:
        import uvicorn

        from fmseg.stages.view.app import make_app
    except ImportError as error:
        raise EnvironmentProblem(f"fmseg view needs the extra 'serve' ({error}): pip install 'fmseg[serve]'") from error
    token = secrets.token_urlsafe(TOKEN_BYTES)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # a browser that opens the address as soon as it is told waits, and is not turned away
    except OSError as error:
        raise EnvironmentProblem(f"Port {port} is taken ({error.strerror}). Type another one after --port.") from error
    tell(f"http://{HOST}:{listener.getsockname()[1]}/?token={token}")
    config = uvicorn.Config(make_app(source, token), log_level="warning", access_log=False, lifespan="off")
    # the way to end it, so no error
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
