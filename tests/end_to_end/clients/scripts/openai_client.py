"""The unmodified openai client: its default format, floats, cuts, models, errors."""

import json
import sys

import openai

url = sys.argv[1]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="test-key", max_retries=0)
texts = ["hello", "world", "", "日本語 🙂"]
default = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts)
floats = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts, encoding_format="float")
cut = client.embeddings.create(model="text-embedding-3-small", input="hello", dimensions=64)


def failure(**arguments: object) -> dict[str, object]:
    """Return the error that a call raises."""
    try:
        client.embeddings.create(**arguments)
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "has_request_id": bool(error.request_id),
        }
    return {}


wrong_key = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
try:
    wrong_key.models.list()
    refused = ""
except openai.AuthenticationError as error:
    refused = str(error.code)
print(
    json.dumps(
        {
            "texts": texts,
            "default": [item.embedding for item in default.data],
            "float": [item.embedding for item in floats.data],
            "cut": cut.data[0].embedding,
            "tokens": default.usage.total_tokens,
            "request_id": default._request_id,
            "models": [model.id for model in client.models.list()],
            "model": client.models.retrieve("sentence-transformers/all-MiniLM-L6-v2").id,
            "unknown_model": failure(model="nope", input="a"),
            "bad_item": failure(model="all-MiniLM-L6-v2", input=["a", 1]),
            "bad_dimensions": failure(model="all-MiniLM-L6-v2", input="a", dimensions=385),
            "refused": refused,
        }
    )
)
