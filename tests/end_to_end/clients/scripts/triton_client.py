"""tritonclient over HTTP: binary both ways, JSON, gzip, and what it asks before."""

import json
import sys

import numpy as np
import tritonclient.http as triton

url = sys.argv[1]
texts = ["hello", "world"]
key = {"authorization": "Bearer test-key"}
model = "all-MiniLM-L6-v2"
client = triton.InferenceServerClient(url.removeprefix("http://"))


# A new dictionary a call: the client writes into it.
def tensor(inputs: list[str], *, binary: bool = True) -> triton.InferInput:
    """Return the tensor of texts."""
    text_tensor = triton.InferInput("text", [len(inputs)], "BYTES")
    text_tensor.set_data_from_numpy(np.array(inputs, dtype=object), binary_data=binary)
    return text_tensor


def infer(inputs: list[str], *, binary: bool = True, **options: object) -> np.ndarray:
    """Return the vectors of texts, as tritonclient decodes them."""
    outputs = None if binary else [triton.InferRequestedOutput("embeddings", binary_data=False)]
    answer = client.infer(
        model, [tensor(inputs, binary=binary)], outputs=outputs, headers=dict(key), **options
    )
    return answer.as_numpy("embeddings")


try:
    client.infer("none", [tensor(texts)], headers=dict(key))
    refused = ""
except triton.InferenceServerException as error:
    refused = str(error)
codes = infer(texts, parameters={"embedding_type": "int8", "dimensions": 64})
print(
    json.dumps(
        {
            "texts": texts,
            "default": infer(texts).tolist(),
            "json": infer(texts, binary=False).tolist(),
            "gzip": infer(
                texts, request_compression_algorithm="gzip", response_compression_algorithm="gzip"
            ).tolist(),
            "int8": [str(codes.dtype), codes.tolist()],
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(model, headers=dict(key)),
            "metadata": client.get_model_metadata(model, headers=dict(key))["outputs"][0]["shape"],
            "server": client.get_server_metadata()["extensions"],
            "refused": refused,
        }
    )
)
