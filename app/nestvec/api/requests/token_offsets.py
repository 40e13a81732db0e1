"""`return_offsets`: where each token lies in its text whose vector an answer holds."""

from collections.abc import Sequence
from typing import Final, cast

import orjson

from nestvec.api.requests.fields import Body, boolean_field
from nestvec.api.requests.json_parts import COPIED_BYTES, Turns
from nestvec.engine.outputs.joint import kinds_of
from nestvec.engine.outputs.tokens import token_places
from nestvec.engine.results import EmbedResult
from nestvec.engine.service import EmbeddingService
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.tokenization import resolve_prompt
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.errors import InputError, UnsupportedError

FIELD: Final = "return_offsets"
# To tell a text's tokens takes as long as to write so many objects.
OBJECTS_PER_TEXT: Final = 256


def wants_offsets(body: Body, call: EmbedCall) -> bool:
    """Return whether a body asks for the places of tokens.

    Raises:
        InputError: It does, and for no vectors of tokens, or its inputs are token ids.
    """
    if FIELD not in body or boolean_field(body, FIELD) is not True:
        return False
    reason = None
    if OutputKind.TOKENS not in kinds_of(call.kind):
        reason = "goes with vectors of tokens"
    elif not all(isinstance(value, str) for value in call.inputs):
        reason = "goes with texts, not token ids or pictures"
    elif call.examples:
        reason = "does not go with worked examples"
    if reason is not None:
        raise InputError(f"'{FIELD}' {reason}", param=FIELD)
    return True


async def with_offsets(
    service: EmbeddingService,
    call: EmbedCall,
    result: EmbedResult,
    rows: Sequence[bytes | Sequence[bytes]],
    *,
    latest_s: float | None = None,
) -> list[bytes]:
    """Return what an answer holds for each input, whole or in parts, with the places of its tokens behind it.

    Args:
        service: The engine.
        call: What was asked for, the dialect's truncation in it.
        result: The vectors.
        rows: What an answer holds for each input.
        latest_s: Monotonic time by which it must be done; None for any.

    Raises:
        UnsupportedError: The model's token vectors are not of one token each.
        RequestTooLargeError: The texts are far beyond the tokens of a request.
        DeadlineError: The deadline passed.
    """
    slot = service.models.find(call.model, call.kind)
    filled = slot.preset(call.model).fill(call)
    async with service.pool.using(call.model, call.kind) as model:
        prompt = resolve_prompt(filled, model.spec)[1]
        truncate, adds_special = service.limits.truncation_of(filled), filled.adds_special_tokens
        options = TokenizeOptions(truncate, filled.max_tokens, adds_special, prompt)
        described = await service.token_calls.describe(
            cast("Sequence[str]", call.inputs),
            adds_special_tokens=adds_special,
            prompt_name=None,
            prompt=prompt,
            model=slot.name,
            deadline_s=latest_s,
        )
        places, turns = [], Turns()
        for text in described:
            places.append(token_places(text, model.tokenizer, model.spec, filled, options))
            await turns.spend(OBJECTS_PER_TEXT + len(text))
    counts = result.by_kind.get(OutputKind.TOKENS, result).rows
    if tuple(map(len, places)) != counts:
        raise UnsupportedError(
            "this model repeats, leaves out or merges tokens, so that its vectors have no places in a text",
            param=FIELD,
        )
    written, turns = [], Turns(COPIED_BYTES)
    for row, of_text in zip(rows, places, strict=True):
        pairs = [None if start < 0 else (start, stop) for start, stop in of_text.tolist()]
        whole = row if isinstance(row, bytes) else b"".join(row)
        written.append(b'%s,"offsets":%s' % (whole, orjson.dumps(pairs)))
        await turns.spend(len(written[-1]))
    return written
