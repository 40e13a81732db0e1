"""voyageai: every dtype in base64, chunks of documents, rerank, and its own exception classes."""

import json
import sys

import voyageai

url = sys.argv[1]
texts = ["hello", "world"]
client = voyageai.Client(base_url=f"{url}/v1", api_key="test-key")
model = "all-MiniLM-L6-v2"
dtypes = ["float", "int8", "uint8", "binary", "ubinary"]
plain = client.embed(texts, model=model, input_type="document")
by_dtype = {
    dtype: client.embed(texts, model=model, output_dtype=dtype, output_dimension=64).embeddings
    for dtype in dtypes
}
chunks = client.contextualized_embed(inputs=[["hello"], ["one", "two"]], model=model)
ranked = client.rerank("a pet", ["the stock market", "a dog"], model=model, top_k=1)
failures = {}
for name, call in {
    "long": lambda: client.embed(["word " * 999], model=model, truncation=False),
    "key": lambda: voyageai.Client(base_url=f"{url}/v1", api_key="x").embed(texts, model=model),
}.items():
    try:
        call()
    except voyageai.error.VoyageError as error:
        failures[name] = [type(error).__name__, error.http_status]
print(
    json.dumps(
        {
            "texts": texts,
            "default": plain.embeddings,
            "tokens": plain.total_tokens,
            "dtypes": by_dtype,
            "chunks": [r.embeddings for r in chunks.results],
            "ranked": [[r.index, r.document] for r in ranked.results],
            "failures": failures,
        }
    )
)
