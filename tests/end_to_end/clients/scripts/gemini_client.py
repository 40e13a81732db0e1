"""google-genai: contents one by one and in batches, purposes, titles, sizes, models, and its own exception class."""

import json
import sys

from google import genai
from google.genai import errors, types

url = sys.argv[1]
texts = ["hello", "world"]
model = "all-MiniLM-L6-v2"


def client_with(key: str) -> genai.Client:
    """Return a client of the server."""
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url))


client, stranger = client_with("test-key"), client_with("x")
plain = client.models.embed_content(model=model, contents=texts)
small = client.models.embed_content(
    model=model,
    contents=texts,
    config=types.EmbedContentConfig(
        task_type="RETRIEVAL_DOCUMENT", title="A title", output_dimensionality=64
    ),
)
failures = {}
for name, call in {
    "model": lambda: client.models.embed_content(model="none", contents=texts),
    "task": lambda: client.models.embed_content(
        model=model, contents=texts, config=types.EmbedContentConfig(task_type="SEARCH")
    ),
    "key": lambda: stranger.models.embed_content(model=model, contents=texts),
}.items():
    try:
        call()
    except errors.APIError as error:
        failures[name] = [type(error).__name__, error.code, error.status]
print(
    json.dumps(
        {
            "default": [row.values for row in plain.embeddings],
            "small": [row.values for row in small.embeddings],
            "models": [row.name for row in client.models.list()],
            "one": client.models.get(model=model).name,
            "failures": failures,
        }
    )
)
