"""The Open Inference Protocol v2 (KServe, Triton): a text tensor in, an `embeddings` tensor out.

Source: the KServe v2 protocol and Triton's binary tensor extension. What tritonclient sends and checks is in
docs/wire-behaviour.md, "Open Inference Protocol v2". Names of models may hold slashes, raw or percent-encoded, so paths
are read from their known endings.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Final

import numpy as np
import orjson
from fastapi import APIRouter, Path, Request, Response

from nestvec import __version__
from nestvec.api.dialect_table import OPEN_INFERENCE
from nestvec.api.dialects.tensors import InputTensor, read_tensors
from nestvec.api.http.auth import authenticate
from nestvec.api.http.body import parse_bounded, read_body
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import ApiRequest, acquire_model, bind_dialect
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.fields import (
    PROMPT_ROLES,
    Body,
    boolean_field,
    dtype_field,
    integer_field,
    text_field,
    truncation_field,
)
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.json_parts import join_parts
from nestvec.api.requests.vector_json import values_json
from nestvec.api.schemas import open_inference as docs
from nestvec.api.schemas.documented import MODEL_PATH
from nestvec.api.state import ApiState, Phase
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall
from nestvec.errors import (
    BodyFormatError,
    InputError,
    NotFoundError,
    NotReadyError,
    RequestTooLargeError,
)
from nestvec.system.public_names import public_name

router = APIRouter(route_class=RawRoute, tags=[OPEN_INFERENCE.name])

PLATFORM: Final = "nestvec_onnx"
# Tensors of larger bodies are read in a thread.
INLINE_BYTES: Final = 64 * 1024
# The length in bytes of a body's JSON; raw tensors follow behind it.
JSON_LENGTH_HEADER: Final = "inference-header-content-length"
OUTPUT: Final = "embeddings"
INFER_PATH: Final = Path(
    description="A model's name, then /infer.", examples=["all-MiniLM-L6-v2/infer"]
)
# Names under which clients send the tensor of texts, in the order of preference.
TEXT_NAMES: Final = ("text", "TEXT", "INPUT", "input_text", "text_input", "input")
# Tensors that are never taken for the texts.
OPTION_NAMES: Final = ("input_type", "dimensions", "attention_mask", "input_ids")
PARAMETER_FIELDS: Final = frozenset(
    {
        *("truncate", "prompt_name", "normalize", "dimensions", "embedding_type", "input_type"),
        *("timeout", "binary_data_output"),
    }
)
HEADER_FIELDS: Final = frozenset({"id", "inputs", "outputs", "parameters"})
INSIDE: Final = MappingProxyType({"parameters": PARAMETER_FIELDS})
DATATYPES: Final = {
    OutputDtype.FLOAT32: "FP32",
    OutputDtype.FLOAT16: "FP16",
    OutputDtype.INT8: "INT8",
    OutputDtype.UINT8: "UINT8",
    OutputDtype.BINARY: "INT8",
    OutputDtype.UBINARY: "UINT8",
}


@router.get("/v2", **docs.SERVER_DOC)
async def server(request: Request) -> Response:
    """Return the server's name and extensions; its version only where no key is asked for."""
    state = bind_dialect(request, OPEN_INFERENCE.name)
    version = __version__ if state.keys.is_open else ""
    return json_response(
        {"name": "nestvec", "version": version, "extensions": ["binary_tensor_data"]}
    )


@router.get("/v2/health/live", **docs.LIVE_DOC)
async def live(request: Request) -> Response:
    """Return 200 while the process answers."""
    bind_dialect(request, OPEN_INFERENCE.name)
    return json_response({"live": True})


@router.get("/v2/health/ready", **docs.READY_DOC)
async def ready(request: Request) -> Response:
    """Return 200 while requests are served, otherwise 503."""
    _check_ready(bind_dialect(request, OPEN_INFERENCE.name))
    return json_response({"ready": True})


@router.post("/v2/repository/index", **docs.INDEX_DOC)
async def repository_index(request: Request) -> Response:
    """List the models that are served, with their states."""
    state = bind_dialect(request, OPEN_INFERENCE.name)
    authenticate(request, state.keys)
    rows = [
        {
            "name": public_name(name),
            "version": "1",
            "state": "READY" if slot.model else "UNAVAILABLE",
        }
        for slot, name in state.service.models.listed()
    ]
    return Response(orjson.dumps(rows), media_type="application/json")


@router.get("/v2/models/{rest:path}", **docs.MODEL_DOC)
async def describe(request: Request, rest: Annotated[str, MODEL_PATH]) -> Response:
    """Describe a model's tensors; with `/ready`, `/config` or `/stats` behind the name, answer those."""
    state = bind_dialect(request, OPEN_INFERENCE.name)
    authenticate(request, state.keys)
    name, ending, model = await _find_model(request, state, rest, ("/ready", "/config", "/stats"))
    if ending == "/ready":
        _check_ready(state)
        return json_response({"name": name, "ready": True})
    if ending == "/stats":
        return json_response({"model_stats": [{"name": name, "version": "1"}]})
    if ending == "/config":
        return json_response({"name": name, "platform": PLATFORM, "max_batch_size": 0})
    return json_response(_metadata(name, model))


@router.post("/v2/models/{rest:path}", **docs.INFER_DOC)
async def infer(request: Request, rest: Annotated[str, INFER_PATH]) -> Response:
    """Embed the strings of a tensor; the path ends in `/infer`."""
    state = bind_dialect(request, OPEN_INFERENCE.name)
    key_id = authenticate(request, state.keys)
    name, ending, _ = await _find_model(request, state, rest, ("/infer",))
    if ending != "/infer":
        raise NotFoundError("POST to /v2/models/NAME/infer")
    header, raw, is_large = await _read(request, state)
    api_request = ApiRequest(request, state, state.dialect(OPEN_INFERENCE.name), key_id, header)
    api_request.check_fields(HEADER_FIELDS, INSIDE)
    is_binary = _wants_binary(header)
    read = partial(_read_call, api_request, raw, name)
    call, source = await asyncio.to_thread(read) if is_large else read()
    result = await embed(api_request, call, source=source)
    return await _response(header, name, call, result, is_binary=is_binary)


async def _find_model(
    request: Request, state: ApiState, rest: str, endings: tuple[str, ...]
) -> tuple[str, str, ServedModel]:
    """Read a path behind `/v2/models/`.

    Args:
        request: The request whose deadline counts.
        state: The application's shared state.
        rest: The path behind `/v2/models/`.
        endings: The endings that the route knows.

    Returns:
        The model's name in the path, the ending behind it ("" for none), and the model, loaded.

    Raises:
        UnknownModelError: No model has the name.
    """
    ending = next((known for known in endings if rest.endswith(known)), "")
    name = re.sub(r"/versions/[^/]+$", "", rest.removesuffix(ending))
    return name, ending, await acquire_model(request, state, name)


async def _read(request: Request, state: ApiState) -> tuple[dict[str, Any], bytes, bool]:
    """Read a body as its JSON and the raw tensors behind it, and tell whether there is much in it.

    Raises:
        BodyFormatError: The length in the header does not fit the body, or the JSON is no object.
        BodyTooLargeError: The body has more bytes than the server reads.
        BodyTimeoutError: The body takes longer to come in than a request may.
    """
    options = state.options
    body = await read_body(
        request, max_bytes=options.max_body_bytes, timeout_s=options.request_timeout_s
    )
    json_length = request.headers.get(JSON_LENGTH_HEADER)
    length = len(body)
    if json_length is not None:
        if not json_length.isascii() or not json_length.isdigit() or int(json_length) > len(body):
            raise BodyFormatError("Inference-Header-Content-Length does not fit the body")
        length = int(json_length)
    header = await parse_bounded(body[:length], state.options.json)
    if not isinstance(header, dict):
        raise BodyFormatError("the JSON of the body must be an object")
    return header, body[length:], len(body) > INLINE_BYTES


def _wants_binary(header: Body) -> bool:
    """Read whether the output is wanted as raw bytes; what the output says wins over what the request says.

    Raises:
        InputError: An output is asked for that does not exist.
    """
    parameters = _parameters(header)
    outputs = header.get("outputs")
    wants_binary = boolean_field(parameters, "binary_data_output") is True
    if outputs is None:
        return wants_binary
    if not isinstance(outputs, list):
        raise InputError("'outputs' must be a list", param="outputs", code="invalid_type")
    if len(outputs) > 1:
        raise InputError(f"the only output is '{OUTPUT}'", param="outputs", input_index=1)
    for index, output in enumerate(outputs):
        if not isinstance(output, dict) or output.get("name") != OUTPUT:
            raise InputError(f"the only output is '{OUTPUT}'", param="outputs", input_index=index)
        is_binary = boolean_field(_parameters(output), "binary_data")
        wants_binary = wants_binary if is_binary is None else is_binary
    return wants_binary


def _parameters(body: Body) -> Mapping[str, Any]:
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InputError("'parameters' must be an object", param="parameters", code="invalid_type")
    return parameters


def _read_call(api_request: ApiRequest, raw: bytes, name: str) -> tuple[EmbedCall, str]:
    """Return the call that a request asks for, and the name of the tensor that its inputs came from.

    Args:
        api_request: The request, with the JSON of its body.
        raw: The tensors behind that.
        name: The model's.

    Raises:
        InputError: There is no tensor of texts or ids, or an option is wrong.
        RequestTooLargeError: There are more texts, rows or token ids than a request may have.
        BodyFormatError: Sizes do not fit the bytes.
    """
    header = api_request.body
    tensors = read_tensors(header, raw, check_count=api_request.check_count)
    options = _parameters(header)
    source, inputs = _inputs(tensors, api_request.state.service.limits.max_tokens)
    api_request.check_count(len(inputs))
    role = _scalar_text(tensors, "input_type") or text_field(options, "input_type")
    dimensions = _scalar_integer(tensors, "dimensions") or integer_field(options, "dimensions")
    call = EmbedCall(
        inputs=inputs,
        model=name,
        dimensions=dimensions,
        normalize=boolean_field(options, "normalize"),
        truncate=truncation_field(options),
        prompt_name=text_field(options, "prompt_name"),
        prompt_role=None if role is None else PROMPT_ROLES.get(role.lower(), role),
        output_dtypes=(dtype_field(options, "embedding_type") or OutputDtype.FLOAT32,),
        deadline_s=_deadline_s(options),
    )
    return call, source


def _inputs(tensors: Mapping[str, InputTensor], max_tokens: int) -> tuple[str, list[Any]]:
    """Find the tensor to embed: texts by one of their names, or the only tensor of texts, otherwise token ids.

    Args:
        tensors: The request's.
        max_tokens: How many token ids a request may have, padding apart.

    Returns:
        The tensor's name, and its inputs; padding is left out of ids.

    Raises:
        InputError: There is no such tensor, or its shape is wrong.
        RequestTooLargeError: There are too many token ids.
    """
    named = next((name for name in TEXT_NAMES if name in tensors), None)
    if named is None:
        texts = [n for n, t in tensors.items() if t.datatype == "BYTES" and n not in OPTION_NAMES]
        named = texts[0] if len(texts) == 1 else None
    if named is not None:
        return named, tensors[named].texts
    if "input_ids" not in tensors:
        raise InputError("there is no tensor 'text' of datatype BYTES, nor 'input_ids'")
    ids = tensors["input_ids"]
    mask = tensors.get("attention_mask")
    if len(ids.shape) != 2 or (mask is not None and mask.shape != ids.shape):  # noqa: PLR2004 - (B, S)
        raise InputError(
            "'input_ids' must be of shape [n, length], and 'attention_mask' like it",
            param="input_ids",
        )
    values = ids.integers
    is_kept = np.ones(values.shape, bool) if mask is None else mask.integers != 0
    if (count := int(np.count_nonzero(is_kept))) > max_tokens:
        raise RequestTooLargeError(
            f"'input_ids' holds {count} token ids, max {max_tokens} per request; send fewer inputs",
            param="input_ids",
            code="max_tokens_per_request",
        )
    rows = [row[kept].tolist() for row, kept in zip(values, is_kept, strict=True)]
    return "input_ids", rows


def _scalar_text(tensors: Mapping[str, InputTensor], name: str) -> str | None:
    texts = tensors[name].texts if name in tensors else []
    return texts[0] if texts else None


def _scalar_integer(tensors: Mapping[str, InputTensor], name: str) -> int | None:
    integers: list[int] = tensors[name].integers.reshape(-1)[:1].tolist() if name in tensors else []
    return integers[0] if integers else None


def _deadline_s(options: Body) -> float | None:
    """Return the monotonic time, in seconds, at which Triton's `timeout` (microseconds) ends; None without one."""
    timeout_us = integer_field(options, "timeout")
    return time.monotonic() + timeout_us / 1e6 if timeout_us and timeout_us > 0 else None


async def _response(
    header: Body, name: str, call: EmbedCall, result: EmbedResult, *, is_binary: bool
) -> Response:
    ((dtype, vectors),) = result.converted.items()
    output: dict[str, Any] = {
        "name": OUTPUT,
        "datatype": DATATYPES[dtype],
        "shape": list(vectors.shape),
    }
    answer: dict[str, Any] = {"model_name": name, "model_version": "1"}
    if isinstance(header.get("id"), str):
        answer["id"] = header["id"]
    headers = result_headers(result, call)
    if not is_binary:
        data = await join_parts(await values_json(vectors.reshape(-1)))
        output["data"] = orjson.Fragment(data)
        content = orjson.dumps({**answer, "outputs": [output]})
        return Response(content, headers=headers, media_type="application/json")
    output["parameters"] = {"binary_data_size": vectors.nbytes}
    content = orjson.dumps({**answer, "outputs": [output]})
    headers[JSON_LENGTH_HEADER] = str(len(content))
    body = await join_parts([content, vectors.tobytes()])
    return Response(body, headers=headers, media_type="application/octet-stream")


def _check_ready(state: ApiState) -> None:
    if state.phase is not Phase.READY:
        raise NotReadyError("The server is not ready.")


def _metadata(name: str, model: ServedModel) -> dict[str, Any]:
    return {
        "name": name,
        "versions": ["1"],
        "platform": PLATFORM,
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, model.spec.hidden_size]}],
    }
