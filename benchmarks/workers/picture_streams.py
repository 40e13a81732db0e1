"""Texts and pictures at once against each alone, by a model of two towers of real sizes with random weights.

    python -m benchmarks.workers.picture_streams [--layers 12] [--texts 400] [--pictures 60] [--rounds 3]

It prints how long a stream of texts takes, a stream of pictures, and both at once; and the share of the sum of the
first two that the third needs no more than: 1 where neither holds up the other.
"""

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from nestvec.assembly.service import build_local_service
from nestvec.config.settings import Settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

PATCH, SIDE, PROJECTION = 32, 224, 512
TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
WORDS = [f"word{number}" for number in range(1000)]
CONCURRENT = 32


def tower(prefix: str, sizes: dict[str, int], layers: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a tower's layers."""
    size, inner = sizes["hidden_size"], sizes["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(layers):
        name = f"{prefix}encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{name}.self_attn.{part}.weight"] = (size, size)
            shapes[f"{name}.self_attn.{part}.bias"] = (size,)
        for part, shape in (("fc1", (inner, size)), ("fc2", (size, inner))):
            shapes[f"{name}.mlp.{part}.weight"] = shape
            shapes[f"{name}.mlp.{part}.bias"] = shape[:1]
        for part in ("layer_norm1", "layer_norm2"):
            shapes[f"{name}.{part}.weight"] = shapes[f"{name}.{part}.bias"] = (size,)
    return shapes


def write_model(folder: Path, layers: int) -> None:
    """Write CLIP ViT-B/32 with random weights and so many layers in each tower."""
    text, vision = TEXT["hidden_size"], VISION["hidden_size"]
    shapes = {
        **tower("text_model.", TEXT, layers),
        **tower("vision_model.", VISION, layers),
        "text_model.embeddings.token_embedding.weight": (len(WORDS) + 3, text),
        "text_model.embeddings.position_embedding.weight": (77, text),
        "text_projection.weight": (PROJECTION, text),
        "visual_projection.weight": (PROJECTION, vision),
        "vision_model.embeddings.class_embedding": (vision,),
        "vision_model.embeddings.patch_embedding.weight": (vision, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2 + 1, vision),
    }
    for norm, size in (
        ("text_model.final_layer_norm", text),
        ("vision_model.pre_layrnorm", vision),
        ("vision_model.post_layernorm", vision),
    ):
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (size,)
    random = np.random.default_rng(0)
    weights = {
        name: 0.02 * random.standard_normal(shape, np.float32) for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    config: dict[str, Any] = {
        "model_type": "clip",
        "text_config": {**TEXT, "num_hidden_layers": layers, "vocab_size": len(WORDS) + 3},
        "vision_config": {**VISION, "num_hidden_layers": layers},
    }
    (folder / "config.json").write_text(json.dumps(config))
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    vocabulary = {word: n for n, word in enumerate(["<start>", "<end>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def pictures(count: int) -> list[Picture]:
    """Make photographs of noise and blends, 640 by 480 pixels, as JPEG."""
    random = np.random.default_rng(1)
    made = []
    for _ in range(count):
        coarse = random.integers(0, 255, (24, 32, 3), np.uint8)
        image = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        file = BytesIO()
        image.save(file, "JPEG", quality=88)
        made.append(Picture(file.getvalue()))
    return made


async def seconds(service: EmbeddingService, streams: Sequence[Sequence[str | Picture]]) -> float:
    """Return how long streams of single inputs take, each with so many at a time."""
    began_s = time.perf_counter()

    async def stream(inputs: Sequence[str | Picture]) -> None:
        rest = iter(inputs)

        async def client() -> None:
            for value in rest:
                await service.embed(EmbedCall([value]))

        await asyncio.gather(*(client() for _ in range(CONCURRENT)))

    await asyncio.gather(*(stream(inputs) for inputs in streams))
    return time.perf_counter() - began_s


async def measure(service: EmbeddingService, args: argparse.Namespace) -> None:
    """Measure all streams, in turns, and print the best of each."""
    random = np.random.default_rng(2)
    texts = [" ".join(random.choice(WORDS, 20)) for _ in range(args.texts)]
    images = pictures(args.pictures)
    streams: dict[str, Sequence[Sequence[str | Picture]]] = {
        "texts": [texts],
        "pictures": [images],
        "both": [texts, images],
    }
    await seconds(service, [texts[:40], images[:8]])
    best: dict[str, float] = {}
    for _ in range(args.rounds):
        for name, inputs in streams.items():
            best[name] = min(best.get(name, np.inf), await seconds(service, inputs))
    for name, took_s in best.items():
        print(f"{name}: {took_s:.2f} s")
    print(f"share: {(best['texts'] + best['pictures']) / best['both']:.3f}")


def main() -> None:
    """Write the model, serve it, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("layers", 12), ("texts", 400), ("pictures", 60), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nestvec-pictures-"))
    try:
        model = folder / "clip-random"
        model.mkdir()
        write_model(model, args.layers)
        settings = Settings(
            model=str(model),
            cache_dir=folder / "cache",
            offline=True,
            vector_cache_bytes=0,
            max_queue_wait_s=3600,
        )
        service = build_local_service(settings, NullObserver())
        try:
            asyncio.run(measure(service, args))
        finally:
            service.close()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
