"""Computes what is expected by transformers 4.57, torch and Pillow: `make families` (needs `.venv-peers`, with Pillow).

Texts are written by the model's chat template, and the placeholder of each picture is repeated as the processor does.
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
from tests.model_store.vision_language.models import (  # noqa: E402 - the path comes first
    CHAT_TEMPLATE,
    CONFIG,
    IDS,
    INPUTS,
    PROCESSOR,
    SEED,
    write_tokenizer,
)

PAD = "<|image_pad|>"


def make(out: Path) -> None:
    """Write names and shapes of tensors, hashes of pixels, and vectors in the order of `INPUTS`."""
    model = transformers.Qwen3VLModel(transformers.Qwen3VLConfig(**CONFIG)).eval()
    state = model.state_dict()
    shapes = {name: list(t.shape) for name, t in state.items()}
    weights = random_weights(shapes, SEED)
    model.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
    pixel_class = getattr(transformers, "Qwen2VLImageProcessorPil", None)
    fields = {k: v for k, v in PROCESSOR.items() if k not in ("image_processor_type", "size")}
    # The class on Pillow of 4.57 does not take `size`.
    fields["min_pixels"], fields["max_pixels"] = PROCESSOR["size"].values()
    process = (pixel_class or transformers.Qwen2VLImageProcessor)(**fields)
    raw = {name: process([image_of(name)], do_rescale=False, do_normalize=False) for name in FORMS}
    digests = {name: digest(each) for name, each in raw.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(path)
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    vectors, tokens = [], []
    for instruction, parts in INPUTS.values():
        fed = batch(tokenizer, process, instruction, parts)
        with torch.no_grad():
            last = model(**fed).last_hidden_state[0, -1]
        vectors.append((last / last.norm()).numpy())
        tokens.append(int(fed["input_ids"].shape[1]))
    np.save(out / "qwen3_vl.npy", np.stack(vectors))
    content = {
        "tensors": shapes,
        "pixels": digests,
        "tokens": dict(zip(INPUTS, tokens, strict=True)),
        "transformers": transformers.__version__,
    }
    (out / "qwen3_vl.json").write_text(json.dumps(content, indent=1) + "\n")


def image_of(name: str) -> Any:
    """Return a form's picture as the library loads it."""
    return load_image("data:image/png;base64," + base64.b64encode(FORMS[name]()).decode())


def digest(processed: Any) -> list[Any]:
    """Return the grid of a picture, and the hash of its patches: one frame of each, colours last."""
    patches = np.asarray(processed["pixel_values"])
    size = PROCESSOR["patch_size"]
    values = patches.reshape(-1, 3, 2, size, size)[:, :, 0].transpose(0, 2, 3, 1)
    assert (values == values.astype(np.uint8)).all()
    whole = np.ascontiguousarray(values.astype(np.uint8))
    return [
        np.asarray(processed["image_grid_thw"])[0, 1:].tolist(),
        hashlib.sha256(whole.tobytes()).hexdigest(),
    ]


def batch(tokenizer: Any, process: Any, instruction: str, parts: tuple[str, ...]) -> dict[str, Any]:
    """Return what the model is fed of one input."""
    content = [{"type": "image"} if p[0] == "@" else {"type": "text", "text": p} for p in parts]
    messages = [
        {"role": "system", "content": [{"type": "text", "text": instruction}]},
        {"role": "user", "content": content},
    ]
    text = tokenizer.apply_chat_template(
        messages, chat_template=CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    fed: dict[str, Any] = {}
    images = [image_of(part[1:]) for part in parts if part[0] == "@"]
    if images:
        processed = process(images, return_tensors="pt")
        fed = {name: processed[name] for name in ("pixel_values", "image_grid_thw")}
        for grid in fed["image_grid_thw"]:
            text = text.replace(PAD, "<placeholder>" * int(grid.prod() // 4), 1)
        text = text.replace("<placeholder>", PAD)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    fed |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if images and transformers.__version__.startswith("5"):
        fed["mm_token_type_ids"] = (ids == IDS[PAD]).int()
    return fed


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
