"""litellm: the OpenAI route, and its own class for texts that are too long, chosen by the message."""

import json
import sys

import litellm

url = sys.argv[1]
texts = ["hello", "world"]
answer = litellm.embedding(
    model="openai/all-MiniLM-L6-v2", input=texts, api_base=f"{url}/v1", api_key="test-key"
)
try:
    litellm.embedding(
        model="openai/all-MiniLM-L6-v2",
        input=["word " * 300],
        api_base=f"{url}/v1",
        api_key="test-key",
    )
    kind = ""
except litellm.ContextWindowExceededError as error:
    kind = type(error).__name__
print(
    json.dumps({"texts": texts, "default": [d["embedding"] for d in answer.data], "too_long": kind})
)
