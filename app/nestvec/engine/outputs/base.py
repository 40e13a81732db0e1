"""OutputAdapter: all that depends on what kind of output a call asks for.

A new output is a member of `OutputKind`, a file with a subclass beside this one, and a line in `adapters.ADAPTERS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.results import EmbedResult, RawVectors
from nestvec.engine.splitting import Check, go_on
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import encode_inputs
from nestvec.engine.types import EmbedCall, FloatArray, Item, OutputKind
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import convert, degenerate_rows, finish
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.engine.vectors.token_vectors import TokenPooling


@dataclass(frozen=True, slots=True)
class Finished:
    """The rows of a call as they are given out.

    Attributes:
        vectors: All rows, (R, D), float32.
        rows: Number of rows of each item.
        converted: The same rows in each dtype that the call asks for: (R, D), or (R, D / 8) for bits.
        by_kind: The rows of each kind of output, where the call asks for several; the others are of the first then.
    """

    vectors: FloatArray
    rows: tuple[int, ...]
    converted: Mapping[OutputDtype, NDArray[Any]]
    by_kind: "Mapping[OutputKind, Finished]" = field(default_factory=dict)

    def spread(self, result: EmbedResult) -> EmbedResult:
        """Return a result of these rows with one for each kind of output, where there are several."""
        if not self.by_kind:
            return result
        by_kind = {
            kind: replace(result, vectors=part.vectors, rows=part.rows, converted=part.converted)
            for kind, part in self.by_kind.items()
        }
        return replace(result, by_kind=by_kind)


class OutputAdapter(ABC):
    """How one kind of output is made; stateless.

    Attributes:
        needed_model: The kind of model that gives this output, in words, for refusals.
        is_text_vector: Whether the output is one vector for a whole text (or chunk), which can be taken at an early
            exit, mapped to another space, and averaged over windows.
        has_token_rows: Whether each token has a row: such calls need token states and are bounded by their tokens, and
            like rows can be merged.
        has_dimensions: Whether rows are vectors, which can be cut to fewer dimensions and converted. Others (scores,
            weights) are given out as they are, and zeros among them are no failure.
    """

    needed_model: ClassVar[str]
    is_text_vector: ClassVar[bool] = False
    has_token_rows: ClassVar[bool] = False
    has_dimensions: ClassVar[bool] = True

    def model_words(self, spec: ModelSpec) -> str:
        """Return what a model is that is known for this output, in words."""
        del spec
        return "dense"

    def tokenize(
        self, tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
    ) -> list[Encoded]:
        """Tokenize all inputs of a call.

        Raises:
            InputError: An input cannot be tokenized or is too long; names its index.
        """
        return encode_inputs(tokenizer, spec, call, options)

    def look_up(
        self, call: EmbedCall, encoded: Sequence[Encoded], spec: ModelSpec, pooler: Pooler
    ) -> RawVectors | None:
        """Return the call's rows where they need no run of the model; else None."""
        del call, encoded, spec, pooler
        return None

    @abstractmethod
    def width(self, pooler: Pooler, hidden_size: int) -> int:
        """Return the native number of dimensions of a row; 0 where rows are no vectors.

        Args:
            pooler: The model's pooler.
            hidden_size: Number of columns that the backend gives.
        """

    @abstractmethod
    def rows(self, states: FloatArray, item: Item, pooler: Pooler) -> FloatArray:
        """Make an item's rows, (r, D), float32, of its token states.

        Args:
            states: The item's token states, (n, W), float32.
            item: The item.
            pooler: The model's pooler.
        """

    def are_degenerate(self, rows: FloatArray, *, allows_zeros: bool = False) -> NDArray[np.bool_]:
        """Mark rows that must never leave: NaN, infinity, and vectors of zeros, unless the model may give those.

        Args:
            rows: (r, D).
            allows_zeros: Whether vectors of zeros may leave; rows that are no vectors may hold zeros anyway.

        Returns:
            Whether each row is such, (r,), bool.
        """
        return degenerate_rows(rows, allows_zeros=allows_zeros or not self.has_dimensions)

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
        """Cut the vectors of a call to its dimensions, renormalize and convert them; give other rows out as they are.

        Args:
            raw: Rows as the core gives them, mapped where the call asks for it.
            call: The call.
            quantizer: Ranges for 8-bit vectors.
            normalize: Whether rows are scaled to unit length.
            token_pooling: How rows of tokens are merged; None where they are not.
            check: Called between steps of long work; what it raises ends it.
        """
        del token_pooling
        if not self.has_dimensions:
            return Finished(raw.vectors, raw.rows, {})
        vectors = finish(raw.vectors, dimensions=call.dimensions, normalize=normalize)
        by_dtype = converted(vectors, call, quantizer.for_unit_vectors(), check)
        if quantizer.takes_raw:
            unscaled = finish(raw.vectors, dimensions=call.dimensions, normalize=False)
            codes = {dtype for dtype in by_dtype if dtype in (OutputDtype.INT8, OutputDtype.UINT8)}
            by_dtype |= {dtype: convert(unscaled, dtype, quantizer) for dtype in codes}
        return Finished(vectors, raw.rows, by_dtype)


def converted(
    vectors: FloatArray, call: EmbedCall, quantizer: Quantizer, check: Check = go_on
) -> dict[OutputDtype, NDArray[Any]]:
    """Convert vectors, (R, D), to each dtype that a call asks for, with a check before each."""
    by_dtype = {}
    for dtype in call.output_dtypes:
        check()
        by_dtype[dtype] = convert(vectors, dtype, quantizer)
    return by_dtype
