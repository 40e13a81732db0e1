"""How many of a call's tokens are those of the prompt that it asked for, beside its texts' own."""

import asyncio
from collections.abc import Sequence
from typing import Final

from nestvec.engine.front.front_threads import INLINE_CHARS
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.text.encoded import Encoded
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import EmbedCall, OutputKind

# Pairs have templates instead; terms are counted without a prompt where they are counted.
WITH_PROMPTS: Final = (OutputKind.DENSE, OutputKind.TOKENS)


async def count_instruction_tokens(
    call: EmbedCall,
    prompt: str,
    encoded: Sequence[Encoded],
    spec: ModelSpec,
    tokenizer: Tokenizer,
) -> tuple[int, ...]:
    """Count the tokens of a prompt, without special ones, in what the model reads of each input.

    A prompt is counted as it is tokenized alone, once for each window.

    Args:
        call: The call.
        prompt: The prompt that it means.
        encoded: Its inputs, or its documents.
        spec: The model.
        tokenizer: The model's.

    Returns:
        A number for each item of `encoded`, 0 for a picture; nothing at all where the call itself asks for no prompt,
        where its kind of output has none, or where examples gave way to long texts, so that inputs have different
        prompts.
    """
    if not prompt or call.kind not in WITH_PROMPTS or not _asks_for_prompt(call):
        return ()
    if call.examples and any(value.is_truncated for value in encoded):
        return ()

    def count() -> int:
        return tokenizer.count_prompt_tokens(prompt, keeps=prompt in spec.prompts.values())

    # Where it is left out of the pooling, it was counted for that.
    leading = max((value.skip_tokens for value in encoded), default=0)
    if not leading:
        leading = count() if len(prompt) <= INLINE_CHARS else await asyncio.to_thread(count)
    tokens = leading - tokenizer.prefix_tokens
    if tokens <= 0:
        return ()
    return tuple(_within(tokens, value) for value in encoded)


def _within(tokens: int, value: Encoded) -> int:
    """How many of an input's tokens are those of a prompt of so many; pictures have none."""
    if value.pixels is not None:
        return 0
    if value.windows is None:
        return min(tokens, len(value.ids))
    return min(tokens * len(value.windows.parts), value.windows.tokens)


def _asks_for_prompt(call: EmbedCall) -> bool:
    """Whether the call itself names a prompt, rather than the model having one unasked."""
    named = (call.prompt, call.prompt_name, call.prompt_role, call.instruction)
    return bool(call.examples) or any(value is not None for value in named)
