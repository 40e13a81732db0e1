"""What a request was meant for whose path or method no route has: the closest route, to be named in the answer.

Base URLs are the commonest mistake: given as a whole endpoint (/v1/embeddings/embeddings), with another server's prefix
(/api/v1/embeddings), or without the endpoint (/v1).
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute
from typing_extensions import override

# Longer paths are no slips of the pen, and comparing takes time in the product of two lengths.
MAX_PATH_CHARS: Final = 64
# How alike two paths are, by `difflib`: /v1/embedding and /v1/embeddings are 0.96.
MIN_SIMILARITY: Final = 0.75


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and a path that are served."""

    method: str
    path: str

    @override
    def __str__(self) -> str:
        """Return both, as an error names them."""
        return f"{self.method} {self.path}"


class RouteTable:
    """The routes that callers may be pointed to.

    Args:
        routes: Routes of an application; those without a place in its documentation are left out.
        hidden: Beginnings of paths that are not told.
    """

    def __init__(self, routes: Sequence[BaseRoute], hidden: tuple[str, ...] = ()) -> None:
        self._endpoints = [
            Endpoint(method, route.path)
            for route in iter_route_contexts(routes)
            if route.path is not None
            and getattr(route.original_route, "include_in_schema", False)
            and "{" not in route.path
            and not route.path.startswith(hidden)
            for method in sorted((route.methods or set()) - {"HEAD"})
        ]

    def meant_by(self, method: str, path: str) -> Endpoint | None:
        """Return what a request was meant for, the method included; None where that cannot be told.

        Args:
            method: Its method.
            path: Its path, which no route has, or not with this method.
        """
        if len(path) > MAX_PATH_CHARS:
            return None
        # A route of the method first: some paths differ by it.
        ranked = sorted(self._endpoints, key=lambda endpoint: endpoint.method != method)
        path = path.lower()
        rules = (self._same, self._prefixed, self._alike, self._inside, self._below)
        return next((found for rule in rules if (found := rule(path, ranked)) is not None), None)

    @staticmethod
    def _same(path: str, ranked: list[Endpoint]) -> Endpoint | None:
        """The route of this very path, in other letters or by another method."""
        return next((endpoint for endpoint in ranked if endpoint.path == path), None)

    @classmethod
    def _prefixed(cls, path: str, ranked: list[Endpoint]) -> Endpoint | None:
        """A route of several segments that a path ends with: more telling than one that is spelt alike."""
        return cls._inside(path, [each for each in ranked if each.path.count("/") > 1])

    @staticmethod
    def _inside(path: str, ranked: list[Endpoint]) -> Endpoint | None:
        """The longest route that a path ends with, or that it repeats the end of."""

        def is_inside(endpoint: Endpoint) -> bool:
            own = endpoint.path
            if len(own) < 2:  # noqa: PLR2004 - "/" is inside of everything
                return False
            last = own[own.rindex("/") :]
            return path.endswith(own) or path == own + last

        return max(filter(is_inside, ranked), key=lambda endpoint: len(endpoint.path), default=None)

    @staticmethod
    def _alike(path: str, ranked: list[Endpoint]) -> Endpoint | None:
        """The route that is spelt most alike."""
        paths = list(dict.fromkeys(endpoint.path for endpoint in ranked))
        found = difflib.get_close_matches(path, paths, n=1, cutoff=MIN_SIMILARITY)
        return next((endpoint for endpoint in ranked if [endpoint.path] == found), None)

    @staticmethod
    def _below(path: str, ranked: list[Endpoint]) -> Endpoint | None:
        """The first route below a path that is a base URL."""
        base = path.rstrip("/")
        while base.endswith("/v1/v1"):
            base = base.removesuffix("/v1")
        return next(
            (endpoint for endpoint in ranked if base and endpoint.path.startswith(f"{base}/")), None
        )
