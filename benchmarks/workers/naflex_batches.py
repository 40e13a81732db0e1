"""Batches of pictures in their own shapes against what padding would cost, by SigLIP 2 NaFlex of real sizes.

    python -m benchmarks.workers.naflex_batches [--layers 12] [--rounds 5]

It prints the time of a picture, with random weights: alone, in a packed batch of several shapes, and in one where each
has all 256 patches, as the library pads them, which is what they take without masks at the least.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.pictures.naflex import NaFlexTower
from nestvec.engine.types import Item, ItemOptions, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.export.two_towers.naflex_graph import export_naflex_graph
from nestvec.export.two_towers.picture_graph import PICTURE_GRAPH, PixelScale
from PIL import Image
from safetensors.numpy import save_file

from benchmarks.workers.picture_streams import VISION, tower

PATCH, PATCHES = 16, 256
# Photographs, screens, portraits, panoramas, and pictures that are smaller than the budget.
SIZES = (
    (640, 480),
    (1920, 1080),
    (1080, 1920),
    (3000, 1000),
    (500, 500),
    (1, 1),
    (3, 200),
    (3000, 2000),
)
THREADS = 1
OPTIONS = ItemOptions(are_pictures=True)


def write_weights(folder: Path, layers: int) -> dict[str, Any]:
    """Write a tower of pictures with random weights, and return the model's config.json."""
    width, inner = VISION["hidden_size"], VISION["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        **tower("vision_model.", VISION, layers),
        "vision_model.embeddings.patch_embedding.weight": (width, 3 * PATCH**2),
        "vision_model.embeddings.patch_embedding.bias": (width,),
        "vision_model.embeddings.position_embedding.weight": (PATCHES, width),
        "vision_model.head.probe": (1, 1, width),
        "vision_model.head.attention.in_proj_weight": (3 * width, width),
        "vision_model.head.attention.in_proj_bias": (3 * width,),
        "vision_model.head.attention.out_proj.weight": (width, width),
        "vision_model.head.attention.out_proj.bias": (width,),
        "vision_model.head.mlp.fc1.weight": (inner, width),
        "vision_model.head.mlp.fc1.bias": (inner,),
        "vision_model.head.mlp.fc2.weight": (width, inner),
        "vision_model.head.mlp.fc2.bias": (width,),
    }
    for norm in ("post_layernorm", "head.layernorm"):
        shapes[f"vision_model.{norm}.weight"] = shapes[f"vision_model.{norm}.bias"] = (width,)
    random = np.random.default_rng(0)
    weights = {n: 0.02 * random.standard_normal(s, np.float32) for n, s in shapes.items()}
    save_file(weights, folder / "model.safetensors")
    vision = {**VISION, "num_hidden_layers": layers, "num_patches": PATCHES, "patch_size": PATCH}
    return {"model_type": "siglip2", "vision_config": vision}


def items_of(grids: list[tuple[int, int]]) -> list[Item]:
    """Return pictures of noise with these rows and columns of patches."""
    random = np.random.default_rng(1)
    naflex = NaFlexTower(PATCH, PATCHES, Image.Resampling.BILINEAR)
    pixels = [random.integers(0, 256, (*grid, PATCH, PATCH, 3), np.uint8) for grid in grids]
    return [Item(naflex.ids(each), number, pixels=each) for number, each in enumerate(pixels)]


def measure(backend: OnnxBackend, rounds: int) -> dict[str, float]:
    """Return the least milliseconds that a picture took in each way, over rounds in turns."""
    naflex = NaFlexTower(PATCH, PATCHES, Image.Resampling.BILINEAR)
    own = items_of([naflex.grid(*size) for size in SIZES])
    whole = items_of([(PATCHES // PATCH, PATCH)] * len(SIZES))
    ways = {
        "alone": [[item] for item in own],
        "packed": [own],
        "all of 256": [whole],
        "all of 256, alone": [[item] for item in whole],
    }
    best = dict.fromkeys(ways, np.inf)
    for _ in range(rounds):
        for name, batches in ways.items():
            began_s = time.perf_counter()
            for batch in batches:
                raw_vectors(backend, batch, Pooler(), [OPTIONS] * len(batch))
            best[name] = min(best[name], 1000 * (time.perf_counter() - began_s) / len(SIZES))
    tokens = sum(item.tokens for item in own)
    print(f"{len(SIZES)} pictures of {tokens} patches, of {len(SIZES) * PATCHES} with padding")
    return best


def main() -> None:
    """Write the model, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("layers", 12), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nestvec-naflex-"))
    try:
        config = write_weights(folder, args.layers)
        (folder / "config.json").write_text(json.dumps(config))
        export_naflex_graph(folder, config, PixelScale(), folder / PICTURE_GRAPH)
        options = BackendOptions(intra_op_threads=THREADS)
        backend = OnnxBackend(folder / PICTURE_GRAPH, Layout.PACKED, options)
        for name, took_ms in measure(backend, args.rounds).items():
            print(f"{name}: {took_ms:.1f} ms a picture")
        backend.close()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
