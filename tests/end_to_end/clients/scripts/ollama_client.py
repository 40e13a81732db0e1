"""ollama, and langchain-ollama with its check that the model is there."""

import json
import sys

import ollama
from langchain_ollama import OllamaEmbeddings

url = sys.argv[1]
texts = ["hello", "world"]
headers = {"Authorization": "Bearer test-key"}
client = ollama.Client(host=url, headers=headers)
model = "all-MiniLM-L6-v2"
answer = client.embed(model=model, input=texts)
try:
    client.embed(model="none", input=texts)
    refused = ""
except ollama.ResponseError as error:
    refused = f"{error.status_code} {error.error}"
langchain = OllamaEmbeddings(
    model=model,
    base_url=url,
    validate_model_on_init=True,
    client_kwargs={"headers": headers},
)
print(
    json.dumps(
        {
            "texts": texts,
            "default": [list(row) for row in answer.embeddings],
            "tokens": answer.prompt_eval_count,
            "small": list(client.embed(model=model, input="hello", dimensions=64).embeddings[0]),
            "too_large": len(
                client.embed(model=model, input="hello", dimensions=999).embeddings[0]
            ),
            "old": list(client.embeddings(model=model, prompt="hello").embedding),
            "nothing": list(client.embed(model=model, input="").embeddings),
            "models": [m.model for m in client.list().models],
            "running": [m.model for m in client.ps().models],
            "shown": client.show(model).modelinfo["bert.embedding_length"],
            "refused": refused,
            "langchain": langchain.embed_documents(texts),
            "langchain_query": langchain.embed_query("hello"),
            "langchain_cut": langchain.embed_documents(["word " * 999])[0],
        }
    )
)
