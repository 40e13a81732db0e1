"""The Azure client of openai: a deployment's path, `api-key`, any version."""

import json
import sys

from openai import AzureOpenAI, NotFoundError

url = sys.argv[1]
texts = ["hello", "world"]
client = AzureOpenAI(azure_endpoint=url, api_key="test-key", api_version="2024-10-21")
answer = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts)
cut = client.embeddings.create(model="text-embedding-3-small", input="hello", dimensions=64)
try:
    client.embeddings.create(model="no-such-deployment", input=texts)
    refused = ""
except NotFoundError as error:
    refused = str(error.code)
print(
    json.dumps(
        {
            "texts": texts,
            "default": [d.embedding for d in answer.data],
            "cut": cut.data[0].embedding,
            "models": [m.id for m in client.models.list()],
            "refused": refused,
        }
    )
)
