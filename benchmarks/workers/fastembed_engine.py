"""fastembed with our padded ONNX graph. Arguments: folder of the model, "fp32", folder of the padded graph."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["HF_HUB_OFFLINE"] = "1"

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from protocol import serve

NAME = "nestvec/padded"


def main() -> None:
    """Make one model for each number of threads, and serve."""
    exported = sys.argv[3]
    TextEmbedding.add_custom_model(
        NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=384,
        model_file="model.onnx",
    )
    models: dict[int, Any] = {}

    def encode(texts: Sequence[str], setting: dict[str, Any]) -> Any:
        threads = setting["threads"]
        if threads not in models:
            models[threads] = TextEmbedding(NAME, specific_model_path=exported, threads=threads)
        # It runs texts in the caller's order; sorted by length it pads less, which is its best setting.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        embedded = models[threads].embed([texts[i] for i in order], batch_size=setting["batch"])
        vectors: list[Any] = [None] * len(texts)
        for index, vector in zip(order, embedded, strict=True):
            vectors[index] = vector
        return vectors

    serve({"fastembed": version("fastembed")}, encode)


main()
