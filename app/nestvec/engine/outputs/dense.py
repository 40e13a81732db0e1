"""One vector for each text, chunk or document."""

from typing_extensions import override

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.base import OutputAdapter
from nestvec.engine.outputs.context import encode_in_context
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import encode_inputs
from nestvec.engine.types import EmbedCall, FloatArray, Item
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.spans import pooled_spans


class DenseOutput(OutputAdapter):
    """Pools an item's token states to one vector, or to one for each of its spans."""

    needed_model = "a model that gives a vector for each text"
    is_text_vector = True

    @override
    def tokenize(
        self, tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
    ) -> list[Encoded]:
        """Tokenize all inputs of a call, each behind its context where it has one."""
        encode = encode_in_context if call.context else encode_inputs
        return encode(tokenizer, spec, call, options)

    @override
    def width(self, pooler: Pooler, hidden_size: int) -> int:
        """Return the number of dimensions of a pooled vector."""
        return pooler.vector_width(hidden_size)

    @override
    def rows(self, states: FloatArray, item: Item, pooler: Pooler) -> FloatArray:
        """Pool the item's spans, or all of it; (spans, D)."""
        return pooled_spans(states, item.spans or ((0, item.tokens),), pooler, item.skip_tokens)
