"""The dialects in the order in which they claim a path that several want; the body decides (decisions 15).

The first claim that holds answers. docs/dialects.md shows this table.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import (
    COHERE,
    JINA,
    OLLAMA,
    OPEN_INFERENCE,
    OPENAI,
    TEI,
    VOYAGE,
    Dialect,
)
from nestvec.api.dialects import cohere, jina, ollama, open_inference, openai, tei, vllm, voyage
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import Asked, enter, open_body
from nestvec.api.requests.fields import Body
from nestvec.api.routes import models, rerank, rescore, similarity
from nestvec.api.schemas.cohere import RerankRequest, RerankResponse, VoyageRerankRequest
from nestvec.api.schemas.documented import ErrorBody, TeiError, errors_of, operation
from nestvec.api.schemas.jina import JinaRequest, JinaResponse
from nestvec.api.schemas.openai import EmbeddingsRequest, EmbeddingsResponse
from nestvec.api.schemas.tei import RerankRequest as TeiRerankRequest
from nestvec.api.schemas.voyage import VoyageRequest, VoyageResponse

Handler = Callable[[Asked], Awaitable[Response]]
EMBEDDINGS: Final = "/v1/embeddings"
RERANK: Final = "/rerank"
RERANK_V1: Final = "/v1/rerank"
RERANK_V2: Final = "/v2/rerank"


@dataclass(frozen=True, slots=True)
class Claim:
    """When a body is in a dialect, and what answers it.

    Attributes:
        keys: Any of them in the body, with whatever value, also null; none: any body.
        has_objects: Also where an item of `input` is an object.
    """

    handler: Handler
    keys: tuple[str, ...] = ()
    has_objects: bool = False

    def holds(self, body: Body) -> bool:
        """Whether a body is this dialect's."""
        if not self.keys or any(key in body for key in self.keys):
            return True
        given = body.get("input") if self.has_objects else None
        return isinstance(given, list) and any(isinstance(item, dict) for item in given)


@dataclass(frozen=True, slots=True)
class Row:
    """A dialect's paths.

    Attributes:
        routers: Of the paths that are its own.
        claims: On the paths that it shares.
    """

    dialect: Dialect
    routers: tuple[APIRouter, ...] = ()
    claims: Mapping[str, Claim] = field(default_factory=dict)


TABLE: Final = (
    Row(
        TEI,
        routers=(tei.router,),
        claims={
            RERANK: Claim(tei.rerank, keys=("texts",)),
        },
    ),
    Row(
        VOYAGE,
        routers=(voyage.router,),
        claims={
            EMBEDDINGS: Claim(voyage.embeddings, keys=("truncation", "output_dimension")),
            RERANK: Claim(rerank.rerank_voyage, keys=("top_k", "truncation")),
            RERANK_V1: Claim(rerank.rerank_voyage, keys=("top_k", "truncation")),
        },
    ),
    Row(
        JINA,
        claims={
            EMBEDDINGS: Claim(
                jina.embeddings,
                keys=("embedding_type", "normalized", "return_multivector"),
                has_objects=True,
            ),
            RERANK: Claim(rerank.rerank_jina),
            RERANK_V1: Claim(rerank.rerank_jina),
        },
    ),
    Row(
        COHERE,
        routers=(cohere.router,),
        claims={
            RERANK_V2: Claim(rerank.rerank_cohere),
        },
    ),
    Row(OLLAMA, routers=(ollama.router,)),
    Row(OPEN_INFERENCE, routers=(open_inference.router,)),
    Row(
        OPENAI,
        routers=(openai.router, models.router, similarity.router, rescore.router, vllm.router),
        claims={
            EMBEDDINGS: Claim(openai.embeddings),
        },
    ),
)
# Other spellings of shared paths.
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {EMBEDDINGS: ("/embeddings",)}
_RERANK_BODIES: Final = {
    "cohere": RerankRequest,
    "voyage": VoyageRerankRequest,
}
DOCS: Final[Mapping[str, dict[str, Any]]] = {
    EMBEDDINGS: operation(
        "Create embeddings",
        EmbeddingsResponse | VoyageResponse | JinaResponse,
        bodies={"openai": EmbeddingsRequest, "voyage": VoyageRequest, "jina": JinaRequest},
        gives_bytes=True,
    ),
    RERANK: operation(
        "Rerank documents",
        RerankResponse,
        bodies={**_RERANK_BODIES, "tei": TeiRerankRequest},
        errors={**errors_of(ErrorBody), 424: TeiError},
    ),
    RERANK_V1: operation("Rerank documents", RerankResponse, bodies=_RERANK_BODIES),
    RERANK_V2: operation("Rerank documents", RerankResponse, bodies={"cohere": RerankRequest}),
}


def claimants(path: str) -> list[tuple[Dialect, Claim]]:
    """Who wants a shared path, in the order in which they are asked."""
    return [(row.dialect, row.claims[path]) for row in TABLE if path in row.claims]


def shared_routes() -> APIRouter:
    """A route for each path that several dialects want."""
    router = APIRouter(route_class=RawRoute)
    for path in DOCS:
        found = claimants(path)
        # Metrics and errors before the body is read are those of whoever takes any body.
        names = [dialect.name for dialect, _ in (found[-1], *found[:-1])]
        endpoint = _endpoint(found)
        router.add_api_route(path, endpoint, methods=["POST"], tags=list(names), **DOCS[path])
        for alias in ALIASES.get(path, ()):
            router.add_api_route(
                alias, endpoint, methods=["POST"], tags=list(names), include_in_schema=False
            )
    return router


def all_routers() -> list[APIRouter]:
    """The shared routes, then every dialect's own: routes are tried in order, so the busiest come first."""
    return [shared_routes(), *(router for row in TABLE for router in row.routers)]


def _endpoint(found: list[tuple[Dialect, Claim]]) -> Callable[[Request], Awaitable[Response]]:
    unread = found[-1][0]

    async def endpoint(request: Request) -> Response:
        state = enter(request, unread.name)
        key_id, body = await open_body(request, state)
        dialect, claim = next((d, c) for d, c in found if c.holds(body))
        enter(request, dialect.name)
        return await claim.handler(Asked(request, state, state.dialect(dialect.name), key_id, body))

    return endpoint
