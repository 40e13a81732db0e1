"""The dialect of Hugging Face's Text Embeddings Inference (TEI): its own routes; its `/v1/embeddings` is OpenAI's.

`model` is ignored there: each route is answered by the first served model that can. Source: the code of TEI's router,
1.9.3. What huggingface_hub's, langchain's and llama-index's clients send and need is in docs/wire-behaviour.md,
"Text Embeddings Inference".
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import TEI
from nestvec.api.dialects.tei_info import describe_server
from nestvec.api.http.auth import authenticate
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import ApiRequest, acquire_model, bind_dialect, read_request
from nestvec.api.requests.embedding import (
    DECODED_ID_BYTES,
    DESCRIBED_CHAR_BYTES,
    charged_tokens,
    check_tokens,
    decode_tokens,
    embed,
    reserve_answer,
    until_disconnect,
)
from nestvec.api.requests.fields import (
    Body,
    TextInputs,
    boolean_field,
    content_field,
    integer_field,
    parse_ids,
    parse_mixed_inputs,
    text_field,
    texts_field,
)
from nestvec.api.requests.headers import VOCABULARY_HEADER, deadline_s, result_headers
from nestvec.api.requests.json_parts import (
    Turns,
    join_parts,
    listed,
    lists_json,
    texts_json,
    with_field,
)
from nestvec.api.requests.vector_json import array_json, rows_json
from nestvec.api.schemas import tei as docs
from nestvec.api.scoring.classification import parse_pairs, ranked_labels, tei_probabilities
from nestvec.api.scoring.relevance import cross_encoder_scores, row_products
from nestvec.api.token_input import MODEL
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.outputs.relevance import TextSide
from nestvec.engine.results import EmbedResult
from nestvec.engine.text.token_report import DescribedToken
from nestvec.engine.types import EmbedCall, OutputKind, Pair, Truncation
from nestvec.errors import InputError, UnsupportedError

router = APIRouter(route_class=RawRoute, tags=[TEI.name])

SHARED_OPTIONS: Final = {"truncate", "truncation_direction", "prompt_name"}
TOKEN_FIELDS: Final = frozenset({"inputs", *SHARED_OPTIONS})
EMBED_FIELDS: Final = TOKEN_FIELDS | {"normalize", "dimensions", "parameters"}
PREDICT_FIELDS: Final = frozenset({"inputs", "raw_scores", *SHARED_OPTIONS})
PAIR_FIELDS: Final = {"query", "texts", "return_text", "instruction"}
RERANK_FIELDS: Final = PREDICT_FIELDS - {"inputs"} | PAIR_FIELDS
SIMILARITY_FIELDS: Final = frozenset({"inputs", "parameters"})
SENTENCE_FIELDS: Final = frozenset({"source_sentence", "sentences"})
INSIDE_SIMILARITY: Final = MappingProxyType(
    {"inputs": SENTENCE_FIELDS, "parameters": frozenset(SHARED_OPTIONS)}
)
# By the side that is cut off.
DIRECTIONS: Final = {"left": Truncation.START, "right": Truncation.END}
Handler = Callable[[ApiRequest], Awaitable[Response]]


@router.post("/embed", **docs.EMBED_DOC)
async def embed_route(request: Request) -> Response:
    """Embed inputs, one vector each; the answer is always a list of lists."""
    return await _embed(await read_request(request, TEI))


@router.post("/embed_all", **docs.EMBED_ALL_DOC)
async def embed_all(request: Request) -> Response:
    """Embed every token of inputs. Vectors are raw, but those of late-interaction models have unit length."""
    api_request = await read_request(request, TEI)
    api_request.check_fields(EMBED_FIELDS)
    inputs, is_list = parse_mixed_inputs(
        api_request.body, "inputs", check_count=api_request.check_count
    )
    model = await _acquire_model(api_request, OutputKind.TOKENS)
    is_late = model.spec.late_interaction is not None
    call = await _call(api_request, inputs, kind=OutputKind.TOKENS, normalize=is_late)
    result = await embed(api_request, call, is_list=is_list)
    rows = await rows_json(result.by_input(result.vectors), as_base64=False)
    return _response(await join_parts(listed(rows)), call, result)


@router.post("/similarity", **docs.SIMILARITY_DOC)
async def similarity_route(request: Request) -> Response:
    """Compare a sentence with others: their cosines, in the order of the others."""
    return await _similarity(await read_request(request, TEI))


async def rerank(api_request: ApiRequest) -> Response:
    """Order texts by how well they answer a query, the best first; only a cross-encoder does it."""
    api_request.check_fields(RERANK_FIELDS)
    model = await _acquire_model(api_request, OutputKind.LABELS)
    if not model.spec.is_reranker:
        raise _unsupported("model is not a re-ranker model", "a cross-encoder with one label")
    query = content_field(api_request.body, "query")
    if query is None:
        raise InputError("you must provide 'query'", param="query")
    texts, _ = texts_field(
        api_request.body, "texts", check_count=api_request.check_count, accepts_single=False
    )
    left = TextSide([query], "query", instruction=text_field(api_request.body, "instruction"))
    sides = left, TextSide(texts, "texts")
    result = await cross_encoder_scores(api_request, model, *sides, _truncation(api_request))
    is_raw = boolean_field(api_request.body, "raw_scores") is True
    scores = (result.vectors if is_raw else tei_probabilities(result.vectors))[:, 0]
    returns_text = boolean_field(api_request.body, "return_text") is True
    order = np.argsort(-scores, kind="stable").tolist()
    encoded = await texts_json([texts[index] for index in order]) if returns_text else ()
    rows = [orjson.dumps({"index": index, "score": float(scores[index])}) for index in order]
    parts = listed(with_field(rows, "text", encoded) if returns_text else rows)
    call = EmbedCall([query, *texts], kind=OutputKind.LABELS)
    return _response(await join_parts(parts), call, result)


@router.post("/predict", **docs.PREDICT_DOC)
async def predict_route(request: Request) -> Response:
    """Classify a text, a pair, or several of either; the likeliest label comes first."""
    return await predict(await read_request(request, TEI))


async def predict(api_request: ApiRequest) -> Response:
    """Answer `/predict`: the labels of a text, a pair, or several of either."""
    api_request.check_fields(PREDICT_FIELDS)
    model = await _acquire_model(api_request, OutputKind.LABELS)
    if OutputKind.LABELS not in model.spec.kinds:
        raise _unsupported("model is not a classifier model", "a sequence classifier")
    items, is_batch = parse_pairs(
        api_request.body.get("inputs"), "inputs", check_count=api_request.check_count
    )
    call = EmbedCall(items, kind=OutputKind.LABELS, truncate=_truncation(api_request))
    result = await embed(api_request, call, is_list=is_batch, source="inputs")
    is_raw = boolean_field(api_request.body, "raw_scores") is True
    labels = await ranked_labels(result.vectors, model.spec, is_raw=is_raw)
    content = await join_parts(listed(labels)) if is_batch else labels[0]
    return _response(content, call, result)


@router.post("/embed_sparse", **docs.EMBED_SPARSE_DOC)
async def embed_sparse_route(request: Request) -> Response:
    """Embed inputs as weights of terms, by a sparse model."""
    return await embed_sparse(await read_request(request, TEI))


async def embed_sparse(api_request: ApiRequest) -> Response:
    """Answer `/embed_sparse`: for each input the ids of its terms, ascending, and their weights."""
    api_request.check_fields(TOKEN_FIELDS)
    model = await _acquire_model(api_request, OutputKind.SPARSE)
    if OutputKind.SPARSE not in model.spec.kinds:
        raise _unsupported("model is not a sparse model", "a SPLADE model")
    inputs, is_list = parse_mixed_inputs(
        api_request.body, "inputs", check_count=api_request.check_count
    )
    call = await _call(api_request, inputs, kind=OutputKind.SPARSE)
    if model.lexical is not None:
        call = model.lexical.with_side(call, model.spec)
    result = await embed(api_request, call, is_list=is_list)
    rows = []
    turns = Turns()
    for terms in result.by_input(result.vectors):
        row = [{"index": int(term), "value": weight} for term, weight in terms.tolist()]
        rows.append(orjson.dumps(row))
        await turns.spend(len(row))
    return _response(await join_parts(listed(rows)), call, result)


@router.post("/", **docs.ROOT_DOC)
@router.post("/invocations", include_in_schema=False)
async def root(request: Request) -> Response:
    """Embed, compare, rerank or classify: the body and the model decide, as for TEI."""
    api_request = await read_request(request, TEI)
    handler = await _handler_of_body(api_request, api_request.body)
    return await handler(api_request)


@router.post("/vertex", include_in_schema=False)
async def vertex(request: Request) -> Response:
    """Answer several bodies of TEI's own routes in one, as Google's Vertex AI sends them."""
    api_request = await read_request(request, TEI)
    instances = api_request.body.get("instances")
    if not isinstance(instances, list) or not all(isinstance(body, dict) for body in instances):
        raise InputError("'instances' must be a list of objects", param="instances")
    api_request.check_count(len(instances))
    # Each body may be as large as a request, but all of them are one request.
    api_request.check_count(sum(map(_inputs_of, instances)))
    predictions = []
    for body in instances:
        handler = await _handler_of_body(api_request, body)
        response = await handler(dataclasses.replace(api_request, body=body))
        predictions.append(bytes(response.body))
        await asyncio.sleep(0)  # a handler need not have waited for anything
    parts = [b'{"predictions":', *listed(predictions), b"}"]
    return Response(await join_parts(parts), media_type="application/json")


def _inputs_of(body: Body) -> int:
    """Return how many inputs one of several bodies holds; those without any are refused by their handlers."""
    inputs = body.get("inputs")
    inputs = inputs.get("sentences") if isinstance(inputs, dict) else inputs
    texts = body.get("texts")
    return max(1, *(len(value) if isinstance(value, list) else 1 for value in (inputs, texts)))


@router.post("/tokenize", **docs.TOKENIZE_DOC)
async def tokenize(request: Request) -> Response:
    """Return the tokens of texts, each with where it starts and stops in characters."""
    api_request = await read_request(request, TEI)
    texts, _ = texts_field(api_request.body, "inputs", check_count=api_request.check_count)
    adds_special = boolean_field(api_request.body, "add_special_tokens") is not False
    prompt_name = text_field(api_request.body, "prompt_name")
    check_tokens(api_request)
    await reserve_answer(api_request, DESCRIBED_CHAR_BYTES * sum(map(len, texts)))
    describing = api_request.state.service.token_calls.describe(
        texts,
        adds_special_tokens=adds_special,
        prompt_name=prompt_name,
        deadline_s=deadline_s(request, api_request.state),
    )
    described = await until_disconnect(request, describing)
    async with charged_tokens(api_request, sum(map(len, described))):
        parts = await lists_json(described, _token)
    return Response(await join_parts(listed(parts)), media_type="application/json")


def _token(token: DescribedToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "text": token.text,
        "special": token.is_special,
        "start": token.start,
        "stop": token.stop,
    }


@router.post("/decode", **docs.DECODE_DOC)
async def decode(request: Request) -> Response:
    """Return the texts that token ids stand for."""
    api_request = await read_request(request, TEI)
    ids = api_request.body.get("ids")
    is_flat = isinstance(ids, list) and list not in set(map(type, ids))
    body = {"inputs": [ids] if is_flat else ids}
    skips = boolean_field(api_request.body, "skip_special_tokens") is not False
    try:
        inputs = parse_ids(body, "inputs", check_count=api_request.check_count)
        check_tokens(api_request)
        await reserve_answer(api_request, DECODED_ID_BYTES * sum(map(len, inputs)))
        latest_s = deadline_s(request, api_request.state)
        async with charged_tokens(api_request, sum(map(len, inputs))):
            decoding = api_request.state.service.token_calls.decode(
                inputs, skips_special_tokens=skips, deadline_s=latest_s
            )
            texts = await until_disconnect(request, decoding)
    except InputError as error:
        error.param = "ids"
        raise
    parts = listed(await texts_json(texts))
    return Response(await join_parts(parts), media_type="application/json")


@router.get("/info", **docs.INFO_DOC)
async def info(request: Request) -> Response:
    """Describe the first model that is served, and the server's limits."""
    state = bind_dialect(request, TEI.name)
    authenticate(request, state.keys)
    return json_response(describe_server(state, await acquire_model(request, state, "")))


async def _acquire_model(api_request: ApiRequest, kind: OutputKind | None) -> ServedModel:
    """Return the first model that gives an output, loaded, since TEI's bodies name none."""
    return await acquire_model(api_request.request, api_request.state, "", kind)


async def _handler_of_body(api_request: ApiRequest, body: Body) -> Handler:
    """Return the handler of the route that a body at the root means, for the first served model."""
    if isinstance(body.get("inputs"), dict):
        return _similarity
    if "query" in body and "texts" in body:
        return rerank
    kinds = (await _acquire_model(api_request, None)).spec.kinds
    if OutputKind.LABELS in kinds:
        return predict
    return _embed if OutputKind.DENSE in kinds else embed_sparse


async def _embed(api_request: ApiRequest) -> Response:
    api_request.check_fields(EMBED_FIELDS)
    inputs, is_list = parse_mixed_inputs(
        api_request.body, "inputs", check_count=api_request.check_count
    )
    call = await _call(api_request, inputs)
    result = await embed(api_request, call, is_list=is_list)
    rows = await rows_json(result.vectors, as_base64=False)
    return _response(await join_parts(listed(rows)), call, result)


async def _similarity(api_request: ApiRequest) -> Response:
    api_request.check_fields(SIMILARITY_FIELDS, INSIDE_SIMILARITY)
    inputs = api_request.body.get("inputs")
    if not isinstance(inputs, dict):
        raise InputError("'inputs' must be an object", param="inputs", code="invalid_type")
    source = content_field(inputs, "source_sentence")
    if source is None:
        raise InputError("you must provide 'source_sentence'", param="source_sentence")
    sentences, _ = texts_field(
        inputs, "sentences", check_count=api_request.check_count, accepts_single=False
    )
    parameters = api_request.body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InputError("'parameters' must be an object", param="parameters", code="invalid_type")
    options = dataclasses.replace(api_request, body=parameters)
    call = await _call(options, [source, *sentences], normalize=True)
    result = await embed(api_request, call)
    scores = await row_products(result.vectors[:1], result.vectors[1:])
    return _response(array_json(scores), call, result)


async def _call(
    api_request: ApiRequest,
    inputs: TextInputs,
    *,
    kind: OutputKind = OutputKind.DENSE,
    normalize: bool | None = None,
) -> EmbedCall:
    """Build the call that a body asks for; token ids are the model's own, unless a header says otherwise."""
    given = boolean_field(api_request.body, "normalize")
    vocabulary = api_request.request.headers.get(VOCABULARY_HEADER, MODEL)
    return EmbedCall(
        inputs=await decode_tokens(api_request.state, inputs, vocabulary=vocabulary),
        dimensions=integer_field(api_request.body, "dimensions"),
        normalize=normalize if given is None else given,
        truncate=_truncation(api_request),
        prompt_name=text_field(api_request.body, "prompt_name"),
        kind=kind,
    )


def _truncation(api_request: ApiRequest) -> Truncation:
    """Read what is done with too-long inputs from TEI's two fields, else from the dialect's default.

    Raises:
        InputError: A field holds something else.
    """
    direction = (text_field(api_request.body, "truncation_direction") or "right").lower()
    if direction not in DIRECTIONS:
        raise InputError(
            "'truncation_direction' must be 'left' or 'right'", param="truncation_direction"
        )
    cuts = boolean_field(api_request.body, "truncate")
    if cuts is None:
        cuts = api_request.dialect.default_truncation is not Truncation.ERROR
    return DIRECTIONS[direction] if cuts else Truncation.ERROR


def _unsupported(problem: str, needed: str) -> UnsupportedError:
    return UnsupportedError(f"{problem}: this route needs {needed}, and another model is served")


def _response(content: bytes, call: EmbedCall, result: EmbedResult) -> Response:
    """Build an answer with TEI's headers; their times are whole milliseconds."""
    times = result.timings
    inference_s = times.engine_s + times.postprocess_s
    characters = sum(len(text) for text in call.inputs if isinstance(text, str | Pair))
    times_s = {
        "x-compute-time": times.total_s,
        "x-total-time": times.total_s,
        "x-tokenization-time": times.tokenize_s,
        "x-queue-time": times.queue_wait_s,
        "x-inference-time": inference_s,
    }
    headers = {
        **result_headers(result, call),
        "x-compute-type": result.provider,
        **{name: str(round(seconds * 1000)) for name, seconds in times_s.items()},
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(sum(result.input_tokens)),
    }
    return Response(content, headers=headers, media_type="application/json")
