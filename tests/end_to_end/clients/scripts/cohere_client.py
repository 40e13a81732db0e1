"""cohere: both versions of embed, every type, rerank, and its own exception classes."""

import json
import sys

import cohere

url = sys.argv[1]
texts = ["hello", "world"]
types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
v2 = cohere.ClientV2(base_url=url, api_key="test-key")
v1 = cohere.Client(base_url=url, api_key="test-key")
options = {"model": "all-MiniLM-L6-v2", "input_type": "search_document"}
plain = v2.embed(texts=texts, embedding_types=["float"], **options)
every = v2.embed(texts=texts, embedding_types=types, output_dimension=64, **options)
old = v1.embed(texts=texts, **options)
many = v1.embed(texts=[f"text {n}" for n in range(200)], **options)  # in batches of 96
ranked = v2.rerank(
    model="all-MiniLM-L6-v2", query="a pet", documents=["the stock market", "a dog"], top_n=1
)
failures = {}
for name, call in {
    "model": lambda: v2.embed(texts=texts, **{**options, "model": "none"}),
    "long": lambda: v2.embed(texts=["word " * 999], truncate="NONE", **options),
    "key": lambda: cohere.ClientV2(base_url=url, api_key="x").embed(texts=texts, **options),
}.items():
    try:
        call()
    except cohere.core.ApiError as error:
        failures[name] = [type(error).__name__, error.status_code]
embeddings = every.embeddings
print(
    json.dumps(
        {
            "texts": texts,
            "default": plain.embeddings.float_,
            "types": {
                name: getattr(embeddings, "float_" if name == "float" else name) for name in types
            },
            "v1": old.embeddings,
            "v1_count": len(many.embeddings),
            "tokens": every.meta.billed_units.input_tokens,
            "ranked": [r.index for r in ranked.results],
            "failures": failures,
        }
    )
)
