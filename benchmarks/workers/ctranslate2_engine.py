"""CTranslate2's encoder, converted from the same folder. Arguments: folder of the model, compute type."""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["HF_HUB_OFFLINE"] = "1"

import ctranslate2
import numpy as np
from batching import load_tokenizer, run_all
from protocol import serve


def main() -> None:
    """Convert the model once, make one encoder for each arrangement of threads, and serve."""
    folder, compute_type = sys.argv[1:3]
    tokenizer = load_tokenizer(folder)
    converted = tempfile.mkdtemp()
    ctranslate2.converters.TransformersConverter(folder).convert(converted, force=True)
    encoders: dict[tuple[int, int], Any] = {}

    def encode(texts: Sequence[str], setting: dict[str, Any]) -> Any:
        inter, intra = setting["inter"], setting["intra"]
        if (inter, intra) not in encoders:
            encoders[inter, intra] = ctranslate2.Encoder(
                converted,
                device="cpu",
                compute_type=compute_type,
                inter_threads=inter,
                intra_threads=intra,
            )
        encoder = encoders[inter, intra]
        ids = [e.ids for e in tokenizer.encode_batch_fast(list(texts))]

        def run(indices: list[int]) -> list[Any]:
            hidden = np.array(encoder.forward_batch([ids[i] for i in indices]).last_hidden_state)
            means = [hidden[row, : len(ids[i])].mean(axis=0) for row, i in enumerate(indices)]
            return [mean / np.linalg.norm(mean) for mean in means]

        return run_all(ids, setting["budget"], inter, run)

    serve({"ctranslate2": ctranslate2.__version__}, encode)


main()
