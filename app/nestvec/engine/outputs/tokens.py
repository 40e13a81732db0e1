"""A vector for each token: plain states, or those that late interaction compares (ColBERT, arXiv:2004.12832)."""

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.base import Finished, OutputAdapter, converted
from nestvec.engine.results import RawVectors
from nestvec.engine.splitting import Check, go_on
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.token_report import DescribedText
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import encode_inputs, is_query_call
from nestvec.engine.types import EmbedCall, FloatArray, Item, Truncation
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.engine.vectors.token_vectors import TokenPooling, pool_tokens


def are_queries(call: EmbedCall, spec: ModelSpec) -> bool:
    """Whether a model of token vectors reads a call's texts as queries: as it says, or as the model does unasked."""
    late = spec.late_interaction
    says_nothing = call.prompt_role is None and call.prompt_name is None
    takes_queries = late is not None and late.takes_queries_unasked
    return is_query_call(call) or (says_nothing and takes_queries)


def token_places(
    described: DescribedText,
    tokenizer: Tokenizer,
    spec: ModelSpec,
    call: EmbedCall,
    options: TokenizeOptions,
) -> NDArray[np.int64]:
    """Tell where the tokens lie whose vectors a text is answered with.

    Args:
        described: All tokens of the text, the prompt before it.
        tokenizer: The model's tokenizer.
        spec: What the model is.
        call: The call, which says whether its texts are queries.
        options: How the text was cut, and its prompt.

    Returns:
        Where each starts and stops in the text, in characters, (r, 2); -1 for special tokens and those of the prompt.
    """
    late, is_query = spec.late_interaction, are_queries(call, spec)
    limited = options
    if late is not None:
        limited = late.limit(options, is_query=is_query, model_max_tokens=tokenizer.max_tokens)
    before, behind = map(len, tokenizer.special_token_frame(options))
    excess = max(0, len(described) - tokenizer.max_length(limited))
    content = np.arange(before, len(described) - behind)
    content = (
        content[excess:]
        if options.truncate is Truncation.START
        else content[: len(content) - excess]
    )
    kept = np.concatenate(
        [np.arange(before), content, np.arange(len(described))[len(described) - behind :]]
    )
    places = described.places[kept] - len(options.prompt)
    places = np.where(places[:, 1:] <= 0, -1, np.maximum(places, 0))
    if late is None:
        return places
    encoded = late.mark(
        Encoded(described.ids[kept].astype(np.int32), is_truncated=False), is_query=is_query
    )
    added = np.full((len(encoded.ids) - len(places), 2), -1)
    marker = late.query_marker if is_query else late.document_marker
    markers = 0 if marker is None else 1
    places = np.concatenate([places[:1], added[:markers], places[1:], added[markers:]])
    return places if encoded.token_mask is None else places[encoded.token_mask]


class TokensOutput(OutputAdapter):
    """Gives a row for each token that counts."""

    needed_model = "a model that gives token vectors"
    has_token_rows = True

    @override
    def model_words(self, spec: ModelSpec) -> str:
        """Return the word for a model that gives nothing but token vectors."""
        return "a late-interaction model"

    @override
    def tokenize(
        self, tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
    ) -> list[Encoded]:
        """Tokenize queries or documents, as the call's role says; where it says nothing, as the model reads texts."""
        late = spec.late_interaction
        if late is None:
            return encode_inputs(tokenizer, spec, call, options)
        is_query = are_queries(call, spec)
        limited = late.limit(options, is_query=is_query, model_max_tokens=tokenizer.max_tokens)
        encoded = encode_inputs(tokenizer, spec, call, limited)
        return [late.mark(value, is_query=is_query) for value in encoded]

    @override
    def width(self, pooler: Pooler, hidden_size: int) -> int:
        """Return the number of columns of a state that are a token's vector."""
        return len(range(*pooler.token_columns.indices(hidden_size)))

    @override
    def rows(self, states: FloatArray, item: Item, pooler: Pooler) -> FloatArray:
        """Take the vectors of the tokens that count; (r, D)."""
        vectors = states[:, pooler.token_columns]
        return vectors if item.token_mask is None else vectors[item.token_mask]

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
        """Cut and renormalize the tokens' vectors, and merge like ones where the model or the call says so."""
        is_own = token_pooling is not None and token_pooling.scales is not None
        # A model's own pooling compares vectors of unit length, and says itself which length they leave with.
        is_unit = normalize or is_own
        vectors = finish(raw.vectors, dimensions=call.dimensions, normalize=is_unit)
        rows = raw.rows
        if token_pooling is not None and token_pooling.factor > 1:
            stops = np.cumsum(rows)[:-1]
            pooled = []
            for part in np.split(vectors, stops):
                check()
                pooled.append(pool_tokens(part, token_pooling.factor, token_pooling.kept))
            is_scaled = bool(token_pooling.scales) if is_own else normalize
            vectors = finish(np.concatenate(pooled), dimensions=None, normalize=is_scaled)
            rows = tuple(map(len, pooled))
        codes = converted(vectors, call, quantizer.for_unit_vectors(), check)
        return Finished(vectors, rows, codes)
