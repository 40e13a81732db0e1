"""The Open Inference Protocol v2 (KServe, Triton): a text tensor in, an `embeddings` tensor out.

Source: the KServe v2 protocol, Triton's binary tensor extension, and what tritonclient sends and checks (api-contract
6). Model names may hold slashes, raw or percent-encoded: paths are read from their known endings.
"""

import re
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Path, Request, Response

from nestvec import __version__
from nestvec.api.dialect_table import OPEN_INFERENCE
from nestvec.api.dialects.tensors import Tensor, read_tensors
from nestvec.api.http.auth import let_in
from nestvec.api.http.body import parse_bounded, read_body
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import Asked, embed, enter, hold_model, result_headers
from nestvec.api.requests.encoding import array_json
from nestvec.api.requests.fields import (
    ROLE_WORDS,
    Body,
    boolean_field,
    dtype_field,
    integer_field,
    text_field,
    truncation_field,
)
from nestvec.api.schemas import open_inference as docs
from nestvec.api.state import ApiState, Phase
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import EmbedCall, EmbedResult
from nestvec.errors import BodyFormatError, InputError, NotFoundError, NotReadyError

router = APIRouter(route_class=RawRoute, tags=[OPEN_INFERENCE.name])

PLATFORM: Final = "nestvec_onnx"
JSON_LENGTH: Final = "inference-header-content-length"
OUTPUT: Final = "embeddings"
MODEL_PATH: Final = Path(description="A model's name.", examples=["all-MiniLM-L6-v2"])
INFER_PATH: Final = Path(
    description="A model's name, then /infer.", examples=["all-MiniLM-L6-v2/infer"]
)
TEXT_NAMES: Final = ("text", "TEXT", "INPUT", "input_text", "text_input", "input")
OPTION_NAMES: Final = ("input_type", "dimensions", "attention_mask", "input_ids")
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
    """Name and extensions; the version where everybody may know it."""
    state = enter(request, OPEN_INFERENCE.name)
    version = __version__ if state.keys.is_open else ""
    return json_response(
        {"name": "nestvec", "version": version, "extensions": ["binary_tensor_data"]}
    )


@router.get("/v2/health/live", **docs.LIVE_DOC)
async def live(request: Request) -> Response:
    """Whether the process answers."""
    enter(request, OPEN_INFERENCE.name)
    return json_response({"live": True})


@router.get("/v2/health/ready", **docs.READY_DOC)
async def ready(request: Request) -> Response:
    """Whether requests are served."""
    _check_ready(enter(request, OPEN_INFERENCE.name))
    return json_response({"ready": True})


@router.post("/v2/repository/index", **docs.INDEX_DOC)
async def repository_index(request: Request) -> Response:
    """What is served."""
    state = enter(request, OPEN_INFERENCE.name)
    let_in(request, state.keys)
    rows = [
        {"name": name, "version": "1", "state": "READY" if slot.model else "UNAVAILABLE"}
        for slot, name in state.service.models.listed()
    ]
    return Response(orjson.dumps(rows), media_type="application/json")


@router.get("/v2/models/{rest:path}", **docs.MODEL_DOC)
async def describe(request: Request, rest: Annotated[str, MODEL_PATH]) -> Response:
    """A model's tensors; with `/ready`, `/config` or `/stats` behind its name, those."""
    state = enter(request, OPEN_INFERENCE.name)
    let_in(request, state.keys)
    name, what, model = await _find(request, state, rest, ("/ready", "/config", "/stats"))
    if what == "/ready":
        _check_ready(state)
        return json_response({"name": name, "ready": True})
    if what == "/stats":
        return json_response({"model_stats": [{"name": name, "version": "1"}]})
    if what == "/config":
        return json_response({"name": name, "platform": PLATFORM, "max_batch_size": 0})
    return json_response(_metadata(name, model))


@router.post("/v2/models/{rest:path}", **docs.INFER_DOC)
async def infer(request: Request, rest: Annotated[str, INFER_PATH]) -> Response:
    """Embed the strings of a tensor; the path ends in `/infer`."""
    state = enter(request, OPEN_INFERENCE.name)
    key_id = let_in(request, state.keys)
    name, what, model = await _find(request, state, rest, ("/infer",))
    if what != "/infer":
        raise NotFoundError("POST to /v2/models/NAME/infer")
    head, tail = await _read(request, state)
    asked = Asked(request, state, state.dialect(OPEN_INFERENCE.name), key_id, head)
    tensors = read_tensors(head, tail)
    is_binary = _is_binary_wanted(head)
    call, source = _call(head, tensors, model, name)
    asked.check_count(len(call.inputs))
    result = await embed(asked, call, source=source)
    return _answer(head, name, call, result, is_binary=is_binary)


async def _find(
    request: Request, state: ApiState, rest: str, endings: tuple[str, ...]
) -> tuple[str, str, ServedModel]:
    """A path behind `/v2/models/` as name, ending and model.

    Raises:
        UnknownModelError: No such model.
    """
    what = next((ending for ending in endings if rest.endswith(ending)), "")
    name = re.sub(r"/versions/[^/]+$", "", rest.removesuffix(what))
    return name, what, await hold_model(request, state, name)


async def _read(request: Request, state: ApiState) -> tuple[dict[str, Any], bytes]:
    """The JSON of a body, and the raw tensors behind it.

    Raises:
        BodyFormatError: The header's length is none of the body's, or the JSON is no object.
    """
    raw = await read_body(request, max_bytes=state.options.max_body_bytes)
    said = request.headers.get(JSON_LENGTH)
    length = len(raw)
    if said is not None:
        if not said.isascii() or not said.isdigit() or int(said) > len(raw):
            raise BodyFormatError("Inference-Header-Content-Length does not fit the body")
        length = int(said)
    head = await parse_bounded(raw[:length], state.options.json)
    if not isinstance(head, dict):
        raise BodyFormatError("the JSON of the body must be an object")
    return head, raw[length:]


def _is_binary_wanted(head: Body) -> bool:
    """Whether the output goes as raw bytes.

    Raises:
        InputError: An output that is not there is asked for.
    """
    parameters = _parameters(head)
    outputs = head.get("outputs")
    wanted = boolean_field(parameters, "binary_data_output") is True
    if outputs is None:
        return wanted
    if not isinstance(outputs, list):
        raise InputError("'outputs' must be a list", param="outputs", code="invalid_type")
    for index, one in enumerate(outputs):
        if not isinstance(one, dict) or one.get("name") != OUTPUT:
            raise InputError(f"the only output is '{OUTPUT}'", param="outputs", input_index=index)
        said = boolean_field(_parameters(one), "binary_data")
        wanted = wanted if said is None else said
    return wanted


def _parameters(body: Body) -> Mapping[str, Any]:
    found = body.get("parameters") or {}
    if not isinstance(found, dict):
        raise InputError("'parameters' must be an object", param="parameters", code="invalid_type")
    return found


def _call(
    head: Body, tensors: Mapping[str, Tensor], model: ServedModel, name: str
) -> tuple[EmbedCall, str]:
    """What is asked for, and the tensor that its inputs came from.

    Raises:
        InputError: There is no tensor of texts or ids, or an option is wrong.
    """
    options = _parameters(head)
    source, inputs = _inputs(tensors)
    role = _scalar_text(tensors, "input_type") or text_field(options, "input_type")
    dimensions = _scalar_integer(tensors, "dimensions") or integer_field(options, "dimensions")
    call = EmbedCall(
        inputs=inputs,
        model=name,
        dimensions=dimensions,
        normalize=boolean_field(options, "normalize"),
        truncate=truncation_field(options),
        prompt_name=text_field(options, "prompt_name"),
        prompt_role=None if role is None else ROLE_WORDS.get(role.lower(), role),
        output_dtypes=(dtype_field(options, "embedding_type") or OutputDtype.FLOAT32,),
        deadline_s=_deadline_s(options),
    )
    return call, source


def _inputs(tensors: Mapping[str, Tensor]) -> tuple[str, list[Any]]:
    """The tensor to embed: of texts by one of its names, or the only one; else of ids."""
    named = next((name for name in TEXT_NAMES if name in tensors), None)
    if named is None:
        loose = [n for n, t in tensors.items() if t.datatype == "BYTES" and n not in OPTION_NAMES]
        named = loose[0] if len(loose) == 1 else None
    if named is not None:
        return named, list(tensors[named].texts)
    if "input_ids" not in tensors:
        raise InputError("there is no tensor 'text' of datatype BYTES, nor 'input_ids'")
    ids = tensors["input_ids"]
    mask = tensors.get("attention_mask")
    if len(ids.shape) != 2 or (mask is not None and mask.shape != ids.shape):  # noqa: PLR2004 - (B, S)
        raise InputError(
            "'input_ids' must be of shape [n, length], and 'attention_mask' like it",
            param="input_ids",
        )
    width = ids.shape[1]
    values, kept = ids.integers, mask.integers if mask else [1] * len(ids.values)
    starts = range(0, len(values), width) if width else ()
    rows = [
        [v for v, k in zip(values[i : i + width], kept[i : i + width], strict=True) if k]
        for i in starts
    ]
    return "input_ids", rows


def _scalar_text(tensors: Mapping[str, Tensor], name: str) -> str | None:
    found = tensors[name].texts if name in tensors else []
    return found[0] if found else None


def _scalar_integer(tensors: Mapping[str, Tensor], name: str) -> int | None:
    found = tensors[name].integers if name in tensors else []
    return found[0] if found else None


def _deadline_s(options: Body) -> float | None:
    """Triton's timeout, in microseconds."""
    timeout_us = integer_field(options, "timeout")
    return time.monotonic() + timeout_us / 1e6 if timeout_us and timeout_us > 0 else None


def _answer(
    head: Body, name: str, call: EmbedCall, result: EmbedResult, *, is_binary: bool
) -> Response:
    ((dtype, vectors),) = result.converted.items()
    output: dict[str, Any] = {
        "name": OUTPUT,
        "datatype": DATATYPES[dtype],
        "shape": list(vectors.shape),
    }
    answer: dict[str, Any] = {"model_name": name, "model_version": "1"}
    if isinstance(head.get("id"), str):
        answer["id"] = head["id"]
    headers = result_headers(result, call)
    if not is_binary:
        output["data"] = orjson.Fragment(array_json(vectors.reshape(-1)))
        content = orjson.dumps({**answer, "outputs": [output]})
        return Response(content, headers=headers, media_type="application/json")
    output["parameters"] = {"binary_data_size": vectors.nbytes}
    content = orjson.dumps({**answer, "outputs": [output]})
    headers[JSON_LENGTH] = str(len(content))
    return Response(
        content + vectors.tobytes(), headers=headers, media_type="application/octet-stream"
    )


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
