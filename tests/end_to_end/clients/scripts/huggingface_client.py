"""huggingface_hub, and langchain's endpoint class over it: the URL is the endpoint, with or without /embed."""

import json
import sys

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from langchain_huggingface import HuggingFaceEndpointEmbeddings

url = sys.argv[1]
texts = ["hello", "world"]
root = InferenceClient(model=url, token="test-key")
route = InferenceClient(model=f"{url}/embed", token="test-key")
# It takes no URL for a model, so the inner client is replaced, as its users do.
langchain = HuggingFaceEndpointEmbeddings(
    model="any/name", huggingfacehub_api_token="test-key", provider="hf-inference"
)
langchain.client = root
try:
    route.feature_extraction("word " * 999, truncate=False)
    refused = ""
except HfHubHTTPError as error:
    refused = f"{error.response.status_code} {'256 tokens' in str(error)}"
print(
    json.dumps(
        {
            "texts": texts,
            "default": route.feature_extraction(texts, normalize=True).tolist(),
            "root": root.feature_extraction(texts).tolist(),
            "cut": route.feature_extraction("word " * 999, truncate=True).shape,
            "similarity": root.sentence_similarity("a cat", other_sentences=["a dog", "the moon"]),
            "refused": refused,
            "langchain": langchain.embed_documents(texts),
            "langchain_query": langchain.embed_query("hello"),
        }
    )
)
