"""CTranslate2's encoder, converted from the same folder; length-sorted batches under a token budget."""

import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["HF_HUB_OFFLINE"] = "1"

import ctranslate2
import numpy as np
from protocol import serve
from tokenizers import Tokenizer

MAX_TOKENS = 256


def main() -> None:
    """Convert once, one encoder for each arrangement of threads."""
    folder = Path(sys.argv[1])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    converted = tempfile.mkdtemp()
    ctranslate2.converters.TransformersConverter(str(folder)).convert(converted, force=True)
    encoders: dict[tuple[int, int], Any] = {}

    def run(encoder: Any, ids: list[list[int]], places: list[int], out: Any) -> None:
        hidden = np.array(encoder.forward_batch([ids[i] for i in places]).last_hidden_state)
        for row, i in enumerate(places):
            mean = hidden[row, : len(ids[i])].mean(axis=0)
            out[i] = mean / np.linalg.norm(mean)

    def encode(texts: Sequence[str], setting: dict[str, Any]) -> Any:
        inter, intra = setting["inter"], setting["intra"]
        if (inter, intra) not in encoders:
            encoders[inter, intra] = ctranslate2.Encoder(
                converted,
                device="cpu",
                compute_type="float32",
                inter_threads=inter,
                intra_threads=intra,
            )
        encoder = encoders[inter, intra]
        ids = [e.ids for e in tokenizer.encode_batch_fast(list(texts))]
        out: list[Any] = [None] * len(ids)
        with ThreadPoolExecutor(inter) as pool:
            list(pool.map(lambda p: run(encoder, ids, p, out), batches(ids, setting["budget"])))
        return out

    serve({"ctranslate2": ctranslate2.__version__}, encode)


def batches(ids: list[list[int]], budget: int) -> list[list[int]]:
    """Longest first, padded tokens within the budget."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    found: list[list[int]] = []
    for i in order:
        if found and (len(found[-1]) + 1) * len(ids[found[-1][0]]) <= budget:
            found[-1].append(i)
        else:
            found.append([i])
    return found


main()
