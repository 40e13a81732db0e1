"""Computes what is expected by transformers, torch and Pillow: `make families` (needs `.venv-peers`, with Pillow).

It is run by version 4.57 and, in another venv, by version 5, and writes `expected-4` and `expected-5`: a JSON file with
shapes of tensors, token ids, and shapes and hashes of patches, and arrays of vectors and scaled patches. Vectors of
pictures are computed in float64, of all pictures in one batch, padded and masked as the library does it.
"""

import base64
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.image_utils import load_image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[3]))

from tests.export.families.weights import random_weights  # noqa: E402 - the path comes first
from tests.model_store.two_towers.naflex.models import (  # noqa: E402 - the path comes first
    CONFIG,
    PICTURES,
    PROCESSOR,
    SEED,
    TEXTS,
    write_texts,
)

MAJOR = int(transformers.__version__.partition(".")[0])


def processor() -> Any:
    """Return the image processor on Pillow."""
    name = "Siglip2ImageProcessor" if MAJOR == 4 else "Siglip2ImageProcessorPil"
    fields = {k: v for k, v in PROCESSOR.items() if k != "image_processor_type"}
    return getattr(transformers, name)(**fields)


def model_of(weights_of: dict[str, list[int]]) -> Any:
    """Return the model with the weights of the seed, in float64; notes the shapes of its tensors."""
    model = transformers.Siglip2Model(transformers.Siglip2Config(**CONFIG)).double().eval()
    state = model.state_dict()
    weights_of |= {
        name: list(t.shape) for name, t in state.items() if t.dim() and "position_ids" not in name
    }
    weights = random_weights(weights_of, SEED)
    model.load_state_dict({**state, **{n: torch.tensor(w).double() for n, w in weights.items()}})
    return model


def token_ids() -> Any:
    """Return the ids of the texts; version 4 does not make them small, as it should."""
    with tempfile.TemporaryDirectory() as scratch:
        config = {"transformers_version": transformers.__version__}
        folder = write_texts(Path(scratch), **config)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        texts = [text.lower() if MAJOR == 4 else text for text in TEXTS]
        batch = tokenizer(
            texts, padding="max_length", max_length=64, truncation=True, return_tensors="pt"
        )
    return batch["input_ids"]


def unit(vectors: Any) -> Any:
    """Scale vectors to unit length."""
    vectors = getattr(vectors, "pooler_output", vectors)
    return (vectors / vectors.norm(dim=-1, keepdim=True)).float().numpy()


def main() -> None:
    """Write both files of this version."""
    shapes: dict[str, list[int]] = {}
    model = model_of(shapes)
    images = [
        load_image("data:image/png;base64," + base64.b64encode(make()).decode())
        for make in PICTURES.values()
    ]
    # Of three pixels' height the library takes the rows for colours, unless it is told.
    options = {"input_data_format": "channels_last"}
    process = processor()
    pixels = {}
    for name, image in zip(PICTURES, images, strict=True):
        raw = process(image, do_rescale=False, do_normalize=False, **options)
        rows, columns = raw["spatial_shapes"][0]
        patches = np.asarray(raw["pixel_values"][0])[: rows * columns]
        assert patches.dtype == np.uint8
        digest = hashlib.sha256(np.ascontiguousarray(patches).tobytes()).hexdigest()
        pixels[name] = [int(rows), int(columns), digest]
    batch = process(images, return_tensors="pt", **options)
    ids = token_ids()
    with torch.no_grad():
        pictures = model.get_image_features(
            pixel_values=batch["pixel_values"].double(),
            pixel_attention_mask=batch["pixel_attention_mask"],
            spatial_shapes=batch["spatial_shapes"],
        )
        texts = model.get_text_features(input_ids=ids)
    wide = list(PICTURES).index("wide")
    count = int(batch["pixel_attention_mask"][wide].sum())
    np.savez_compressed(
        HERE / f"expected-{MAJOR}.npz",
        pictures=unit(pictures),
        texts=unit(texts),
        scaled=batch["pixel_values"][wide, :count].float().numpy(),
    )
    content = {
        "tensors": shapes,
        "ids": ids.tolist(),
        "pixels": pixels,
        "transformers": transformers.__version__,
    }
    (HERE / f"expected-{MAJOR}.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
