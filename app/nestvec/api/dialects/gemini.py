"""The Gemini dialect: `embedContent` and `batchEmbedContents`.

Source: Google's API reference, "Embeddings", and what `google-genai` sends and reads
(docs/wire-behaviour.md, "Gemini").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import GEMINI
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.encoded_picture import EncodedInput, EncodedPicture
from nestvec.api.requests.fields import (
    Body,
    choice_field,
    integer_field,
    invalid_item,
    text_field,
    truncation_field,
)
from nestvec.api.requests.headers import add_answer_header, result_headers
from nestvec.api.requests.json_parts import join_parts, object_parts
from nestvec.api.requests.pictures.parts import mixture, read_inline
from nestvec.api.requests.pictures.reading import CallInputs, read_inputs
from nestvec.api.requests.vector_json import rows_json
from nestvec.api.schemas.documented import MODEL_PATH
from nestvec.api.schemas.gemini import BATCH_EMBED_DOC, EMBED_DOC
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.results import EmbedResult
from nestvec.engine.tokenization import resolve_prompt
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.errors import (
    EmptyInputError,
    InputError,
    InternalError,
    RequestTooLargeError,
)

router = APIRouter(route_class=RawRoute, tags=[GEMINI.name])

# `autoTruncate` is Vertex AI's word; the Gemini API itself cuts always.
BATCH_FIELDS: Final = frozenset({"requests", "model", "autoTruncate"})
REQUEST_FIELDS: Final = frozenset({"content", "model", "taskType", "title", "outputDimensionality"})
FIELDS: Final = BATCH_FIELDS | REQUEST_FIELDS
# Protocol Buffers' JSON takes the names of the .proto file too, and the Java and Go clients of old sent them.
SPELLINGS: Final = {
    "auto_truncate": "autoTruncate",
    "task_type": "taskType",
    "output_dimensionality": "outputDimensionality",
}
TASK_ROLES: Final[Mapping[str, str | None]] = {
    "TASK_TYPE_UNSPECIFIED": None,
    "RETRIEVAL_QUERY": "query",
    "RETRIEVAL_DOCUMENT": "passage",
    "SEMANTIC_SIMILARITY": "similarity",
    "CLASSIFICATION": "classify",
    "CLUSTERING": "cluster",
    "QUESTION_ANSWERING": "query",
    "FACT_VERIFICATION": "query",
    "CODE_RETRIEVAL_QUERY": "query",
}
# How EmbeddingGemma's own prompt for documents says that there is no title.
NO_TITLE: Final = "title: none"
# Of a content; a batch has a hundred of them at most.
MAX_PARTS: Final = 1000
RESOURCE: Final = "models/"


@dataclass(frozen=True, slots=True)
class ContentRequest:
    """One content to embed.

    Attributes:
        content: The text of its parts, joined, or a picture, or texts and pictures.
        role: What it is for; None where the request does not say.
        dimensions: How many values are wanted; None for all.
        title: Title of a document; "" for none.
    """

    content: str | EncodedInput
    role: str | None
    dimensions: int | None
    title: str

    def titled(self, prompt: str) -> tuple[str | EncodedInput, bool]:
        """Return the text with its title, and whether the model's own prompt stands in it already.

        A picture has neither.
        """
        text = self.content
        if not self.title or not isinstance(text, str):
            return text, False
        if NO_TITLE in prompt:
            return prompt.replace(NO_TITLE, f"title: {self.title}", 1) + text, True
        return f"{self.title}\n{text}", False


@router.post("/v1beta/models/{model:path}:embedContent", **EMBED_DOC)
@router.post("/v1/models/{model:path}:embedContent", include_in_schema=False)
async def embed_content(request: Request, model: Annotated[str, MODEL_PATH]) -> Response:
    """Embed one content."""
    api_request = await _read(request, model)
    return await _answer(api_request, [_single(api_request)], is_batch=False)


@router.post("/v1beta/models/{model:path}:batchEmbedContents", **BATCH_EMBED_DOC)
@router.post("/v1/models/{model:path}:batchEmbedContents", include_in_schema=False)
async def batch_embed_contents(request: Request, model: Annotated[str, MODEL_PATH]) -> Response:
    """Embed several contents, each with a purpose and a size of its own."""
    api_request = await _read(request, model)
    return await _answer(api_request, _batch(api_request, model), is_batch=True)


@router.post("/v1beta/models/{target:path}", include_in_schema=False)
@router.post("/v1/models/{target:path}", include_in_schema=False)
async def other_method(request: Request, target: str) -> Response:
    """Say that a method of Google's models is none of ours.

    Raises:
        InputError: Always.
    """
    await read_request(request, GEMINI)
    method = target.rpartition(":")[2]
    raise InputError(
        f"'{method}' is no method of models here: there are embedContent and batchEmbedContents",
        code="unknown_method",
    )


async def _read(request: Request, model: str) -> ApiRequest:
    """Take in a request for a model that its path names."""
    api_request = await read_request(request, GEMINI)
    _check_model(api_request.body.get("model"), model)
    api_request.body["model"] = model
    return api_request


def _check_model(named: object, name: str) -> None:
    """Refuse a body that names another model than the path, as Google does."""
    if named is not None and named not in (name, RESOURCE + name):
        raise InputError(f"'model' must be '{RESOURCE}{name}', as the path says", param="model")


def _single(api_request: ApiRequest) -> ContentRequest:
    body = _spelled(api_request.body)
    replace(api_request, body=body).check_fields(REQUEST_FIELDS | {"autoTruncate"})
    return _content_request(body)


def _batch(api_request: ApiRequest, name: str) -> list[ContentRequest]:
    """Read the requests of a batch; an error names the one at fault."""
    api_request.check_fields(BATCH_FIELDS)
    requests = api_request.body.get("requests")
    if requests is None:
        raise InputError("you must provide 'requests'", param="requests")
    if not isinstance(requests, list):
        raise InputError("'requests' must be a list of objects", param="requests")
    if not requests:
        raise EmptyInputError("'requests' must not be an empty list", param="requests")
    api_request.check_count(len(requests))
    contents = []
    for index, row in enumerate(requests):
        if not isinstance(row, dict):
            raise invalid_item("requests", index, "must be an object")
        try:
            fields = _spelled(row)
            _check_model(fields.get("model"), name)
            replace(api_request, body=fields).check_fields(REQUEST_FIELDS)
            contents.append(_content_request(fields))
        except InputError as error:
            error.param = (
                f"requests[{index}].{error.param}" if error.param else f"requests[{index}]"
            )
            raise
    return contents


def _spelled(body: Body) -> dict[str, Any]:
    """Return an object with the names of its fields as Google's JSON writes them."""
    return {SPELLINGS.get(name, name): value for name, value in body.items()}


def _content_request(body: Body) -> ContentRequest:
    task = choice_field(body, "taskType", tuple(TASK_ROLES))
    return ContentRequest(
        content=_content(body.get("content")),
        role=None if task is None else TASK_ROLES[task],
        dimensions=integer_field(body, "outputDimensionality"),
        title=text_field(body, "title") or "",
    )


def _content(content: object) -> str | EncodedInput:
    """Return what a content holds; its parts get one vector: texts alone become one, a line each.

    Raises:
        InputError: It is no content, or has none.
        RequestTooLargeError: It has more parts than are looked through on the event loop.
        UnsupportedError: It holds something else than texts and a picture.
    """
    if content is None:
        raise InputError("you must provide 'content'", param="content")
    parts = content.get("parts") if isinstance(content, dict) else None
    # Protocol Buffers' JSON takes a single message for a list of one, and so do the clients.
    parts = [parts] if isinstance(parts, dict) else parts
    if isinstance(parts, list) and len(parts) > MAX_PARTS:
        raise RequestTooLargeError(
            f"'content.parts' has {len(parts)} parts, max {MAX_PARTS}; join them",
            param="content.parts",
        )
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise InputError("'content' must be an object with a list 'parts'", param="content")
    if not parts:
        raise EmptyInputError("'content.parts' must not be an empty list", param="content.parts")
    texts: list[str] = []
    read: list[str | EncodedPicture] = []
    for index, part in enumerate(parts):
        text = part.get("text")
        if text is None and (picture := read_inline(part, f"content.parts[{index}]")) is not None:
            read.append(picture)
            continue
        if not isinstance(text, str):
            raise InputError("'text' must be a string", param=f"content.parts[{index}].text")
        texts.append(text)
        read.append(text)
    return "\n".join(texts) if len(texts) == len(read) else mixture(read)


async def _answer(
    api_request: ApiRequest, contents: Sequence[ContentRequest], *, is_batch: bool
) -> Response:
    """Embed contents, those of one purpose and size in one call, and put the vectors in the order of the request."""
    model = await api_request.acquire_model(OutputKind.DENSE)
    groups: dict[EmbedCall, list[int]] = {}
    items: list[str | EncodedInput] = []
    for index, content in enumerate(contents):
        options = _options(api_request, content)
        item, has_prompt = content.titled(_prompt(options, model))
        items.append(item)
        if has_prompt:
            options = replace(options, prompt_role=None, prompt="")
        groups.setdefault(options, []).append(index)
    inputs = await _read_pictures(api_request, items, is_batch=is_batch)
    results = []
    rows: list[bytes] = [b""] * len(contents)
    for options, indices in groups.items():
        call = replace(options, inputs=[inputs[index] for index in indices])
        result = await _embed(api_request, call, indices, is_batch=is_batch)
        results.append((call, result))
        encoded = await rows_json(result.vectors, as_base64=False)
        for index, row in zip(indices, encoded, strict=True):
            rows[index] = row
    tokens = sum(sum(result.input_tokens) for _, result in results)
    _describe(api_request, results)
    usage = {"promptTokenCount": tokens, "totalTokenCount": tokens}
    vectors: list[bytes] = []
    for index, row in enumerate(rows):
        vectors += (b',{"values":' if index else b'{"values":', row, b"}")
    name = "embeddings" if is_batch else "embedding"
    parts = [b"[", *vectors, b"]"] if is_batch else vectors
    body = await join_parts(object_parts({name: None, "usageMetadata": usage}, {name: parts}))
    return Response(body, media_type="application/json")


async def _read_pictures(
    api_request: ApiRequest, items: Sequence[str | EncodedInput], *, is_batch: bool
) -> CallInputs:
    """Decode the pictures of all contents from base64; an error names the request that is at fault."""
    try:
        read = await read_inputs(api_request, items, name="content", is_list=is_batch)
    except InputError as error:
        if is_batch and error.input_index is not None:
            error.param = "requests"
        raise
    return read.inputs


def _options(api_request: ApiRequest, content: ContentRequest) -> EmbedCall:
    return EmbedCall(
        (),
        model=api_request.model_name(),
        dimensions=content.dimensions,
        prompt_role=content.role,
        truncate=truncation_field(api_request.body, "autoTruncate"),
    )


def _prompt(options: EmbedCall, model: ServedModel) -> str:
    """Return the prompt that the model puts before a text."""
    return resolve_prompt(options, model.spec)[1]


async def _embed(
    api_request: ApiRequest, call: EmbedCall, indices: Sequence[int], *, is_batch: bool
) -> EmbedResult:
    """Embed the contents that share their options; an error names the request that is at fault."""
    try:
        return await embed(api_request, call, is_list=is_batch, source="content")
    except (InputError, InternalError) as error:
        if is_batch and error.input_index is not None:
            error.input_index = indices[error.input_index]
            if isinstance(error, InputError):
                error.param = "requests"
        raise


def _describe(api_request: ApiRequest, results: Sequence[tuple[EmbedCall, EmbedResult]]) -> None:
    """Give the answer the headers that describe vectors; what differs between its calls is given of the first."""
    for call, result in reversed(results):
        for name, value in result_headers(result, call).items():
            add_answer_header(api_request.request, name, value)
