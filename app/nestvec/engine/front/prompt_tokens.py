"""How many of a call's tokens are those of the prompt that it asked for, beside its texts' own."""

from collections.abc import Sequence
from typing import Final

from nestvec.engine.front.front_threads import INLINE_CHARS, FrontThreads
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.text.encoded import Encoded
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.types import EmbedCall, OutputKind

# Pairs have templates instead; terms are counted without a prompt where they are counted.
WITH_PROMPTS: Final = (OutputKind.DENSE, OutputKind.TOKENS)


async def count_instruction_tokens(
    call: EmbedCall,
    prompt: str,
    encoded: Sequence[Encoded],
    model: ServedModel,
    threads: FrontThreads,
    ticket: WorkTicket,
) -> tuple[int, ...]:
    """Count the tokens of a prompt, without special ones, in what the model reads of each input.

    A prompt is counted as it is tokenized alone, once for each window.

    Args:
        call: The call.
        prompt: The prompt that it means.
        encoded: Its inputs, or its documents.
        model: The model.
        threads: Do the counting where the prompt is long.
        ticket: The call's.

    Returns:
        A number for each item of `encoded`, 0 for a picture that is read without it; nothing at all where the call
        itself asks for no prompt, where its kind of output has none, or where examples gave way to long texts, so that
        inputs have different prompts.
    """
    if not prompt or call.kind not in WITH_PROMPTS or not _asks_for_prompt(call):
        return ()
    if call.examples and any(value.is_truncated for value in encoded):
        return ()

    tokenizer = model.tokenizer

    def count() -> int:
        return tokenizer.count_prompt_tokens(prompt, keeps=prompt in model.spec.prompts.values())

    # Where it is left out of the pooling, it was counted for that.
    leading = max((value.skip_tokens for value in encoded), default=0)
    if not leading:
        is_short = len(prompt) <= INLINE_CHARS
        leading = count() if is_short else await threads.run(count, ticket, chars=len(prompt))
    tokens = leading - tokenizer.prefix_tokens
    if tokens <= 0:
        return ()
    is_chat = model.spec.chat is not None
    return tuple(
        0 if value.pixels is not None and not is_chat else _within(tokens, value)
        for value in encoded
    )


def _within(tokens: int, value: Encoded) -> int:
    """How many of an input's tokens are those of a prompt of so many."""
    if value.windows is None:
        return min(tokens, len(value.ids))
    return min(tokens * len(value.windows.parts), value.windows.tokens)


def _asks_for_prompt(call: EmbedCall) -> bool:
    """Whether the call itself names a prompt, rather than the model having one unasked."""
    named = (call.prompt, call.prompt_name, call.prompt_role, call.instruction)
    return bool(call.examples) or any(value is not None for value in named)
