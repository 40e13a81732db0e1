"""OpenVINO on the padded ONNX graph. Arguments: folder of the model, precision, folder of the padded graph."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import openvino as ov
from batching import load_tokenizer, run_all
from protocol import serve


def main() -> None:
    """Compile the model once for each number of streams, and serve."""
    folder, precision, exported = sys.argv[1:4]
    tokenizer = load_tokenizer(folder)
    core = ov.Core()
    model = core.read_model(f"{exported}/model.onnx")
    compiled: dict[int, Any] = {}
    local = threading.local()

    def encode(texts: Sequence[str], setting: dict[str, Any]) -> Any:
        streams = setting["streams"]
        if streams not in compiled:
            properties = {
                "INFERENCE_PRECISION_HINT": precision,
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": setting["threads"],
            }
            compiled[streams] = core.compile_model(model, "CPU", properties)
        ids = [e.ids for e in tokenizer.encode_batch_fast(list(texts))]

        def run(indices: list[int]) -> Any:
            requests = local.__dict__.setdefault("requests", {})
            if streams not in requests:
                requests[streams] = compiled[streams].create_infer_request()
            longest = max(len(ids[i]) for i in indices)
            padded = np.zeros((len(indices), longest), np.int64)
            mask = np.zeros_like(padded)
            for row, i in enumerate(indices):
                padded[row, : len(ids[i])] = ids[i]
                mask[row, : len(ids[i])] = 1
            feeds = {
                "input_ids": padded,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(padded),
            }
            # States are zeros at padding.
            hidden = requests[streams].infer(feeds)[0]
            means = hidden.sum(axis=1) / mask.sum(axis=1)[:, None]
            return means / np.linalg.norm(means, axis=1, keepdims=True)

        return run_all(ids, setting["budget"], streams, run)

    serve({"openvino": ov.__version__.split("-")[0]}, encode)


main()
