"""Computes what is expected by transformers 4.57, torch and Pillow: `make families` (needs `.venv-peers`, with Pillow).

It writes for each kind a JSON file with shapes of tensors and the hashes of pixels, and arrays of vectors and scaled
pixels. Vectors of pictures are computed in float64, of pixels that the library's image processor on Pillow gave.
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
sys.path.insert(0, str(HERE.parents[2]))

from tests.engine.pictures.forms import FORMS  # noqa: E402 - the path comes first
from tests.export.families.weights import random_weights  # noqa: E402 - the path comes first
from tests.model_store.two_towers.towers import (  # noqa: E402 - the path comes first
    CONFIGS,
    PROCESSORS,
    SEED,
    TEXTS,
    write_tokenizer,
)


def processor(kind: str) -> Any:
    """Return the kind's image processor on Pillow."""
    classes = {
        "clip": transformers.CLIPImageProcessor,
        "siglip": transformers.SiglipImageProcessor,
    }
    fields = {k: v for k, v in PROCESSORS[kind].items() if k != "image_processor_type"}
    return classes[kind](**fields)


def make(kind: str) -> None:
    """Write the files of a kind."""
    classes = {
        "clip": (transformers.CLIPConfig, transformers.CLIPModel),
        "siglip": (transformers.SiglipConfig, transformers.SiglipModel),
    }
    config_class, model_class = classes[kind]
    model = model_class(config_class(**CONFIGS[kind])).double().eval()
    state = model.state_dict()
    shapes = {
        name: list(t.shape) for name, t in state.items() if t.dim() and "position_ids" not in name
    }
    weights = random_weights(shapes, SEED)
    model.load_state_dict({**state, **{n: torch.tensor(w).double() for n, w in weights.items()}})
    images = [
        load_image("data:image/png;base64," + base64.b64encode(form()).decode())
        for form in FORMS.values()
    ]
    process = processor(kind)
    raw = [process(i, do_rescale=False, do_normalize=False)["pixel_values"][0] for i in images]
    digests = {
        name: hashlib.sha256(np.ascontiguousarray(np.moveaxis(p, 0, -1)).tobytes()).hexdigest()
        for name, p in zip(FORMS, raw, strict=True)
    }
    assert all(p.dtype == np.uint8 for p in raw)
    scaled = np.stack(process(images)["pixel_values"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(path, kind)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(path), pad_token="<pad>", model_max_length=16
        )
        padding = "max_length" if kind == "siglip" else True
        batch = tokenizer(list(TEXTS), padding=padding, return_tensors="pt")
    ids = {"input_ids": batch["input_ids"]}
    if kind == "clip":
        ids["attention_mask"] = batch["attention_mask"]
    with torch.no_grad():
        pictures = model.get_image_features(pixel_values=torch.tensor(scaled).double())
        # In float32: the library's causal mask has no float64.
        texts = model.float().get_text_features(**ids)
        both = model(pixel_values=torch.tensor(scaled).float(), **ids)
    np.save(HERE / f"{kind}_logits.npy", both.logits_per_image.numpy())
    np.save(HERE / f"{kind}_pictures.npy", unit(pictures))
    np.save(HERE / f"{kind}_texts.npy", unit(texts))
    np.save(HERE / f"{kind}_scaled.npy", scaled[1].astype(np.float32))
    content = {"tensors": shapes, "pixels": digests, "transformers": transformers.__version__}
    (HERE / f"{kind}.json").write_text(json.dumps(content, indent=1) + "\n")


def unit(vectors: torch.Tensor) -> Any:
    """Scale vectors to unit length."""
    return (vectors / vectors.norm(dim=-1, keepdim=True)).float().numpy()


if __name__ == "__main__":
    for each in CONFIGS:
        make(each)
