"""llama-index-embeddings-openai: its default model name, and ours."""

import json
import sys

from llama_index.embeddings.openai import OpenAIEmbedding

url = sys.argv[1]
texts = ["hello", "world"]
default = OpenAIEmbedding(api_base=f"{url}/v1", api_key="test-key")
named = OpenAIEmbedding(model_name="all-MiniLM-L6-v2", api_base=f"{url}/v1", api_key="test-key")
print(
    json.dumps(
        {
            "texts": texts,
            "default": default.get_text_embedding_batch(texts),
            "named": named.get_text_embedding_batch(texts),
            "query": named.get_query_embedding("hello"),
        }
    )
)
