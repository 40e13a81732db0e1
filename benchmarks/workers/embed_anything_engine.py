"""EmbedAnything's candle engine, from the same folder. Argument: folder of the model.

It loads models of a hub only, so the folder is laid out as a hub's cache, where it finds every file and asks nobody.
"""

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
NAME = "local/model"


def as_hub_cache(folder: Path) -> Path:
    """Return a cache of a hub that holds a model's folder under `NAME`; it goes with this process."""
    cache = Path(tempfile.mkdtemp(prefix="nestvec-bench-"))
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    model = cache / "hub" / f"models--{NAME.replace('/', '--')}"
    for part in ("refs", "snapshots"):
        (model / part).mkdir(parents=True)
    (model / "refs/main").write_text("0")
    (model / "snapshots/0").symlink_to(folder.resolve())
    return cache


os.environ["HF_HOME"] = str(as_hub_cache(Path(sys.argv[1])))
os.environ["HF_HUB_OFFLINE"] = "1"

import embed_anything
import numpy as np
from protocol import serve


def main() -> None:
    """Load the model, and serve; the number of threads is that of the machine's cores."""
    modes = json.loads((Path(sys.argv[1]) / "1_Pooling/config.json").read_text("utf-8"))
    is_cls = modes["pooling_mode_cls_token"]
    pooling = embed_anything.Pooling.Cls if is_cls else embed_anything.Pooling.Mean
    model = embed_anything.EmbeddingModel.from_pretrained_hf(
        NAME, dtype=embed_anything.Dtype.F32, pooling=pooling
    )

    def encode(texts: Sequence[str], setting: dict[str, Any]) -> Any:
        config = embed_anything.TextEmbedConfig(batch_size=setting["batch"])
        answers = embed_anything.embed_query(list(texts), model, config)
        vectors = np.array([answer.embedding for answer in answers], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    serve({"embed-anything": version("embed-anything")}, encode)


main()
