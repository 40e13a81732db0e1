"""The console: a page over the public API, made beforehand and served as files; the server keeps nothing for it."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

router = APIRouter(tags=["operations"])

PAGE_NAME: Final = "index.html"
FILES: Final = StaticFiles(directory=Path(__file__).parent.parent / "console", check_dir=False)
# Asked again each time, and mostly answered by 304: a new version of the server brings a new page at once.
CACHE_CONTROL: Final = "no-cache"


@router.get("/console", include_in_schema=False)
async def console(request: Request) -> Response:
    """Lead to the page by a path of its own, so that what it names beside itself is found behind any proxy."""
    # The path that routes see has lost its last slash, and may have lost what a proxy took off.
    ends_with_slash = request.scope.get("raw_path", b"").endswith(b"/")
    return RedirectResponse(PAGE_NAME if ends_with_slash else f"console/{PAGE_NAME}")


@router.get("/console/{name}", include_in_schema=False)
async def console_file(request: Request, name: str) -> Response:
    """Serve one of the page's files.

    Raises:
        HTTPException: There is no such file (404).
    """
    response = await FILES.get_response(name, request.scope)
    response.headers["cache-control"] = CACHE_CONTROL
    return response
