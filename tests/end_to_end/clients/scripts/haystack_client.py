"""haystack: its OpenAI, Hugging Face API and Jina embedders."""

import json
import sys

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.embedders.jina import JinaDocumentEmbedder

url = sys.argv[1]
texts = ["hello", "world"]
key = Secret.from_token("test-key")
openai = {"api_base_url": f"{url}/v1", "api_key": key, "model": "all-MiniLM-L6-v2"}
# It asks for raw vectors unless told otherwise.
tei = {
    "api_type": "text_embeddings_inference",
    "api_params": {"url": url},
    "token": key,
    "normalize": True,
}


def documents() -> list[Document]:
    """Return new documents, since embedders write vectors into them."""
    return [Document(content=text) for text in texts]


by_openai = OpenAIDocumentEmbedder(**openai, progress_bar=False).run(documents())
jina = JinaDocumentEmbedder(
    api_key=key,
    model="all-MiniLM-L6-v2",
    base_url=f"{url}/v1/embeddings",
    task="retrieval.passage",
    progress_bar=False,
)
by_jina = jina.run(documents())
by_tei = HuggingFaceAPIDocumentEmbedder(**tei, progress_bar=False).run(documents())
print(
    json.dumps(
        {
            "texts": texts,
            "default": [d.embedding for d in by_openai["documents"]],
            "usage": by_openai["meta"]["usage"],
            "query": OpenAITextEmbedder(**openai).run("hello")["embedding"],
            "jina": [d.embedding for d in by_jina["documents"]],
            "tei": [d.embedding for d in by_tei["documents"]],
            "tei_query": HuggingFaceAPITextEmbedder(**tei).run("hello")["embedding"],
        }
    )
)
