"""Parses bodies of the OpenAI dialect: OpenAI's fields, vLLM's, and our own extensions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.api.dialect_table import OPENAI
from nestvec.api.requests.chunking import is_late, parse_splits
from nestvec.api.requests.composition import parse_composition
from nestvec.api.requests.fields import (
    Body,
    Inputs,
    as_integer,
    boolean_field,
    choice_field,
    content_field,
    dtype_field,
    integer_field,
    invalid_item,
    option,
    parse_inputs,
    role_field,
    text_field,
    truncation_field,
)
from nestvec.api.requests.pictures.options import parse_picture_patches
from nestvec.api.requests.pictures.parts import chat_input, read_object, read_objects
from nestvec.api.requests.pictures.reading import CallInputs
from nestvec.api.requests.records import write_records
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.types import EmbedCall, Example, Truncation
from nestvec.errors import InputError
from nestvec.system.unicode import replace_lone_surrogates

FIELDS: Final = frozenset(
    {
        *("input", "model", "dimensions", "encoding_format", "user"),
        *("normalize", "truncate", "prompt", "prompt_name", "input_type", "task"),
        *("instruction", "examples"),
        *("output_dtype", "layers", "map", "late_chunking", "groups", "weights", "context"),
        *("output_types", "return_offsets"),
        *("truncate_prompt_tokens", "truncation_side", "add_special_tokens", "use_activation"),
        *("embed_dtype", "endianness", "request_id", "priority", "padding", "messages"),
        "mm_processor_kwargs",
    }
)
MAX_EXAMPLES: Final = 256
ENCODINGS: Final = ("float", "base64", "bytes", "bytes_only")
# Perplexity's words for base64 of a dtype (docs.perplexity.ai/api-reference/embeddings-post).
BASE64_DTYPES: Final[Mapping[str, OutputDtype]] = {
    "base64_int8": OutputDtype.INT8,
    "base64_binary": OutputDtype.UBINARY,
}
# vLLM's words for dtypes. They decide what base64 and bytes hold; lists of numbers stay float32.
VLLM_DTYPES: Final[Mapping[str, OutputDtype]] = {
    "float32": OutputDtype.FLOAT32,
    "float16": OutputDtype.FLOAT16,
    "bfloat16": OutputDtype.BFLOAT16,
    "fp8_e4m3": OutputDtype.FLOAT8_E4M3,
    "fp8_e5m2": OutputDtype.FLOAT8_E5M2,
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the vectors of an answer are written.

    Attributes:
        form: "float" (a list of numbers, whatever the dtype), "base64", "bytes" or "bytes_only".
        dtype: The dtype of the values.
        is_big_endian: Whether base64 and bytes hold big-endian values.
        vllm_dtype: The word for the dtype in vLLM's own answers.
        is_pinned: Whether the model's name says the dtype, and the request none. Base64 holds the values as
            float32 then: OpenAI's clients ask for it unasked, and take it for that.
    """

    form: str = "float"
    dtype: OutputDtype = OutputDtype.FLOAT32
    is_big_endian: bool = False
    vllm_dtype: str = "float32"
    is_pinned: bool = False

    @property
    def is_base64(self) -> bool:
        """Whether a vector is a base64 string."""
        return self.form == "base64"


def parse_encoding(body: Body, pinned: OutputDtype | None = None) -> Encoding:
    """Read how a body wants its vectors written.

    Args:
        body: As parsed from JSON.
        pinned: The dtype that the model's name stands for, used where the body names none.

    Raises:
        InputError: The encoding, dtype or byte order is unknown.
    """
    form = choice_field(body, "encoding_format", (*ENCODINGS, *BASE64_DTYPES)) or "float"
    output_dtype = dtype_field(body, "output_dtype")
    if form in BASE64_DTYPES:
        dtype = BASE64_DTYPES[form]
        if output_dtype not in (None, dtype):
            raise InputError(f"'{form}' is not '{output_dtype}'", param="output_dtype")
        form, output_dtype = "base64", dtype
    vllm_dtype = choice_field(body, "embed_dtype", tuple(VLLM_DTYPES)) or "float32"
    if pinned is not None and output_dtype is None and option(body, "embed_dtype") is None:
        return Encoding(form, pinned, vllm_dtype=pinned, is_pinned=True)
    byte_order = choice_field(body, "endianness", ("native", "little", "big"))
    dtype = output_dtype or (OutputDtype.FLOAT32 if form == "float" else VLLM_DTYPES[vllm_dtype])
    is_big_endian = byte_order == "big" and form != "float"
    return Encoding(form, dtype, is_big_endian, output_dtype or vllm_dtype)


def parse_call(body: Body, inputs: CallInputs, encoding: Encoding) -> EmbedCall:
    """Read the options of a body into a call.

    Args:
        body: The body as parsed from JSON.
        inputs: The texts, token ids or pictures of its `input`.
        encoding: How vectors are written, from `parse_encoding`; it decides on the dtype.

    Raises:
        InputError: A field is of the wrong type or out of range.
    """
    truncate, max_tokens = parse_truncation(body)
    normalize = boolean_field(body, "normalize")
    if normalize is None:
        normalize = boolean_field(body, "use_activation")
    layers = integer_field(body, "layers")
    return EmbedCall(
        inputs=inputs,
        model=text_field(body, "model") or "",
        dimensions=integer_field(body, "dimensions"),
        normalize=normalize,
        truncate=truncate,
        max_tokens=max_tokens,
        refuses_wider_limit=True,
        adds_special_tokens=boolean_field(body, "add_special_tokens") is not False,
        prompt=content_field(body, "prompt"),
        prompt_name=text_field(body, "prompt_name"),
        prompt_role=role_field(body, OPENAI.role_fields),
        instruction=text_field(body, "instruction"),
        examples=_examples(body),
        output_dtypes=(encoding.dtype,),
        chunks=(len(inputs),) if is_late(body) else (),
        splits=parse_splits(body, len(inputs)),
        **parse_composition(body, len(inputs)),
        adapter=text_field(body, "task"),
        layers=() if layers is None else (layers,),
        map_id=text_field(body, "map") or None,
        takes_views=not encoding.form.startswith("bytes"),
        picture_patches=parse_picture_patches(body),
    )


def _examples(body: Body) -> tuple[Example, ...]:
    """Read the worked examples, each a query and its response.

    Raises:
        InputError: `examples` holds something else; names the item at fault.
    """
    items = option(body, "examples")
    if items is None:
        return ()
    if not isinstance(items, list):
        raise InputError("'examples' must be a list", param="examples", code="invalid_type")
    # Each stands before every input.
    if len(items) > MAX_EXAMPLES:
        raise InputError(
            f"'examples' holds {len(items)} examples, max {MAX_EXAMPLES}", param="examples"
        )
    examples = []
    for index, item in enumerate(items):
        texts = [item.get(n) for n in ("query", "response")] if isinstance(item, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise invalid_item("examples", index, "must be an object with 'query' and 'response'")
        examples.append(Example(*map(replace_lone_surrogates, map(str, texts))))
    return tuple(examples)


async def parse_input(
    body: Body, slot: ModelSlot, name: str, *, check_count: Callable[[int], None]
) -> tuple[Inputs, bool]:
    """Read what a body has to embed: its `input`, or the texts and pictures of vLLM's chat messages.

    Args:
        body: As parsed from JSON.
        slot: The model, whose template may write objects as texts.
        name: The name that the caller gave it.
        check_count: Raises for too many inputs; called first, so that a million items cost nothing.

    Returns:
        The inputs, and whether they came as a list of inputs.

    Raises:
        InputError: There is something else; names the item at fault.
        UnsupportedError: There are messages of texts, or other things than texts and pictures.
    """
    if (chat := chat_input(body, slot.spec)) is not None:
        return [chat], False
    value: Any = body.get("input")
    if isinstance(value, dict):
        try:
            return [read_object(value, "input", 0)], False
        except InputError as error:
            error.input_index = None  # it is the one input, no item of a list
            raise
    if isinstance(value, list):
        value = await write_records(value, slot, name, check_count=check_count)
        # A list of integers is one input, of token ids.
        if value and as_integer(value[0]) is None:
            check_count(len(value))
            value = read_objects(value)
    return parse_inputs(value, check_count=check_count)


def parse_truncation(body: Body) -> tuple[Truncation | None, int | None]:
    """Read what is done with too-long inputs, and how many tokens are too many.

    vLLM's `truncate_prompt_tokens` cuts beyond so many tokens, -1 beyond the model's own length; its
    `truncation_side` is the side that is cut off.

    Returns:
        The truncation, None for the dialect's default, and the limit in tokens, None for the model's own.

    Raises:
        InputError: A field is of the wrong type or out of range.
    """
    truncate = truncation_field(body)
    side = choice_field(body, "truncation_side", ("left", "right"))
    max_tokens = integer_field(body, "truncate_prompt_tokens")
    if max_tokens is not None and max_tokens != -1 and max_tokens < 1:
        raise InputError(
            "'truncate_prompt_tokens' must be -1, or at least 1", param="truncate_prompt_tokens"
        )
    if truncate is None and max_tokens is not None:
        truncate = Truncation.END
    if truncate is Truncation.END and side == "left":
        truncate = Truncation.START
    return truncate, None if max_tokens == -1 else max_tokens
