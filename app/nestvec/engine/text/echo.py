"""Echo embeddings: a causal model reads a text twice, and only the second reading is pooled.

Source: Repetition Improves Language Model Embeddings (arXiv:2402.15449).
"""

from collections.abc import Sequence

from nestvec.engine.text.encoded import Encoded, Fit
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Truncation


def encode_echo(
    tokenizer: Tokenizer, texts: Sequence[str], fit: Fit, echo: tuple[str, str]
) -> list[Encoded]:
    """Texts as such a model reads them.

    Args:
        tokenizer: The model's.
        texts: Each is put twice.
        fit: What to do beyond the limit; its prefix stands before the second reading too.
        echo: What stands before the first reading, and between the two.

    Raises:
        InputTooLongError: A text is too long and truncation is off; names its index.
    """
    return [_encode(tokenizer, text, index, fit, echo) for index, text in enumerate(texts)]


def _encode(
    tokenizer: Tokenizer, text: str, index: int, fit: Fit, echo: tuple[str, str]
) -> Encoded:
    limit = tokenizer.room(fit)
    kept = tokenizer.cut_chars(text, fit)
    is_cut = len(kept) < len(text)
    while True:
        first = f"{fit.prefix}{echo[0]}{kept}{echo[1]}"
        ids, stops = tokenizer.encode_with_stops(first + kept, adds_special=fit.adds_special)
        over = len(ids) - limit
        fit.check(len(ids), limit, index, is_lower_bound=is_cut)
        if over <= 0 or len(kept) <= 1:
            own = (n for n, stop in enumerate(stops) if stop is not None and stop > len(first))
            skip = min(next(own, len(ids) - 1), limit - 1)
            return Encoded(ids[:limit], is_truncated=is_cut, skip_tokens=skip)
        is_cut = True
        # Both readings shrink; a little at a time, so as not to lose more than need be.
        size = max(1, min(len(kept) - 1, int(len(kept) * (1 - over / len(ids)))))
        kept = kept[-size:] if fit.truncate is Truncation.START else kept[:size]
