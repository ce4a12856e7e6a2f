"""`/api/docs`: Swagger UI from our own address, so that it works offline and under a policy without inline scripts.

The files of Swagger UI come with the package fastapi-offline; nothing else of that package is used.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

OURS = Path(__file__).parent / "static"
HOUR = "public, max-age=3600"
KINDS = {".js": "text/javascript", ".css": "text/css", ".png": "image/png"}


def _assets() -> dict[str, Traversable]:
    theirs = files("fastapi_offline") / "static"
    names = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
    return {name: theirs / name for name in names} | {"start.js": OURS / "start.js"}


ASSETS = _assets()


@router.get("/api/docs")
async def docs() -> Response:
    """Return the page; its script reads /api/openapi.json."""
    return HTMLResponse((OURS / "docs.html").read_text("utf-8"))


@router.get("/api/docs/{name}")
async def asset(name: str) -> Response:
    """Return one of the files that the page is made of."""
    if name not in ASSETS:
        raise HTTPException(404)
    kind = KINDS[Path(name).suffix]
    return Response(ASSETS[name].read_bytes(), media_type=kind, headers={"Cache-Control": HOUR})
