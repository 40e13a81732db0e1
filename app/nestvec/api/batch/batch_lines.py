"""Lines of a batch, answered as `POST /v1/embeddings` would answer them."""

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import orjson

from nestvec.api.dialect_table import OPENAI
from nestvec.api.dialects.openai_body import (
    FIELDS,
    Encoding,
    parse_call,
    parse_encoding,
    parse_input,
)
from nestvec.api.dialects.openai_response import ResponseExtras, embeddings_parts, outputs_json
from nestvec.api.error_handlers import status_of
from nestvec.api.http.auth import restrict_models
from nestvec.api.requests.bulk_calls import (
    MAX_WAIT_S,
    RUNNING,
    chunk_trace,
    find_slot,
    run_bulk_call,
)
from nestvec.api.requests.embedding import decode_tokens
from nestvec.api.requests.fields import Body, text_field
from nestvec.api.requests.foreign_fields import check_fields
from nestvec.api.requests.pictures.reading import read_pictures
from nestvec.api.requests.token_offsets import wants_offsets, with_offsets
from nestvec.api.state import ApiState
from nestvec.engine.models.model_registry import SlotState
from nestvec.engine.results import EmbedResult, LongInput
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall
from nestvec.errors import (
    AccessError,
    InputError,
    InternalError,
    NestvecError,
    NotReadyError,
)
from nestvec.jobs.types import LineResult
from nestvec.keys.records import KeyLimits
from nestvec.observability.logs import frames_of, get_logger
from nestvec.observability.tracing.request_trace import begin_request

log = get_logger(__name__)

# Most lines hold one text; those of a group that agree in all other fields are run as one call.
PER_LINE: Final = frozenset({"input", "user"})
# What counts a line's own inputs cannot be said of several lines' together.
OF_INPUTS: Final = ("late_chunking", "groups", "weights", "return_offsets")
MAX_CALL_CHARS: Final = 200_000
USUAL_DIMENSIONS: Final = 1024
CHUNK: Final = "batch chunk"


@dataclasses.dataclass(frozen=True, slots=True)
class BatchLines:
    """Answers the lines of batches with the engine.

    Attributes:
        state: The application's shared state.
    """

    state: ApiState

    async def answer(
        self, bodies: Sequence[Mapping[str, Any]], *, owner: str
    ) -> Sequence[LineResult]:
        """Answer each body, in order; a failing line fails alone.

        Args:
            bodies: One a line, each as parsed from JSON.
            owner: Id of the key that the batch belongs to.

        Raises:
            ModelUnavailableError: The lines' model cannot be loaded now.
            NotReadyError: The server is shutting down.
        """
        try:
            restrict_models(await self._limits_of(owner))
        except AccessError as error:  # the key was revoked
            return [self.refuse(error)] * len(bodies)
        results: list[LineResult | None] = [None] * len(bodies)
        groups = await asyncio.to_thread(_group_alike, bodies)
        with self._traced(len(bodies)):
            fills = [self._fill(results, bodies, indices, owner) for indices in groups]
            await asyncio.gather(*fills)
        return cast("list[LineResult]", results)

    @contextmanager
    def _traced(self, lines: int) -> Iterator[None]:
        """Record the calls of a chunk's lines, which the block makes, where spans are recorded."""
        recorder, trace = self.state.recorder, None
        if recorder is not None:
            trace = begin_request(recorder, None, CHUNK, time.monotonic())
        token = chunk_trace.set(trace)
        try:
            yield
        finally:
            chunk_trace.reset(token)
            if trace is not None:
                trace.finish(CHUNK, {"nestvec.lines": lines})

    async def _limits_of(self, owner: str) -> KeyLimits:
        """Return what a key may do; while the keys cannot be read its lines wait.

        Raises:
            AccessError: The key was revoked.
            NotReadyError: The server is shutting down.
        """
        while True:
            try:
                return self.state.keys.limits_of(owner)
            except NotReadyError:
                if self.state.phase not in RUNNING:
                    raise
            await asyncio.sleep(MAX_WAIT_S)

    def refuse(self, error: NestvecError) -> LineResult:
        """Return the result of a line that was not answered because of an error."""
        status = status_of(error)
        content = OPENAI.envelope(error, status, "", OPENAI.field_names)
        return LineResult(status, orjson.dumps(content))

    def is_loaded(self, model: str | None) -> bool:
        """Whether lines for a model can be answered without loading it first; also where no such model is served."""
        slot = find_slot(self.state, model)
        return slot is None or (slot.model is not None and slot.state is SlotState.READY)

    async def load(self, model: str | None) -> None:
        """Load a model.

        Raises:
            NestvecError: It cannot be loaded now.
        """
        if (slot := find_slot(self.state, model)) is not None:
            await self.state.service.pool.load(slot)

    def dimensions(self, model: str | None) -> int:
        """Return how many values a vector of a model has; a guess where it was never loaded."""
        slot = find_slot(self.state, model)
        if slot is None or slot.spec is None:
            return USUAL_DIMENSIONS
        # A recipe's views are several vectors.
        several = slot.model.core.backend_info.hidden_size if slot.parts and slot.model else 0
        return max(several, slot.spec.hidden_size)

    async def _fill(
        self,
        results: list[LineResult | None],
        bodies: Sequence[Body],
        indices: Sequence[int],
        owner: str,
    ) -> None:
        """Answer bodies that ask for the same, as one call if that can be."""
        if len(indices) > 1:
            try:
                answers = await self._answer_group([bodies[index] for index in indices], owner)
            except NotReadyError:
                raise
            except NestvecError:
                pass  # mostly one line is at fault: each is tried alone
            else:
                for index, answer in zip(indices, answers, strict=True):
                    results[index] = answer
                return
        answers = await asyncio.gather(
            *(self._answer_alone(bodies[index], owner) for index in indices)
        )
        for index, answer in zip(indices, answers, strict=True):
            results[index] = answer

    async def _answer_group(self, bodies: Sequence[Body], owner: str) -> list[LineResult]:
        """Answer bodies that differ in nothing but their text and `user`.

        Raises:
            NestvecError: Any of them cannot be answered.
        """
        check_fields(bodies[0], FIELDS, self.state, OPENAI)
        texts = [body["input"] for body in bodies]
        encoding = self._encoding(bodies[0])
        call = parse_call(bodies[0], texts, encoding)
        result = await self._embed(call, owner)
        return [
            await _line_result(
                self.state.service, body, call, encoding, result, slice(row, row + 1)
            )
            for row, body in enumerate(bodies)
        ]

    def _encoding(self, body: Body) -> Encoding:
        """Read how a body wants its vectors written, by its model's name where it does not say.

        Raises:
            UnknownModelError: No model has the name.
            InputError: The encoding, dtype or byte order is unknown.
        """
        name = text_field(body, "model") or ""
        return parse_encoding(body, self.state.service.models.find(name).preset(name).output_dtype)

    async def _answer_alone(self, body: Body, owner: str) -> LineResult:
        """Answer one body; whatever goes wrong becomes its result.

        Raises:
            ModelUnavailableError: Its model cannot be loaded now.
            NotReadyError: The server is shutting down.
        """
        is_list = True
        try:
            check_fields(body, FIELDS, self.state, OPENAI)
            service = self.state.service
            encoding = self._encoding(body)
            name = text_field(body, "model") or ""
            slot, check_count = service.models.find(name), service.check_count
            inputs, is_list = await parse_input(body, slot, name, check_count=check_count)
            decoded = await decode_tokens(self.state, inputs, vocabulary=None)
            read = await read_pictures(self.state, name, decoded)
            call = parse_call(body, read.inputs, encoding)
            wants_offsets(body, call)  # refused before it runs
            result = await self._embed(call, owner)
            return await _line_result(self.state.service, body, call, encoding, result, slice(None))
        except NotReadyError:
            raise
        except NestvecError as error:
            if isinstance(error, InputError | InternalError) and not is_list:
                error.input_index = None
            return self.refuse(error)
        except Exception as error:  # noqa: BLE001 - the other lines must be answered
            # Its message stays out of the log: it may quote the line.
            log.error("line_failed", frames=frames_of(error))  # noqa: TRY400
            return self.refuse(InternalError("The server had an error while processing this line."))

    async def _embed(self, call: EmbedCall, owner: str) -> EmbedResult:
        """Run a call for the key that a batch belongs to, as `run_bulk_call` does."""
        return await run_bulk_call(self.state, call, owner)


async def _line_result(
    service: EmbeddingService,
    body: Body,
    call: EmbedCall,
    encoding: Encoding,
    result: EmbedResult,
    inputs: slice,
) -> LineResult:
    """Answer a line with the vectors of some inputs of a call.

    Raises:
        InputError: The encoding is raw bytes, which a line of JSON cannot hold.
    """
    if encoding.form.startswith("bytes"):
        raise InputError(
            "'encoding_format' must be 'float' or 'base64' in a batch", param="encoding_format"
        )
    rows = await outputs_json(result, call, encoding, inputs)
    if wants_offsets(body, call):
        rows = await with_offsets(service, call, result, rows)
    model = text_field(body, "model") or result.model
    tokens = sum(result.input_tokens[inputs])
    long_inputs = _long_inputs_of(result.long_inputs, inputs)
    unknown = sum(result.unknown_tokens[inputs])
    extras = ResponseExtras(
        *(result.chunks, long_inputs, result.labels, unknown),
        instruction_tokens=sum(result.instruction_tokens[inputs]),
        views=tuple(result.views),
    )
    parts = embeddings_parts(rows, model, tokens, extras, kind=call.kind)
    return LineResult(200, b"".join(parts), tokens)


def _long_inputs_of(long_inputs: Sequence[LongInput], inputs: slice) -> list[LongInput]:
    """What became of a line's own long inputs, numbered as in the line."""
    start, stop = inputs.start or 0, inputs.stop
    return [
        dataclasses.replace(long_input, index=long_input.index - start)
        for long_input in long_inputs
        if start <= long_input.index and (stop is None or long_input.index < stop)
    ]


def _group_alike(bodies: Sequence[Body]) -> list[list[int]]:
    """Group the indices of bodies that can be run as one call; other bodies stand alone."""
    groups: dict[bytes, list[list[int]]] = {}
    alone: list[list[int]] = []
    chars: dict[bytes, int] = {}
    for index, body in enumerate(bodies):
        text = body.get("input")
        counts = isinstance(body.get("context"), list) or any(body.get(name) for name in OF_INPUTS)
        if not isinstance(text, str) or counts:
            alone.append([index])
            continue
        shared = {name: value for name, value in body.items() if name not in PER_LINE}
        try:
            key = orjson.dumps(shared, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:  # nested more deeply than orjson writes
            alone.append([index])
            continue
        chars[key] = chars.get(key, 0) + len(text)
        if key not in groups or chars[key] > MAX_CALL_CHARS:
            groups.setdefault(key, []).append([])
            chars[key] = len(text)
        groups[key][-1].append(index)
    return [*alone, *(indices for groups_of_key in groups.values() for indices in groups_of_key)]
