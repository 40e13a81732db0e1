"""Bodies of the OpenAI dialect: OpenAI's fields, vLLM's, and our own extensions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nestvec.api.dialect_table import OPENAI
from nestvec.api.requests.chunking import is_late, parse_splits
from nestvec.api.requests.fields import (
    Body,
    Inputs,
    boolean_field,
    choice_field,
    dtype_field,
    integer_field,
    role_field,
    text_field,
    truncation_field,
    wrong_item,
)
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.instructions import Example
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.errors import InputError, UnsupportedError
from nestvec.system.unicode import replace_lone_surrogates

FIELDS: Final = frozenset(
    {
        *("input", "model", "dimensions", "encoding_format", "user"),
        *("normalize", "truncate", "prompt", "prompt_name", "input_type", "task"),
        *("instruction", "examples"),
        *("output_dtype", "layers", "map", "late_chunking"),
        *("truncate_prompt_tokens", "truncation_side", "add_special_tokens", "use_activation"),
        *("embed_dtype", "endianness", "request_id", "priority", "padding", "messages"),
    }
)
ENCODINGS: Final = ("float", "base64", "bytes", "bytes_only")
# vLLM's words; they say what base64 and bytes hold, and leave lists as they are.
VLLM_DTYPES: Final[Mapping[str, OutputDtype]] = {
    "float32": OutputDtype.FLOAT32,
    "float16": OutputDtype.FLOAT16,
    "bfloat16": OutputDtype.BFLOAT16,
    "fp8_e4m3": OutputDtype.FLOAT8_E4M3,
    "fp8_e5m2": OutputDtype.FLOAT8_E5M2,
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How vectors are written.

    Attributes:
        form: "float" (a list of numbers, whatever the dtype), "base64", "bytes" or "bytes_only".
        dtype: Of the values.
        vllm_dtype: vLLM's word for it, for its own answers.
    """

    form: str = "float"
    dtype: OutputDtype = OutputDtype.FLOAT32
    is_big_endian: bool = False
    vllm_dtype: str = "float32"

    @property
    def is_base64(self) -> bool:
        """Whether a vector is a string."""
        return self.form == "base64"


def parse_encoding(body: Body) -> Encoding:
    """Read how vectors are wanted.

    Raises:
        InputError: No such encoding, dtype or byte order.
    """
    form = choice_field(body, "encoding_format", ENCODINGS) or "float"
    asked = dtype_field(body, "output_dtype")
    word = choice_field(body, "embed_dtype", tuple(VLLM_DTYPES)) or "float32"
    order = choice_field(body, "endianness", ("native", "little", "big"))
    dtype = asked or (OutputDtype.FLOAT32 if form == "float" else VLLM_DTYPES[word])
    return Encoding(form, dtype, order == "big" and form != "float", asked or word)


def parse_call(body: Body, inputs: Inputs) -> EmbedCall:
    """Read the options of a body.

    Raises:
        InputError: A field of the wrong type or out of range.
    """
    truncate, max_tokens = parse_limits(body)
    normalize = boolean_field(body, "normalize")
    if normalize is None:
        normalize = boolean_field(body, "use_activation")
    encoding = parse_encoding(body)
    layers = integer_field(body, "layers")
    return EmbedCall(
        inputs=inputs,
        model=text_field(body, "model") or "",
        dimensions=integer_field(body, "dimensions"),
        normalize=normalize,
        truncate=truncate,
        max_tokens=max_tokens,
        adds_special_tokens=boolean_field(body, "add_special_tokens") is not False,
        prompt=text_field(body, "prompt"),
        prompt_name=text_field(body, "prompt_name"),
        prompt_role=role_field(body, OPENAI.role_fields),
        instruction=text_field(body, "instruction"),
        examples=_examples(body),
        output_dtypes=(encoding.dtype,),
        chunks=(len(inputs),) if is_late(body) else (),
        splits=parse_splits(body, len(inputs)),
        adapter=text_field(body, "task"),
        layers=() if layers is None else (layers,),
        map_id=text_field(body, "map") or None,
    )


def _examples(body: Body) -> tuple[Example, ...]:
    """Worked ones, each a query and its response.

    Raises:
        InputError: Something else; names the place.
    """
    given = body.get("examples")
    if given is None:
        return ()
    if not isinstance(given, list):
        raise InputError("'examples' must be a list", param="examples", code="invalid_type")
    found = []
    for index, one in enumerate(given):
        texts = [one.get(n) for n in ("query", "response")] if isinstance(one, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise wrong_item("examples", index, "must be an object with 'query' and 'response'")
        found.append(Example(*map(replace_lone_surrogates, map(str, texts))))
    return tuple(found)


def refuse_chat(body: Body) -> None:
    """Tell chat bodies from bodies without input.

    Raises:
        UnsupportedError: It holds messages only.
    """
    if body.get("input") is None and body.get("messages") is not None:
        raise UnsupportedError(
            "'messages' need a model with a chat template, and the one here has none; send 'input'",
            param="messages",
        )


def parse_limits(body: Body) -> tuple[Truncation | None, int | None]:
    """Which end is cut off, and beyond how many tokens.

    vLLM's `truncate_prompt_tokens` cuts beyond so many tokens, -1 beyond the model's own; its `truncation_side` is the
    side that goes.
    """
    truncate = truncation_field(body)
    side = choice_field(body, "truncation_side", ("left", "right"))
    kept = integer_field(body, "truncate_prompt_tokens")
    if kept is not None and kept != -1 and kept < 1:
        raise InputError(
            "'truncate_prompt_tokens' must be -1, or at least 1", param="truncate_prompt_tokens"
        )
    if truncate is None and kept is not None:
        truncate = Truncation.END
    if truncate is Truncation.END and side == "left":
        truncate = Truncation.START
    return truncate, None if kept == -1 else kept
