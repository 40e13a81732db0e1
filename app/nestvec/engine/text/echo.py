"""Echo embeddings: a causal model reads a text twice, and only the second reading is pooled.

Source: Repetition Improves Language Model Embeddings (arXiv:2402.15449).
"""

from collections.abc import Sequence

from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Truncation


def encode_echo(
    tokenizer: Tokenizer, texts: Sequence[str], options: TokenizeOptions, echo: tuple[str, str]
) -> list[Encoded]:
    """Tokenize texts as an echo model reads them: each one twice.

    Args:
        tokenizer: The model's tokenizer.
        texts: The texts.
        options: What to do beyond the limit; the prompt stands before the second reading too.
        echo: The words before the first reading, and those between the two.

    Raises:
        InputTooLongError: A text is too long and truncation is off; names its index.
    """
    return [_encode(tokenizer, text, index, options, echo) for index, text in enumerate(texts)]


def _encode(
    tokenizer: Tokenizer, text: str, index: int, options: TokenizeOptions, echo: tuple[str, str]
) -> Encoded:
    max_length = tokenizer.max_length(options)
    kept = tokenizer.enough_chars(text, options, index)
    is_cut = drops_more = len(kept) < len(text)
    most_tokens = 0
    while True:
        options.check_going_on()
        first = f"{options.prompt}{echo[0]}{kept}{echo[1]}"
        ids, stops = tokenizer.encode_with_stops(
            first + kept, adds_special_tokens=options.adds_special_tokens
        )
        excess = len(ids) - max_length
        most_tokens = max(most_tokens, len(ids))
        options.check_length(len(ids), max_length, index, is_lower_bound=is_cut)
        if excess <= 0 or len(kept) <= 1:
            second = (n for n, stop in enumerate(stops) if stop is not None and stop > len(first))
            options.note_tokens(min(len(ids), max_length))
            skip_tokens = min(next(second, len(ids) - 1), max_length - 1)
            return Encoded(
                ids[:max_length],
                is_truncated=is_cut or excess > 0,
                skip_tokens=skip_tokens,
                dropped_tokens=most_tokens - min(len(ids), max_length),
                drops_more=drops_more,
            )
        is_cut = True
        # Both readings shrink; a little at a time, so as not to lose more than need be.
        size = max(1, min(len(kept) - 1, int(len(kept) * (1 - excess / len(ids)))))
        kept = kept[-size:] if options.truncate is Truncation.START else kept[:size]
