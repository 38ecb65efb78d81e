"""What the browser may ask for: the page, the list of cases, pictures and layers, and to set marks.

Every request must carry the token, and must have been sent to this machine by name: a page of someone else's that
knows the port gets nothing. Pictures are made when they are asked for, and kept for a while.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fmseg.errors import FmsegError
from fmseg.reporting.case_pictures import as_picture, webp
from fmseg.reporting.layers import LAYERS, layer_png
from fmseg.reporting.overlays import overlay
from fmseg.reporting.page import templates
from fmseg.stages.view.marks import Marks
from fmseg.stages.view.sources import Source, Volume

THUMBNAIL_PX, PICTURE_PX = 144, 1600
#: kept pictures of the list, about 4 kB each, and kept cases, which may be whole clips
MOST_THUMBNAILS, MOST_VOLUMES = 5000, 4
HOSTS = ["127.0.0.1", "localhost"]
POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'nonce-{nonce}'; "
    "script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The values that were asked for last; each is made once, also when several threads ask."""

    def __init__(self, make: Callable[[K], V], most: int) -> None:
        self._make = make
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def __call__(self, key: K) -> V:
        """Return the value of a key."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = self._make(key)
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


class Viewer:
    """Answers the requests for one source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.marks = Marks.open(source.marks)
        self._volumes: Kept[int, Volume] = Kept(self._read, MOST_VOLUMES)
        # a list of thousands is scrolled through: its cases must not push out the one that is looked at
        self._thumbnails: Kept[int, bytes] = Kept(self._thumbnail, MOST_THUMBNAILS)

    def page(self, request: Request) -> Response:
        """Return the page itself."""
        nonce = secrets.token_urlsafe(12)
        html = templates().get_template("view.html").render(title=self.source.title, nonce=nonce)
        headers = {"Content-Security-Policy": POLICY.format(nonce=nonce), "Referrer-Policy": "no-referrer"}
        return Response(html, media_type="text/html", headers=headers)

    def cases(self, request: Request) -> Response:
        """Return all cases with what is known of them, classes, and the marks."""
        marks = {self.source.numbers[case]: mark.note for case, mark in self.marks.all().items()
                 if case in self.source.numbers}  # fmt: skip
        return JSONResponse({"classes": self.source.classes, "rows": self.source.rows, "marks": marks})

    def case(self, request: Request) -> Response:
        """Return the size of one case, and which layers it has."""
        volume = self._volumes(self._number(request))
        layers = [name for name in LAYERS if LAYERS[name] <= set(volume.layers)]
        _, depth, height, width = volume.voxels.shape
        return JSONResponse({"depth": depth, "height": height, "width": width, "layers": layers})

    def thumbnail(self, request: Request) -> Response:
        """Return the small picture of the list."""
        return _picture(self._thumbnails(self._number(request)), "image/webp")

    def image(self, request: Request) -> Response:
        """Return one slice."""
        voxels = self._volumes(self._number(request)).voxels
        return _picture(webp(as_picture(voxels[:, _slice(request, voxels.shape[1])]), PICTURE_PX), "image/webp")

    def layer(self, request: Request) -> Response:
        """Return one slice of a layer: a transparent picture to lay over the image."""
        volume, name = self._volumes(self._number(request)), request.path_params["name"]
        if name not in LAYERS or not LAYERS[name] <= set(volume.layers):
            return PlainTextResponse(f"This case has no {name}.", 404)
        z = _slice(request, volume.voxels.shape[1])
        return _picture(layer_png(name, {key: values[z] for key, values in volume.layers.items()}), "image/png")

    def mark(self, request: Request) -> Response:
        """Set a mark (PUT, with a note), or take it away (DELETE)."""
        case = self.source.rows[self._number(request)]["case"]
        self.marks.set(case, request.query_params.get("note", "") if request.method == "PUT" else None)
        return Response(status_code=204)

    def export(self, request: Request) -> Response:
        """Return the marks as CSV."""
        headers = {"Content-Disposition": 'attachment; filename="marks.csv"'}
        return Response(self.marks.table(), media_type="text/csv", headers=headers)

    def _number(self, request: Request) -> int:
        number: int = request.path_params["number"]
        if number >= len(self.source.rows):
            raise FmsegError(f"There is no case {number}.")
        return number

    def _read(self, number: int) -> Volume:
        return self.source.volume(self.source.rows[number]["case"])

    def _thumbnail(self, number: int) -> bytes:
        volume = self._read(number)
        shown = volume.layers.get("prediction", volume.layers.get("label"))
        z = volume.voxels.shape[1] // 2 if shown is None else int((shown > 0).sum(axis=(1, 2)).argmax())
        picture = as_picture(volume.voxels[:, z])
        if shown is not None and shown.shape[1:] == picture.shape[:2]:
            picture = overlay(picture, shown[z])
        return webp(picture, THUMBNAIL_PX)


def make_app(source: Source, token: str) -> Starlette:
    """Return the application for one source; ``token`` must be in every address."""
    viewer = Viewer(source)

    def guarded(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
        def ask(request: Request) -> Response:
            if secrets.compare_digest(request.query_params.get("token", "").encode(), token.encode()):
                return answer(request)
            return PlainTextResponse("Open the address that fmseg view has printed: its token is missing.", 403)

        return ask

    routes = [
        Route("/", guarded(viewer.page)),
        Route("/cases", guarded(viewer.cases)),
        Route("/case/{number:int}", guarded(viewer.case)),
        Route("/thumbnail/{number:int}", guarded(viewer.thumbnail)),
        Route("/image/{number:int}/{z:int}", guarded(viewer.image)),
        Route("/layer/{number:int}/{name}/{z:int}", guarded(viewer.layer)),
        Route("/mark/{number:int}", guarded(viewer.mark), methods=["PUT", "DELETE"]),
        Route("/marks.csv", guarded(viewer.export)),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    return Starlette(routes=routes, middleware=[hosts], exception_handlers={FmsegError: _told})


def _told(request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), 404)


def _picture(content: bytes, kind: str) -> Response:
    return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})


def _slice(request: Request, depth: int) -> int:
    return min(int(request.path_params["z"]), depth - 1)
