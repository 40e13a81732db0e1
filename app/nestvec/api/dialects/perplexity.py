"""The Perplexity dialect: chunks embedded within their document.

Source: Perplexity's API reference, "Create Contextualized Embeddings", and the page "Best Practices" of its embeddings,
which says how bits are packed. What its Python client sends and reads is in docs/wire-behaviour.md, "Perplexity".
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from fastapi import Response
from numpy.typing import NDArray

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.chunked_documents import (
    documents_field,
    documents_json,
    embed_documents,
    list_response,
)
from nestvec.api.requests.fields import choice_field, integer_field
from nestvec.api.requests.vector_json import rows_json
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.types import EmbedCall

CONTEXTUALIZED_FIELDS: Final = frozenset({"input", "model", "dimensions", "encoding_format"})
ENCODINGS: Final[Mapping[str, OutputDtype]] = {
    "base64_int8": OutputDtype.INT8,
    "base64_binary": OutputDtype.UBINARY,
}
# Of each byte, the one whose bits are in the other order.
REVERSED_BITS: Final = np.packbits(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), axis=1, bitorder="little"
).reshape(256)


async def contextualized_embeddings(api_request: ApiRequest) -> Response:
    """Embed the chunks of documents, each in the context of its document (late chunking)."""
    api_request.check_fields(CONTEXTUALIZED_FIELDS)
    api_request.find_model()
    documents = documents_field(api_request, "input")
    body = api_request.body
    encoding = choice_field(body, "encoding_format", tuple(ENCODINGS)) or "base64_int8"
    options = EmbedCall(
        inputs=[],
        model=api_request.model_name(),
        dimensions=integer_field(body, "dimensions"),
        output_dtypes=(ENCODINGS[encoding],),
    )
    call, result = await embed_documents(api_request, documents, options, name="input")
    (vectors,) = result.converted.values()
    if encoding == "base64_binary":
        vectors = lowest_bit_first(vectors)
    rows = await rows_json(vectors, as_base64=True)
    tokens = sum(result.input_tokens)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return await list_response(api_request, call, result, documents_json(rows, call.chunks), usage)


def lowest_bit_first(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return packed signs `[B, D / 8]` with the first value of each byte in its lowest bit instead of its highest."""
    reversed_bits: NDArray[np.uint8] = REVERSED_BITS[packed]
    return reversed_bits
