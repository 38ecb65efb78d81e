"""What may be asked of a served model: health, metrics, what it is, and one image at a time.

The image is the body of the request; what it is stands in its Content-Type or in ``?ending=.nii.gz``. Names that come
with a request are never used, bodies are cut off at the limit while they come in, and the model answers one request
after the other, so that memory is bounded whatever comes.
"""

import json
import secrets
import tempfile
import time
from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fmseg._version import __version__
from fmseg.errors import BadData, FmsegError
from fmseg.imaging.readers import read_case, write_label
from fmseg.inference.classes import ClassPredictor
from fmseg.inference.inputs import output_name
from fmseg.inference.predictor import Predictor
from fmseg.records.dataset import CaseFiles
from fmseg.records.endings import image_endings

HOSTS = ("127.0.0.1", "localhost")
ENDING_OF = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/bmp": ".bmp",
    "image/tiff": ".tif",
    "application/dicom": ".dcm",
}
TYPE_OF = {".png": "image/png", ".bmp": "image/bmp", ".tif": "image/tiff", ".gz": "application/gzip"}
#: of a client that is told to come again
RETRY_S = 5


class Service:
    """One model, which answers one request after the other, and what it has done."""

    def __init__(self, networks: Predictor | ClassPredictor, name: str, max_waiting: int) -> None:
        self.networks = networks
        self.name = name
        self.max_waiting = max_waiting
        self.waiting = 0
        self.requests: Counter[int] = Counter()
        self.seconds = 0.0
        self._model = Lock()

    @property
    def classes(self) -> dict[str, str]:
        """Label value -> class or region; of classes of whole images, number -> class."""
        if isinstance(self.networks, Predictor):
            return {str(v): n for v, n in zip(self.networks.scheme.painted, self.networks.scheme.names, strict=True)}
        return {str(number): name for number, name in enumerate(self.networks.scheme.names)}

    def answer(self, content: bytes, ending: str) -> Response:
        """Predict one image. Raises FmsegError without a path in it."""
        # decoding too is done for one request at a time: the memory that it takes is bounded so
        with self._model, tempfile.TemporaryDirectory(prefix="fmseg_") as folder:
            path = Path(folder) / f"image{ending}"
            path.write_bytes(content)
            files = CaseFiles("image", (path,), None)
            begun = time.monotonic()
            try:
                case = read_case(files, self.networks.plans.reader)
                if isinstance(self.networks, ClassPredictor):
                    return self._classes(self.networks.predict_case(case))
                done = self.networks.predict_case(case)
                target = Path(folder) / "out" / output_name(files)
                write_label(done.labels, case.geometry, target)
            except FmsegError as error:
                raise type(error)(*(str(part).replace(f"{folder}/", "") for part in error.args)) from error
            finally:
                self.seconds += time.monotonic() - begun
            headers = {
                "X-Confidence": f"{done.confidence:.4g}",
                "X-Disagreement": f"{done.disagreement:.4g}",
                "X-Classes": json.dumps(self.classes),  # ASCII, whatever the names
            }
            return Response(target.read_bytes(), media_type=_type_of(target), headers=headers)

    def _classes(self, verdict: Any) -> Response:
        names = self.networks.scheme.names
        value = {
            "classes": list(verdict.classes),
            "probabilities": {n: float(p) for n, p in zip(names, verdict.probabilities, strict=True)},
            "confidence": verdict.confidence,
            "disagreement": verdict.disagreement,
        }
        return JSONResponse(value)

    def health(self, request: Request) -> Response:
        """Say that it is there, and how many requests wait."""
        return JSONResponse({"status": "ok", "model": self.name, "waiting": self.waiting})

    def about(self, request: Request) -> Response:
        """Say what the model is."""
        plans = self.networks.plans
        value = {
            "model": self.name,
            "task": plans.task,
            "modality": plans.modality,
            "channels": plans.preprocessing.channels,
            "classes": self.classes,
            "networks": len(self.networks.members),
            "fmseg": __version__,
        }
        return JSONResponse(value)

    def metrics(self, request: Request) -> Response:
        """Return counts in the text format of Prometheus."""
        lines = ["# TYPE fmseg_requests_total counter"]
        lines += [f'fmseg_requests_total{{status="{code}"}} {n}' for code, n in sorted(self.requests.items())]
        lines += ["# TYPE fmseg_model_seconds_total counter", f"fmseg_model_seconds_total {self.seconds:.3f}"]
        lines += ["# TYPE fmseg_waiting gauge", f"fmseg_waiting {self.waiting}"]
        return PlainTextResponse("\n".join(lines) + "\n")


def make_app(service: Service, *, max_bytes: int, token: str | None, host: str = HOSTS[0]) -> Starlette:
    """Return the application.

    token: that every request must carry; None for an address of this machine alone, which then must be asked by one of
    its own names, so that a page from elsewhere gets nothing. host: one more of these names.
    """

    async def predict(request: Request) -> Response:
        try:
            if service.waiting >= service.max_waiting:
                raise HTTPException(503, "The model is busy. Ask again later.", {"Retry-After": str(RETRY_S)})
            service.waiting += 1
            try:
                content = await _body(request, max_bytes)
                response = await run_in_threadpool(service.answer, content, _ending(request))
            finally:
                service.waiting -= 1
        except BadData as error:
            response = JSONResponse({"error": str(error)}, 422)
        except HTTPException as error:
            response = await _refusal(request, error)
        except Exception:
            service.requests[500] += 1
            raise
        service.requests[response.status_code] += 1
        return response

    routes = [
        Route("/health", service.health),
        Route("/metrics", _guarded(service.metrics, token)),
        Route("/model", _guarded(service.about, token)),
        Route("/predict", _guarded(predict, token), methods=["POST"]),
    ]
    middleware = [] if token else [Middleware(TrustedHostMiddleware, allowed_hosts=[host, *HOSTS])]
    handlers: Any = {HTTPException: _refusal, Exception: _fault}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _guarded(handler: Any, token: str | None) -> Any:
    """Return a handler that answers those alone who know the token."""
    if token is None:
        return handler
    wanted = f"Bearer {token}".encode()

    async def guarded(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        if not secrets.compare_digest(given, wanted):
            return JSONResponse({"error": "The header Authorization: Bearer TOKEN is missing or wrong."}, 401)
        if handler.__name__ == "predict":
            answer: Response = await handler(request)
            return answer
        return await run_in_threadpool(handler, request)

    return guarded


async def _body(request: Request, max_bytes: int) -> bytes:
    """Return the body, read no further than the limit."""
    too_large = HTTPException(413, f"The image has more than {max_bytes:,} bytes. Send a smaller one.")
    if int(request.headers.get("content-length") or 0) > max_bytes:
        raise too_large
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > max_bytes:
            raise too_large
    if not content:
        raise HTTPException(400, "There is no image in the request: its body is the file.")
    return bytes(content)


def _ending(request: Request) -> str:
    """Return the ending of the file in the body, one of those that are read."""
    asked = request.query_params.get("ending", "").lower()
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    ending = asked or ENDING_OF.get(kind, "")
    if ending not in image_endings():
        known = ", ".join(sorted(ENDING_OF))
        raise HTTPException(
            415, f"What is it? Set Content-Type to one of {known}, or add ?ending=.nii.gz to the address."
        )
    return ending


def _type_of(path: Path) -> str:
    return TYPE_OF.get(path.suffix.lower(), "application/octet-stream")


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _fault(request: Request, error: Exception) -> Response:
    """Say no more than that something went wrong: details are for the log of the server."""
    return JSONResponse({"error": f"The model failed ({type(error).__name__}). See the log of the server."}, 500)
