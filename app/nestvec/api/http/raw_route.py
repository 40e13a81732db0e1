"""Routes whose handlers take the raw request and return a ready response; FastAPI only documents them.

Handlers parse by hand and return bytes, so FastAPI's dependency solving and response building would be work for
nothing: about a tenth of the event loop's time under single short texts.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, cast

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from typing_extensions import override

from nestvec.api.http.sliced_response import sliced

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
# Key in the scope of a HEAD request, which is routed as GET.
IS_HEAD: Final = "nestvec.is_head"


class RawRoute(APIRoute):
    """A route of an endpoint `async def (request: Request, **path parameters) -> Response`."""

    @override
    def get_route_handler(self) -> Handler:
        """Return the endpoint itself, without FastAPI's dependency solving.

        What reads the request may leave headers for the answer in `request.state.answer_headers`.
        """
        endpoint = cast("Callable[..., Coroutine[Any, Any, Response]]", self.endpoint)

        async def handle(request: Request) -> Response:
            response = await endpoint(request, **request.path_params)
            response.headers.update(getattr(request.state, "answer_headers", {}))
            if IS_HEAD in request.scope:
                request.scope["method"] = "HEAD"  # so that an answer from a file does not read it
            return sliced(response)

        return handle


def json_response(content: Mapping[str, Any]) -> Response:
    """Return an answer of JSON."""
    return Response(orjson.dumps(content), media_type="application/json")
