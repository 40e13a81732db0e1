"""litellm by its other providers, each in its vendor's dialect."""

import json
import sys

import litellm

url = sys.argv[1]
texts = ["hello", "world"]
name = "all-MiniLM-L6-v2"
options = {"input": texts, "api_key": "test-key"}


def rows(answer: litellm.EmbeddingResponse) -> list[list[float]]:
    """Return the vectors of an answer."""
    return [item["embedding"] for item in answer.data]


vectors = {
    "hosted_vllm": rows(
        litellm.embedding(model=f"hosted_vllm/{name}", api_base=f"{url}/v1", **options)
    ),
    "cohere": rows(
        litellm.embedding(model=f"cohere/{name}", api_base=f"{url}/v2/embed", **options)
    ),
    "voyage": rows(litellm.embedding(model=f"voyage/{name}", api_base=f"{url}/v1", **options)),
    "jina_ai": rows(litellm.embedding(model=f"jina_ai/{name}", api_base=f"{url}/v1", **options)),
    "infinity": rows(litellm.embedding(model=f"infinity/{name}", api_base=url, **options)),
    "azure": rows(
        litellm.embedding(model=f"azure/{name}", api_base=url, api_version="2024-10-21", **options)
    ),
}
ranked = litellm.rerank(
    model=f"cohere/{name}",
    query="a pet",
    documents=["the stock market", "a dog"],
    top_n=1,
    api_key="test-key",
    api_base=f"{url}/v2/rerank",
)
print(json.dumps({"texts": texts, **vectors, "ranked": [r["index"] for r in ranked.results]}))
