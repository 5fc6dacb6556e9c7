"""The review page's addresses: static files, the project's data, sheets of thumbnails, and decisions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from nephila import __version__
from nephila.edits import NAMES
from nephila.errors import InputError, NephilaError
from nephila.review.decisions import Decisions, Stale
from nephila.review.pages import groups, micrographs, particles, runs, thresholds, views, volumes
from nephila.review.pictures import ALBUMS, Pictures, large_picture
from nephila.review.project import NotYet, Project, Refused
from nephila.review.reruns import Reruns
from nephila.review.security import Access, App, Guard

STATIC = Path(__file__).with_name("static")
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".svg": "image/svg+xml"}  # fmt: skip
KEEP = {"cache-control": "private, max-age=86400, immutable"}
"""For pictures: their address changes with what they show."""

Endpoint = Callable[[Request], Any]


class Review:
    """The project behind the addresses; every method answers one of them."""

    def __init__(self, folder: Path, who: str | None = None) -> None:
        self.project = Project(folder)
        self.decisions = Decisions(self.project, who)
        self.pictures = Pictures(self.project)
        self.reruns = Reruns(self.project)

    def overview(self, request: Request) -> dict[str, Any]:
        """Name, version, and which pages have something to show."""
        project = self.project
        pages = {
            "micrographs": project.exists(micrographs.TABLE),
            "ctf": bool(project.names(groups.PROFILES)),
            "groups": project.exists("results/ctf/def_sort.proposed.star"),
            "particles": project.exists(particles.PROPOSED),
            "thresholds": project.exists(thresholds.PROPOSED),
            "views": project.exists("results/averages/how_many.star"),
            "volumes": bool(volumes.listed(project)),
            "runs": runs.latest_log(project) is not None,
        }
        return {
            "name": project.config().project.name,
            "folder": str(project.folder),
            "version": __version__,
            "pages": pages,
            "running": runs.is_running(project),
            "albums": {name: [a.tile, a.columns, a.rows] for name, a in ALBUMS.items()},
        }

    def edit(self, request: Request) -> dict[str, Any]:
        """An edit: its rows, the proposal, what can be undone."""
        name = request.path_params["name"]
        if name not in NAMES:
            raise InputError(f"no edit {name!r}")
        return self.decisions.state(name, proposal_too="brief" not in request.query_params)

    def decide(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        """Take, undo, redo or mend."""
        if name not in NAMES:
            raise InputError(f"no edit {name!r}")
        action = content.get("action", "decide")
        if action in ("undo", "redo"):
            return self.decisions.undo(name, redo=action == "redo")
        if action == "mend":
            return self.decisions.mend(name)
        base, changes = content.get("base"), content.get("changes")
        if action != "decide" or not isinstance(base, str) or not isinstance(changes, list) or not changes:
            raise InputError("a decision is {base, changes: [[key, was, now], ...], what}")
        rows = []
        for change in changes:
            if not isinstance(change, list) or len(change) != 3 or not isinstance(change[0], str):
                raise InputError("a change is [key, was, now]")
            rows.append((change[0], change[1], change[2]))
        return self.decisions.decide(name, base, rows, str(content.get("what", "")))

    def sheet(self, request: Request) -> Response:
        """A sheet of thumbnails."""
        album, key, page = (request.path_params[name] for name in ("album", "key", "page"))
        find: dict[str, Callable[[], tuple[list[Any], Any]]] = {
            "micrographs": lambda: micrographs.micrograph_items(self.project),
            "spectra": lambda: micrographs.spectrum_items(self.project),
            "particles": lambda: particles.particle_items(self.project),
            "views": lambda: particles.view_items(self.project, key),
            "groups": lambda: thresholds.group_items(self.project, key),
            "averages": lambda: particles.average_items(self.project),
            "slices": lambda: volumes.slice_items(self.project),
        }
        if album not in find:
            raise InputError(f"no sheets {album!r}")
        items, stamp = find[album]()
        return Response(self.pictures.sheet(album, key, page, items, stamp), media_type="image/jpeg", headers=KEEP)

    def picture(self, request: Request) -> Response:
        """A micrograph, its spectrum, or the figure of its fit."""
        which, index = request.path_params["which"], request.path_params["index"]
        if which == "fit":
            return Response(micrographs.fit_picture(self.project, index), media_type="image/png")
        if which == "spectrum":
            return Response(micrographs.spectrum_picture(self.project, index), media_type="image/jpeg", headers=KEEP)
        if which == "micrograph":
            return Response(micrographs.micrograph_picture(self.project, index), media_type="image/jpeg")
        raise InputError(f"no picture {which!r}")

    def side(self, request: Request) -> Response:
        """Average of the particles on one side of a group's threshold."""
        try:
            threshold = float(request.query_params.get("threshold", ""))
        except ValueError:
            raise InputError("threshold: not a number") from None
        side = request.path_params["side"]
        if side not in ("kept", "dropped") or not math.isfinite(threshold):
            raise InputError("the average is that of the kept or of the dropped particles at a threshold")
        image = thresholds.side_average(self.project, request.path_params["group"], threshold, kept=side == "kept")
        return Response(large_picture(image, 96), media_type="image/jpeg")

    def volume(self, request: Request) -> Response:
        """A volume for drawing."""
        content = volumes.packed(self.project, request.path_params["index"])
        return Response(content, media_type="application/octet-stream", headers=KEEP)

    def groups(self, request: Request) -> dict[str, Any]:
        """Defocus groups as the edit makes them."""
        return groups.groups(self.project, self.decisions.state("def_sort")["rows"])

    def job_log(self, request: Request) -> Response:
        """The end of a job's log."""
        return PlainTextResponse(runs.job_log(self.project, request.query_params.get("name", "")))


def create_app(folder: Path, access: Access, who: str | None = None) -> App:
    """The ASGI application for a project, behind its guard."""
    review = Review(folder, who)
    project = review.project

    def data(function: Callable[[Request], Any]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            found = await run_in_threadpool(function, request)
            return found if isinstance(found, Response) else _json(found)

        return endpoint

    async def decide(request: Request) -> Response:
        try:
            content = json.loads(await request.body())
        except ClientDisconnect:
            return _problem(413, "the request is too large")
        except (ValueError, RecursionError):
            return _problem(400, "the request is not JSON")
        if not isinstance(content, dict):
            return _problem(400, "the request is not a JSON object")
        return _json(await run_in_threadpool(review.decide, request.path_params["name"], content))

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, Stale):
            name = request.path_params["name"]
            state = await run_in_threadpool(lambda: review.decisions.state(name, proposal_too=False))
            return _json({"error": str(error), "conflicts": error.conflicts, "theirs": state}, 409)
        status = 404 if isinstance(error, NotYet) else 403 if isinstance(error, Refused) else 422
        return _problem(status, " ".join(str(error).split()))

    async def disk(request: Request, error: Exception) -> Response:
        return _problem(500, f"{error.__class__.__name__}: {error}")

    routes = [
        Route("/api/project", data(review.overview)),
        Route("/api/edits/{name}", data(review.edit), methods=["GET"]),
        Route("/api/edits/{name}", decide, methods=["POST"]),
        Route("/api/reruns", data(lambda request: review.reruns.plan())),
        Route("/api/micrographs", data(lambda request: micrographs.micrographs(project))),
        Route("/api/picks/{index:int}", data(lambda request: micrographs.picks(project, request.path_params["index"]))),
        Route("/api/groups", data(review.groups)),
        Route("/api/optics", data(lambda request: micrographs.optics(project))),
        Route("/api/profiles", data(lambda request: groups.profiles(project))),
        Route("/api/particles", data(lambda request: particles.particles(project))),
        Route("/api/view/{view:int}", data(lambda request: particles.view_rows(project, request.path_params["view"]))),
        Route("/api/thresholds", data(lambda request: thresholds.thresholds(project))),
        Route("/api/views", data(lambda request: views.views(project))),
        Route("/api/volumes", data(lambda request: volumes.volumes(project))),
        Route("/api/run", data(lambda request: runs.run_status(project))),
        Route("/api/log", data(review.job_log)),
        Route("/data/volume/{index:int}", data(review.volume)),
        Route("/sheet/{album}/{key:int}/{page:int}", data(review.sheet)),
        Route("/average/{side}/{group:int}", data(review.side)),
        Route("/picture/{which}/{index:int}", data(review.picture)),
        *static_routes(),
    ]
    handlers: dict[Any, Any] = {NephilaError: refuse, OSError: disk}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), access)


def static_routes() -> list[Route]:
    """The files of the page, each at its own address and read once: there is no address that could lead elsewhere."""
    routes = []
    for path in sorted(STATIC.rglob("*")):
        if path.suffix in TYPES:
            address = f"/static/{path.relative_to(STATIC).as_posix()}"
            routes.append(Route("/" if path.name == "index.html" else address, _file(path.read_bytes(), path.suffix)))
    routes.append(Route("/favicon.ico", _file((STATIC / "icon.svg").read_bytes(), ".svg")))
    return routes


def _file(content: bytes, suffix: str) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return Response(content, headers={"content-type": TYPES[suffix]})

    return endpoint


def _json(content: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(content, status)


def _problem(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)
