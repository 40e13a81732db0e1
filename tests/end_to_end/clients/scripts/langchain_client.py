"""langchain-openai with its default settings: ids of cl100k, an empty document, several batches."""

import json
import sys

from langchain_openai import OpenAIEmbeddings

url = sys.argv[1]
texts = ["hello", "hello world, this is a longer sentence", "日本語 🙂"]
default = OpenAIEmbeddings(base_url=f"{url}/v1", api_key="test-key")
plain = OpenAIEmbeddings(
    base_url=f"{url}/v1",
    api_key="test-key",
    model="all-MiniLM-L6-v2",
    check_embedding_ctx_length=False,
)
small = OpenAIEmbeddings(
    base_url=f"{url}/v1", api_key="test-key", model="text-embedding-3-large", dimensions=64
)
print(
    json.dumps(
        {
            "texts": texts,
            "default": default.embed_documents(texts),
            "plain": plain.embed_documents(texts),
            "empty": default.embed_documents(["", "hello"]),
            "query": default.embed_query("hello"),
            "small": small.embed_query("hello"),
        }
    )
)
