"""The dialect of Hugging Face's Text Embeddings Inference: its own routes; its `/v1/embeddings` is OpenAI's.

`model` is ignored there: each route is answered by the first model served that can. Source: TEI's router 1.9 and what
huggingface_hub's, langchain's and llama-index's clients send and need (api-contract, section 3).
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import TEI
from nestvec.api.dialects.tei_info import describe_server
from nestvec.api.http.auth import let_in
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import (
    VOCABULARY_HEADER,
    Asked,
    decode_tokens,
    embed,
    enter,
    hold_model,
    open_as,
    result_headers,
)
from nestvec.api.requests.encoding import rows_json
from nestvec.api.requests.fields import (
    Body,
    Inputs,
    boolean_field,
    integer_field,
    parse_ids,
    parse_mixed_inputs,
    text_field,
    texts_field,
)
from nestvec.api.schemas import tei as docs
from nestvec.api.scoring.classification import likelihoods, parse_pairs, ranked
from nestvec.api.scoring.relevance import Texts, score_pairs
from nestvec.api.token_input import MODEL
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.text.encoded import Token
from nestvec.engine.types import EmbedCall, EmbedResult, OutputKind, Pair, Truncation
from nestvec.errors import InputError, UnsupportedError

router = APIRouter(route_class=RawRoute, tags=[TEI.name])

COMMON: Final = {"truncate", "truncation_direction", "prompt_name"}
EMBED_FIELDS: Final = frozenset({"inputs", "normalize", "dimensions", "parameters", *COMMON})
TOKEN_FIELDS: Final = frozenset({"inputs", *COMMON})
RERANK_FIELDS: Final = frozenset({"query", "texts", "raw_scores", "return_text", *COMMON})
PREDICT_FIELDS: Final = frozenset({"inputs", "raw_scores", *COMMON})
SIMILARITY_FIELDS: Final = frozenset({"inputs", "parameters"})
DIRECTIONS: Final = {"left": Truncation.START, "right": Truncation.END}
TOKENS_PER_SLICE: Final = 4096  # before other requests get their turn: some 5 ms
Answer = Callable[[Asked], Awaitable[Response]]


@router.post("/embed", **docs.EMBED_DOC)
async def embed_route(request: Request) -> Response:
    """One vector an input, always as a list of lists."""
    return await _embed(await open_as(request, TEI))


@router.post("/embed_all", **docs.EMBED_ALL_DOC)
async def embed_all(request: Request) -> Response:
    """One vector a token, not normalised; but those of late-interaction models are."""
    asked = await open_as(request, TEI)
    asked.check_fields(TOKEN_FIELDS)
    inputs, is_list = parse_mixed_inputs(asked.body, "inputs", check_count=asked.check_count)
    model = await _model(asked, OutputKind.TOKENS)
    is_late = model.spec.late_interaction is not None
    call = await _call(asked, inputs, kind=OutputKind.TOKENS, normalize=is_late)
    result = await embed(asked, call, is_list=is_list)
    rows = await rows_json(result.by_input(result.vectors), as_base64=False)
    return _answer(b"[%s]" % b",".join(rows), call, result)


@router.post("/similarity", **docs.SIMILARITY_DOC)
async def similarity_route(request: Request) -> Response:
    """Cosine of a sentence to others, in their order."""
    return await _similarity(await open_as(request, TEI))


async def rerank(asked: Asked) -> Response:
    """Texts by how well they answer a query, the best first; by a cross-encoder only."""
    asked.check_fields(RERANK_FIELDS)
    model = await _model(asked, OutputKind.LABELS)
    if not model.spec.is_reranker:
        raise _unsupported("model is not a re-ranker model", "a cross-encoder with one label")
    query = text_field(asked.body, "query")
    if query is None:
        raise InputError("you must provide 'query'", param="query")
    texts, _ = texts_field(asked.body, "texts", check_count=asked.check_count, takes_one=False)
    left, right = Texts([query], "query"), Texts(texts, "texts")
    result = await score_pairs(asked, model, left, right, _truncation(asked))
    is_raw = boolean_field(asked.body, "raw_scores") is True
    scores = (result.vectors if is_raw else likelihoods(result.vectors))[:, 0]
    returns_text = boolean_field(asked.body, "return_text") is True
    rows = [
        {"index": place, "score": float(scores[place])}
        | ({"text": texts[place]} if returns_text else {})
        for place in np.argsort(-scores, kind="stable").tolist()
    ]
    call = EmbedCall([query, *texts], kind=OutputKind.LABELS)
    return _answer(orjson.dumps(rows), call, result)


@router.post("/predict", **docs.PREDICT_DOC)
async def predict_route(request: Request) -> Response:
    """Labels of a text or a pair, the likeliest first."""
    return await predict(await open_as(request, TEI))


async def predict(asked: Asked) -> Response:
    """Labels of a text, a pair, or several of either."""
    asked.check_fields(PREDICT_FIELDS)
    model = await _model(asked, OutputKind.LABELS)
    if OutputKind.LABELS not in model.spec.kinds:
        raise _unsupported("model is not a classifier model", "a sequence classifier")
    items, is_batch = parse_pairs(asked.body.get("inputs"), "inputs")
    asked.check_count(len(items))
    call = EmbedCall(items, kind=OutputKind.LABELS, truncate=_truncation(asked))
    result = await embed(asked, call, is_list=is_batch, source="inputs")
    is_raw = boolean_field(asked.body, "raw_scores") is True
    found = ranked(result.vectors, model.spec, is_raw=is_raw)
    return _answer(orjson.dumps(found if is_batch else found[0]), call, result)


@router.post("/embed_sparse", **docs.EMBED_SPARSE_DOC)
async def embed_sparse_route(request: Request) -> Response:
    """Weights of terms, by a sparse model."""
    return await embed_sparse(await open_as(request, TEI))


async def embed_sparse(asked: Asked) -> Response:
    """One list of terms an input, ids rising."""
    asked.check_fields(TOKEN_FIELDS)
    model = await _model(asked, OutputKind.SPARSE)
    if OutputKind.SPARSE not in model.spec.kinds:
        raise _unsupported("model is not a sparse model", "a SPLADE model")
    inputs, is_list = parse_mixed_inputs(asked.body, "inputs", check_count=asked.check_count)
    call = await _call(asked, inputs, kind=OutputKind.SPARSE)
    result = await embed(asked, call, is_list=is_list)
    rows = [
        [{"index": int(term), "value": weight} for term, weight in own.tolist()]
        for own in result.by_input(result.vectors)
    ]
    return _answer(orjson.dumps(rows), call, result)


@router.post("/", **docs.ROOT_DOC)
@router.post("/invocations", include_in_schema=False)
async def root(request: Request) -> Response:
    """Embed, or compare: the body decides."""
    asked = await open_as(request, TEI)
    answer = await _by_body(asked, asked.body)
    return await answer(asked)


@router.post("/vertex", include_in_schema=False)
async def vertex(request: Request) -> Response:
    """Several native bodies in one."""
    asked = await open_as(request, TEI)
    instances = asked.body.get("instances")
    if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        raise InputError("'instances' must be a list of objects", param="instances")
    asked.check_count(len(instances))
    answers = []
    for one in instances:
        answer = await (await _by_body(asked, one))(dataclasses.replace(asked, body=one))
        answers.append(bytes(answer.body))
    content = b'{"predictions":[%s]}' % b",".join(answers)
    return Response(content, media_type="application/json")


@router.post("/tokenize", **docs.TOKENIZE_DOC)
async def tokenize(request: Request) -> Response:
    """The tokens of texts, with their places in characters."""
    asked = await open_as(request, TEI)
    texts, _ = texts_field(asked.body, "inputs", check_count=asked.check_count)
    adds_special = boolean_field(asked.body, "add_special_tokens") is not False
    prompt_name = text_field(asked.body, "prompt_name")
    found = await asked.state.service.describe(
        texts, adds_special=adds_special, prompt_name=prompt_name
    )
    rows: list[bytes] = []
    waiting = 0
    for tokens in found:
        rows.append(orjson.dumps([_token(token) for token in tokens]))
        waiting += len(tokens)
        if waiting > TOKENS_PER_SLICE:
            await asyncio.sleep(0)
            waiting = 0
    return Response(b"[" + b",".join(rows) + b"]", media_type="application/json")


def _token(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "text": token.text,
        "special": token.is_special,
        "start": token.start,
        "stop": token.stop,
    }


@router.post("/decode", **docs.DECODE_DOC)
async def decode(request: Request) -> Response:
    """The texts of token ids."""
    asked = await open_as(request, TEI)
    given = asked.body.get("ids")
    is_flat = isinstance(given, list) and not any(isinstance(item, list) for item in given)
    body = {"inputs": [given] if is_flat else given}
    skips = boolean_field(asked.body, "skip_special_tokens") is not False
    try:
        inputs = parse_ids(body, "inputs", check_count=asked.check_count)
        texts = await asked.state.service.decode(inputs, skips_special=skips)
    except InputError as error:
        error.param = "ids"
        raise
    return Response(orjson.dumps(texts), media_type="application/json")


@router.get("/info", **docs.INFO_DOC)
async def info(request: Request) -> Response:
    """What is served, and within which limits."""
    state = enter(request, TEI.name)
    let_in(request, state.keys)
    return json_response(describe_server(state, await hold_model(request, state, "")))


async def _model(asked: Asked, kind: OutputKind | None) -> ServedModel:
    """The first that gives an output, as TEI's bodies name none."""
    return await hold_model(asked.request, asked.state, "", kind)


async def _by_body(asked: Asked, body: Body) -> Answer:
    """Which route a body at the root means, for the first model served."""
    if isinstance(body.get("inputs"), dict):
        return _similarity
    if "query" in body and "texts" in body:
        return rerank
    kinds = (await _model(asked, None)).spec.kinds
    if OutputKind.LABELS in kinds:
        return predict
    return _embed if OutputKind.DENSE in kinds else embed_sparse


async def _embed(asked: Asked) -> Response:
    asked.check_fields(EMBED_FIELDS)
    inputs, is_list = parse_mixed_inputs(asked.body, "inputs", check_count=asked.check_count)
    call = await _call(
        asked,
        inputs,
        dimensions=integer_field(asked.body, "dimensions"),
        normalize=boolean_field(asked.body, "normalize"),
    )
    result = await embed(asked, call, is_list=is_list)
    rows = await rows_json(result.vectors, as_base64=False)
    return _answer(b"[%s]" % b",".join(rows), call, result)


async def _similarity(asked: Asked) -> Response:
    asked.check_fields(SIMILARITY_FIELDS)
    given = asked.body.get("inputs")
    if not isinstance(given, dict):
        raise InputError("'inputs' must be an object", param="inputs", code="invalid_type")
    source = text_field(given, "source_sentence")
    if source is None:
        raise InputError("you must provide 'source_sentence'", param="source_sentence")
    sentences, _ = texts_field(given, "sentences", check_count=asked.check_count, takes_one=False)
    parameters = asked.body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InputError("'parameters' must be an object", param="parameters", code="invalid_type")
    options = dataclasses.replace(asked, body=parameters)
    call = await _call(options, [source, *sentences], normalize=True)
    result = await embed(asked, call)
    scores = result.vectors[1:].astype("float64") @ result.vectors[0].astype("float64")
    return _answer(orjson.dumps(scores.tolist()), call, result)


async def _call(
    asked: Asked,
    inputs: Inputs,
    *,
    kind: OutputKind = OutputKind.DENSE,
    normalize: bool | None = None,
    dimensions: int | None = None,
) -> EmbedCall:
    """What a body asks for; token ids are the model's own, unless a header says otherwise."""
    vocabulary = asked.request.headers.get(VOCABULARY_HEADER, MODEL)
    return EmbedCall(
        inputs=await decode_tokens(asked.state, inputs, vocabulary=vocabulary),
        dimensions=dimensions,
        normalize=normalize,
        truncate=_truncation(asked),
        prompt_name=text_field(asked.body, "prompt_name"),
        kind=kind,
    )


def _truncation(asked: Asked) -> Truncation:
    """From TEI's two fields, and what it does unasked."""
    word = (text_field(asked.body, "truncation_direction") or "right").lower()
    if word not in DIRECTIONS:
        raise InputError(
            "'truncation_direction' must be 'left' or 'right'", param="truncation_direction"
        )
    cuts = boolean_field(asked.body, "truncate")
    if cuts is None:
        cuts = asked.dialect.truncate is not Truncation.ERROR
    return DIRECTIONS[word] if cuts else Truncation.ERROR


def _unsupported(words: str, needed: str) -> UnsupportedError:
    return UnsupportedError(f"{words}: this route needs {needed}, and another model is served")


def _answer(content: bytes, call: EmbedCall, result: EmbedResult) -> Response:
    """With TEI's times, in whole milliseconds."""
    times = result.timings
    inference_s = times.engine_s + times.postprocess_s
    characters = sum(len(given) for given in call.inputs if isinstance(given, str | Pair))
    in_ms = {
        "x-compute-time": times.total_s,
        "x-total-time": times.total_s,
        "x-tokenization-time": times.tokenize_s,
        "x-queue-time": times.queue_wait_s,
        "x-inference-time": inference_s,
    }
    headers = {
        **result_headers(result, call),
        "x-compute-type": result.provider,
        **{name: str(round(seconds * 1000)) for name, seconds in in_ms.items()},
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(sum(result.input_tokens)),
    }
    return Response(content, headers=headers, media_type="application/json")
