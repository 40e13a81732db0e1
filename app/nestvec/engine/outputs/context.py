"""A context before each input, which the model reads and which is left out of the pooling: situated chunks.

The vector is that of the text alone, from token states that saw what stands before it. A line break parts the two,
unless the context ends with a blank. Where both are too long, the context gives way first, from its start.

Source: SitEmb (arXiv:2508.01959); the pooling as sentence-transformers leaves prompts out (`include_prompt`).
"""

from dataclasses import replace
from typing import Final

import numpy as np

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import encode_inputs
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.errors import BackendError, InputError

CONTEXT: Final = "context"
SEPARATOR: Final = "\n"
# Poolings that can leave tokens out; others take the state of one token, which says what all of the input says.
POOLINGS: Final = ("mean", "max", "mean_sqrt_len", "weighted_mean")


def check_context(call: EmbedCall, spec: ModelSpec) -> None:
    """Refuse contexts that a call or its model cannot have.

    Raises:
        InputError: Names the field.
    """
    reason = None
    if len(call.context) != len(call.inputs):
        reason = (
            f"'{CONTEXT}' must hold a text for each of the {len(call.inputs)} inputs, and holds "
            f"{len(call.context)}"
        )
    elif spec.pooling not in POOLINGS:
        reason = (
            f"a context is left out of the pooling, which needs a model with {' or '.join(POOLINGS)} pooling, and this "
            f"one has {spec.pooling}: its vector says what all of the input says; send the context as part of the input"
        )
    elif spec.architecture == "static":
        reason = "this model reads each token alone: a context would change nothing"
    elif spec.echo is not None:
        reason = "this model reads each text twice, with no place for a context"
    elif call.chunks or call.splits:
        reason = (
            "late chunking reads the chunks of a document in context already; send one of the two"
        )
    elif not all(isinstance(value, str) for value in call.inputs):
        reason = "a context goes with texts, not token ids or pictures"
    if reason is not None:
        raise InputError(reason, param=CONTEXT)
    if call.examples:
        raise InputError("worked examples and contexts exclude each other", param="examples")
    if call.truncate is Truncation.WINDOWS:
        raise InputError(
            f"texts with a context are not read in windows; cut them ('end', 'start') or leave out '{CONTEXT}'",
            param="truncate",
        )


def encode_in_context(
    tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
) -> list[Encoded]:
    """Tokenize all inputs of a call, each behind its context.

    Raises:
        InputError: An input cannot be tokenized or is too long, and names its index; or the prompt leaves no room.
    """
    encoded = []
    for index, (text, context) in enumerate(zip(call.inputs, call.context, strict=True)):
        options.check_going_on()
        alone = replace(call, inputs=[text], context=())
        try:
            if not context:
                encoded += encode_inputs(tokenizer, spec, alone, options)
                continue
            encoded.append(_encode(tokenizer, spec, alone, context, options))
        except (InputError, BackendError) as error:
            if error.input_index is not None or isinstance(error, BackendError):
                error.input_index = index
            raise
    return encoded


def _encode(
    tokenizer: Tokenizer, spec: ModelSpec, alone: EmbedCall, context: str, options: TokenizeOptions
) -> Encoded:
    """Tokenize the only input of a call behind a context.

    Raises:
        InputError: It is too long, or the prompt leaves no room.
    """
    text = str(alone.inputs[0])
    before = options.prompt + context + ("" if context[-1].isspace() else SEPARATOR)
    ids, spans = tokenizer.long_texts.whole_with_spans(before + text, options, 0)
    # A token that reaches into the text is the text's: some tokenizers count the blank before a word as its own.
    prompt_tokens = int(np.searchsorted(spans[:, 1], len(options.prompt), "right"))
    prompt_tokens = prompt_tokens if options.prompt else 0
    own_start = int(np.searchsorted(spans[:, 1], len(before), "right"))
    prefix_ids, suffix_ids = tokenizer.special_token_frame(options)
    max_length = tokenizer.max_length(options)
    total = len(prefix_ids) + len(ids) + len(suffix_ids)
    options.check_length(total, max_length, 0, is_lower_bound=False)
    excess = max(0, total - max_length)
    context_tokens = max(0, own_start - prompt_tokens)
    if excess >= context_tokens:
        cut = encode_inputs(tokenizer, spec, alone, options)[0]
        return replace(
            cut,
            is_truncated=excess > 0,
            dropped_tokens=cut.dropped_tokens + (context_tokens if excess else 0),
        )
    kept = np.concatenate(
        [prefix_ids, ids[:prompt_tokens], ids[prompt_tokens + excess :], suffix_ids]
    )
    options.note_tokens(len(kept))
    skip_tokens = min(len(prefix_ids) + own_start - excess, len(kept) - 1)
    return Encoded(kept, is_truncated=excess > 0, skip_tokens=skip_tokens, dropped_tokens=excess)
