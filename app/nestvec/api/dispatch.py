"""The routes of each dialect, and which dialect answers on a path that several share: the body decides.

The first match answers, in the order of the table. docs/dialects.md shows it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import (
    COHERE,
    GEMINI,
    JINA,
    OLLAMA,
    OPEN_INFERENCE,
    OPENAI,
    PERPLEXITY,
    TEI,
    VOYAGE,
    Dialect,
)
from nestvec.api.dialects import (
    cohere,
    gemini,
    jina,
    ollama,
    open_inference,
    openai,
    perplexity,
    tei,
    vllm,
    voyage,
)
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, authenticate_and_read_body, bind_dialect
from nestvec.api.requests.fields import Body
from nestvec.api.requests.pictures.parts import has_parts
from nestvec.api.routes import chunk, classify, gemini_models, models, rerank, rescore, similarity
from nestvec.api.schemas.cohere import RerankRequest, RerankResponse, VoyageRerankRequest
from nestvec.api.schemas.documented import ErrorBody, TeiError, errors_of, operation
from nestvec.api.schemas.jina import JinaRequest, JinaResponse
from nestvec.api.schemas.openai import EmbeddingsRequest, EmbeddingsResponse
from nestvec.api.schemas.perplexity import PerplexityDocumentsRequest
from nestvec.api.schemas.tei import RerankRequest as TeiRerankRequest
from nestvec.api.schemas.voyage import (
    ContextualizedRequest,
    ContextualizedResponse,
    VoyageRequest,
    VoyageResponse,
)

Handler = Callable[[ApiRequest], Awaitable[Response]]
EMBEDDINGS: Final = "/v1/embeddings"
CONTEXTUALIZED: Final = "/v1/contextualizedembeddings"
RERANK: Final = "/rerank"
RERANK_V1: Final = "/v1/rerank"
RERANK_V2: Final = "/v2/rerank"


@dataclass(frozen=True, slots=True)
class DialectMatch:
    """What tells that a body is in a dialect, and what answers it.

    Attributes:
        handler: Answers the request.
        keys: Fields any of which tells it, whatever their value, even null; none: any body is accepted.
        has_objects: Whether an object among the items of `input` tells it too, but for the parts of chats, which are
            OpenAI's.
    """

    handler: Handler
    keys: tuple[str, ...] = ()
    has_objects: bool = False

    def accepts(self, body: Body) -> bool:
        """Return whether a body is in this dialect."""
        if not self.keys or any(key in body for key in self.keys):
            return True
        items = body.get("input") if self.has_objects else None
        if not isinstance(items, list) or dict not in set(map(type, items)):
            return False
        return not has_parts(next(item for item in items if isinstance(item, dict)))


@dataclass(frozen=True, slots=True)
class DialectRoutes:
    """Where a dialect is served.

    Attributes:
        dialect: Its row in the table of dialects.
        routers: Routes of paths that only this dialect has.
        matches: By shared path: what tells that a body there is in this dialect.
    """

    dialect: Dialect
    routers: tuple[APIRouter, ...] = ()
    matches: Mapping[str, DialectMatch] = field(default_factory=dict)


DIALECT_ROUTES: Final = (
    DialectRoutes(
        TEI,
        routers=(tei.router,),
        matches={
            RERANK: DialectMatch(tei.rerank, keys=("texts",)),
        },
    ),
    DialectRoutes(
        PERPLEXITY,
        matches={
            CONTEXTUALIZED: DialectMatch(perplexity.contextualized_embeddings, keys=("input",)),
        },
    ),
    DialectRoutes(
        VOYAGE,
        routers=(voyage.router,),
        matches={
            EMBEDDINGS: DialectMatch(voyage.embeddings, keys=("truncation", "output_dimension")),
            CONTEXTUALIZED: DialectMatch(voyage.contextualized_embeddings),
            RERANK: DialectMatch(rerank.rerank_voyage, keys=("top_k", "truncation")),
            RERANK_V1: DialectMatch(rerank.rerank_voyage, keys=("top_k", "truncation")),
        },
    ),
    DialectRoutes(
        JINA,
        routers=(classify.router,),
        matches={
            EMBEDDINGS: DialectMatch(
                jina.embeddings,
                keys=("embedding_type", "normalized", "return_multivector"),
                has_objects=True,
            ),
            RERANK: DialectMatch(rerank.rerank_jina),
            RERANK_V1: DialectMatch(rerank.rerank_jina),
        },
    ),
    DialectRoutes(
        COHERE,
        routers=(cohere.router,),
        matches={
            RERANK_V2: DialectMatch(rerank.rerank_cohere),
        },
    ),
    DialectRoutes(OLLAMA, routers=(ollama.router,)),
    DialectRoutes(OPEN_INFERENCE, routers=(open_inference.router,)),
    DialectRoutes(GEMINI, routers=(gemini.router, gemini_models.router)),
    DialectRoutes(
        OPENAI,
        routers=(
            openai.router,
            models.router,
            similarity.router,
            rescore.router,
            chunk.router,
            vllm.router,
        ),
        matches={
            EMBEDDINGS: DialectMatch(openai.embeddings),
        },
    ),
)
# Other spellings of shared paths, which the OpenAPI document leaves out.
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
    CONTEXTUALIZED: operation(
        "Embed chunks in the context of their document",
        ContextualizedResponse,
        bodies={"voyage": ContextualizedRequest, "perplexity": PerplexityDocumentsRequest},
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


def matches_of_path(path: str) -> list[tuple[Dialect, DialectMatch]]:
    """Return the dialects that share a path, in the order in which they are tried."""
    return [(row.dialect, row.matches[path]) for row in DIALECT_ROUTES if path in row.matches]


@cache
def shared_routes() -> APIRouter:
    """Return a route for each path that several dialects share."""
    router = APIRouter(route_class=RawRoute)
    for path in DOCS:
        matches = matches_of_path(path)
        # Until the body is read, metrics and errors are those of the dialect that accepts any body.
        names = [dialect.name for dialect, _ in (matches[-1], *matches[:-1])]
        endpoint = _endpoint(matches)
        router.add_api_route(path, endpoint, methods=["POST"], tags=list(names), **DOCS[path])
        for alias in ALIASES.get(path, ()):
            router.add_api_route(
                alias, endpoint, methods=["POST"], tags=list(names), include_in_schema=False
            )
    return router


def all_routers() -> list[APIRouter]:
    """Return the shared routes, then those of each dialect: routes are tried in order, so the busiest come first."""
    return [shared_routes(), *(router for row in DIALECT_ROUTES for router in row.routers)]


def _endpoint(
    matches: list[tuple[Dialect, DialectMatch]],
) -> Callable[[Request], Awaitable[Response]]:
    fallback, _ = matches[-1]

    async def endpoint(request: Request) -> Response:
        state = bind_dialect(request, fallback.name)
        key_id, body = await authenticate_and_read_body(request, state)
        dialect, match = next(pair for pair in matches if pair[1].accepts(body))
        bind_dialect(request, dialect.name)
        return await match.handler(
            ApiRequest(request, state, state.dialect(dialect.name), key_id, body)
        )

    return endpoint
