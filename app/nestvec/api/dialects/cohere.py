"""The Cohere dialect: embed v1 and v2, several dtypes at once.

Source: Cohere's API reference. What its Python and Node clients, langchain's and litellm's send and need is in
docs/wire-behaviour.md, "Cohere".
"""

import uuid
from typing import Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import COHERE
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.encoded_picture import EncodedInput
from nestvec.api.requests.fields import (
    EMBEDDING_TYPES,
    Body,
    Inputs,
    integer_field,
    option,
    role_field,
    texts_field,
    truncation_field,
    type_word,
)
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.json_parts import join_parts, listed, object_parts, texts_json
from nestvec.api.requests.pictures.parts import read_content, read_image
from nestvec.api.requests.pictures.reading import ReadInputs, read_inputs
from nestvec.api.requests.vector_json import rows_json
from nestvec.api.schemas.cohere import EMBED_V1_DOC, EMBED_V2_DOC
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall
from nestvec.errors import EmptyInputError, InputError

router = APIRouter(route_class=RawRoute, tags=[COHERE.name])

FIELDS: Final = frozenset(
    {
        *("model", "input_type", "texts", "images", "inputs", "embedding_types"),
        *("output_dimension", "max_tokens", "truncate", "priority"),
    }
)
# So many are looked at: more than there are, since a type may be named twice.
MAX_TYPES: Final = 64
SOURCES: Final = ("texts", "images", "inputs")
ONE_SOURCE: Final = "exactly one of 'texts', 'images' and 'inputs' must be given"


@router.post("/v2/embed", **EMBED_V2_DOC)
async def embed_v2(request: Request) -> Response:
    """Embed texts in one or several types at once."""
    api_request = await read_request(request, COHERE)
    return await _embed(api_request, version="2")


@router.post("/v1/embed", **EMBED_V1_DOC)
async def embed_v1(request: Request) -> Response:
    """Embed texts; without `embedding_types` the vectors come as a bare list."""
    api_request = await read_request(request, COHERE)
    return await _embed(api_request, version="1")


async def _embed(api_request: ApiRequest, *, version: str) -> Response:
    """Answer a call of either version; without types the vectors come as version 1's bare list."""
    body = api_request.body
    types = _types(body)
    api_request.check_fields(FIELDS)
    api_request.find_model()
    items, source = _items(api_request)
    read = await read_inputs(api_request, items, name=source)
    texts = [item for item in items if isinstance(item, str)]
    returned_types = types or [type_word(api_request.pinned_dtype())]
    if version == "2":
        types = returned_types
    call = EmbedCall(
        inputs=read.inputs,
        model=api_request.model_name(),
        dimensions=integer_field(body, "output_dimension"),
        truncate=truncation_field(body),
        max_tokens=integer_field(body, "max_tokens"),
        prompt_role=None if _is_of_images(body) else role_field(body, COHERE.role_fields),
        output_dtypes=tuple(dict.fromkeys(EMBEDDING_TYPES[word][0] for word in returned_types)),
    )
    result = await embed(api_request, call, source=source)
    lists = await _vectors_json(result, returned_types)
    meta = {"api_version": {"version": version}, "billed_units": _billed_units(result, read)}
    embeddings: list[bytes] = []
    for name, vectors in zip(types, lists, strict=False):
        embeddings += (b',"%s":' % name.encode(), *vectors)
    if types:
        embeddings = [b"{", embeddings[0][1:], *embeddings[1:], b"}"]
    fields = {
        "id": str(uuid.uuid4()),
        "embeddings": None,
        "texts": None,
        **({"images": _images(read)} if read.headers else {}),
        "meta": meta,
        "response_type": "embeddings_by_type" if types else "embeddings_floats",
    }
    encoded = {"embeddings": embeddings or lists[0], "texts": listed(await texts_json(texts))}
    content = await join_parts(object_parts(fields, encoded))
    return Response(content, headers=result_headers(result, call), media_type="application/json")


async def _vectors_json(result: EmbedResult, types: list[str]) -> list[list[bytes]]:
    """Return the parts of a JSON list of all vectors for each type."""
    lists = []
    for word in types:
        dtype, as_base64 = EMBEDDING_TYPES[word]
        rows = await rows_json(result.converted[dtype], as_base64=as_base64)
        lists.append(listed(rows))
    return lists


def _types(body: Body) -> list[str]:
    """Read the types that are wanted, each once; none where the caller names none.

    Raises:
        InputError: A type is unknown.
    """
    value = option(body, "embedding_types")
    if value is None:
        return []
    is_short = isinstance(value, list) and len(value) <= MAX_TYPES
    if not is_short or not all(isinstance(word, str) and word in EMBEDDING_TYPES for word in value):
        raise InputError(
            f"'embedding_types' must be a list of {', '.join(EMBEDDING_TYPES)}",
            param="embedding_types",
        )
    return list(dict.fromkeys(value))


def _items(api_request: ApiRequest) -> tuple[Inputs, str]:
    """Read what there is to embed: `texts`, `images`, or `inputs` of either.

    Returns:
        The texts and pictures, and the name of the field that they came from.

    Raises:
        InputError: There is no such field, or several, or one that holds something else.
        UnsupportedError: There is something else than texts and pictures.
    """
    body = api_request.body
    sources = [name for name in SOURCES if body.get(name) is not None]
    if len(sources) != 1:
        raise InputError(ONE_SOURCE, param=sources[1] if sources else "texts")
    (source,) = sources
    if source == "texts":
        if _is_of_images(body):
            raise InputError(
                "'texts' are no images: leave 'input_type' out, or send 'images'",
                param="input_type",
            )
        texts, _ = texts_field(
            body, "texts", check_count=api_request.check_count, accepts_single=False
        )
        return texts, source
    items = body[source]
    if not isinstance(items, list):
        raise InputError(f"'{source}' must be a list", param=source, code="invalid_type")
    if not items:
        raise EmptyInputError(f"'{source}' must not be an empty list", param=source)
    api_request.check_count(len(items))
    read = read_image if source == "images" else _input
    return [read(item, source, index) for index, item in enumerate(items)], source


def _input(item: object, name: str, index: int) -> str | EncodedInput:
    """Read the parts of one of `inputs`: texts, a line each, or a picture."""
    return read_content(item.get("content") if isinstance(item, dict) else None, name, index)


def _is_of_images(body: Body) -> bool:
    """Whether a body says that it is about pictures, which have no prompt."""
    return body.get("input_type") == "image"


def _billed_units(result: EmbedResult, read: ReadInputs) -> dict[str, int]:
    """Count texts by their tokens; pictures by their number and their tokens, where there are any."""
    if not read.headers:
        return {"input_tokens": sum(result.input_tokens)}
    of_pictures = read.picture_tokens(result)
    return {
        "images": len(read.files),
        "image_tokens": of_pictures,
        "input_tokens": sum(result.input_tokens) - of_pictures,
    }


def _images(read: ReadInputs) -> list[dict[str, str | int]]:
    """Describe the pictures of a request, in its order."""
    return [
        {
            "width": header.width,
            "height": header.height,
            "format": header.format.lower(),
            "bit_depth": header.bit_depth,
        }
        for header in read.files
    ]
