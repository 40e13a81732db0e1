"""Several kinds of output of one run: a vector, weights of terms and vectors of tokens, as BGE-M3 gives them.

What a run makes of an item travels as rows of one array: the first column tells a row's kind and how many of the others
are its values, a vector, or terms and their weights by turns.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.base import Finished, OutputAdapter
from nestvec.engine.results import RawVectors
from nestvec.engine.splitting import Check, go_on
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import EmbedCall, FloatArray, Item, OutputKind
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.engine.vectors.token_vectors import TokenPooling

JOINT: Final = "+"  # between the values of the kinds
TAGS: Final = {OutputKind.DENSE: 1, OutputKind.SPARSE: 2, OutputKind.TOKENS: 3}
TAG_BASE: Final = 4  # of a row's head, number of values * base + tag, which float32 holds exactly
TERM_VALUES: Final = 2  # id and weight


@lru_cache
def kinds_of(kind: OutputKind) -> tuple[OutputKind, ...]:
    """Return the kinds that a kind of output stands for: itself, or several that one run gives."""
    return tuple(map(OutputKind, kind.split(JOINT)))


class JointOutput(OutputAdapter):
    """Gives a vector and weights of terms.

    Args:
        adapters: Those of single kinds.
        kind: What it stands for.
    """

    needed_model = "a model that gives all of these outputs"

    def __init__(self, adapters: Mapping[OutputKind, OutputAdapter], kind: OutputKind) -> None:
        self._parts = {part: adapters[part] for part in kinds_of(kind)}

    @override
    def tokenize(
        self, tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
    ) -> list[Encoded]:
        """Tokenize as the last of the kinds does, which for token vectors says which of them are given out."""
        return list(self._parts.values())[-1].tokenize(tokenizer, spec, call, options)

    @override
    def width(self, pooler: Pooler, hidden_size: int) -> int:
        """Return the number of dimensions of the narrower vectors."""
        parts = self._parts.values()
        return min(part.width(pooler, hidden_size) for part in parts if part.has_dimensions)

    @override
    def rows(self, states: FloatArray, item: Item, pooler: Pooler) -> FloatArray:
        """Make the rows of each kind, and put them into one array, (r, 1 + W)."""
        parts = self._parts.items()
        return joint_rows({kind: part.rows(states, item, pooler) for kind, part in parts})

    @override
    def are_degenerate(self, rows: FloatArray, *, allows_zeros: bool = False) -> NDArray[np.bool_]:
        """Mark rows of NaN or infinity, and vectors of zeros unless the model may give those."""
        is_bad = np.asarray(~np.isfinite(rows).all(axis=1))
        if not allows_zeros:
            is_sparse = np.mod(np.where(is_bad, 0, rows[:, 0]), TAG_BASE) == TAGS[OutputKind.SPARSE]
            is_bad = is_bad | (~rows[:, 1:].any(axis=1) & ~is_sparse)
        return np.asarray(is_bad)

    @override
    def finish(
        self,
        raw: RawVectors,
        call: EmbedCall,
        quantizer: Quantizer,
        *,
        normalize: bool,
        token_pooling: TokenPooling | None = None,
        check: Check = go_on,
    ) -> Finished:
        """Finish the rows of each kind as its own adapter does."""
        by_kind = {}
        sizes, tags = np.divmod(raw.vectors[:, 0].astype(np.int64), TAG_BASE)
        item_of_row = np.repeat(np.arange(len(raw.rows)), raw.rows)
        for kind, part in self._parts.items():
            check()
            is_own = tags == TAGS[kind]
            width = TERM_VALUES if kind is OutputKind.SPARSE else int(sizes[is_own].max())
            values = np.bincount(item_of_row[is_own], sizes[is_own], minlength=len(raw.rows))
            is_value = np.arange(raw.vectors.shape[1] - 1) < sizes[is_own, None]
            rows = raw.vectors[is_own, 1:][is_value].reshape(-1, width)
            counts = (values / width).astype(np.int64)
            of_kind = RawVectors(rows, tuple(counts.tolist()), 0.0, 0.0)
            by_kind[kind] = part.finish(
                of_kind,
                call,
                quantizer,
                normalize=normalize,
                token_pooling=token_pooling,
                check=check,
            )
        first = next(iter(by_kind.values()))
        return Finished(first.vectors, first.rows, first.converted, by_kind)


class JointTokensOutput(JointOutput):
    """Gives vectors of tokens, and a vector or weights of terms, or both."""

    has_token_rows = True


def joint_rows(made: Mapping[OutputKind, FloatArray]) -> FloatArray:
    """Put the rows of each kind that an item gives into one array, (r, 1 + W); `JointOutput.finish` takes it apart."""
    # An even number of values, so that no term is parted from its weight.
    width = max(rows.shape[1] for rows in made.values())
    width += width % TERM_VALUES
    return np.concatenate([_packed(rows, kind, width) for kind, rows in made.items()])


def _packed(rows: FloatArray, kind: OutputKind, width: int) -> FloatArray:
    """Put rows of a kind, (r, D), or its terms, (k, 2), into rows of a common width, (r', 1 + W)."""
    values, size = rows.reshape(-1), width if kind is OutputKind.SPARSE else rows.shape[1]
    starts = np.arange(0, len(values), size)
    packed = np.zeros((len(starts), 1 + width), np.float32)
    sizes = np.minimum(size, len(values) - starts)
    packed[:, 0] = sizes * TAG_BASE + TAGS[kind]
    packed[:, 1:][np.arange(width) < sizes[:, None]] = values
    return packed
