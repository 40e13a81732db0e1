"""llama-index's client of Text Embeddings Inference, which never looks at a status."""

import json
import sys

from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

url = sys.argv[1]
texts = ["hello", "world"]
client = TextEmbeddingsInference(
    model_name="org/any",
    base_url=url,
    auth_token="test-key",
    query_instruction="",
    text_instruction="",
)
print(
    json.dumps(
        {
            "texts": texts,
            "default": client.get_text_embedding_batch(texts),
            "query": client.get_query_embedding("hello"),
            "long": client.get_text_embedding("word " * 999),
        }
    )
)
