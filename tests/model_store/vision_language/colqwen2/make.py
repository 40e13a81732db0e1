"""Computes what is expected of ColQwen2 by transformers 4.57, torch and Pillow: `make families` (`.venv-peers`).

Version 5 of transformers gives pictures plain positions in place of those in rows and columns, which models were
trained with, and ends queries with a line; this does neither.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[3]))

from tests.engine.pictures.forms import FORMS  # noqa: E402 - the path comes first
from tests.export.families.weights import random_weights  # noqa: E402 - the path comes first
from tests.model_store.vision_language.colqwen2.models import (  # noqa: E402 - the path comes first
    CONFIG,
    INPUTS,
    QUERIES,
    SEED,
    write_tokenizer,
)
from tests.model_store.vision_language.make import image_of  # noqa: E402 - the path comes first
from tests.model_store.vision_language.models import END, PROCESSOR  # noqa: E402 - the path comes first


def make(out: Path) -> None:
    """Write names and shapes of tensors, tokens of each input, scores, and vectors in the order of `INPUTS`."""
    config = transformers.ColQwen2Config(**json.loads(json.dumps(CONFIG)))
    model = transformers.ColQwen2ForRetrieval(config).eval()
    shapes = {name: list(t.shape) for name, t in model.state_dict().items()}
    weights = random_weights(shapes, SEED)
    model.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
    processor = processor_of()
    vectors = []
    for name in INPUTS:
        (alone,) = embedded(model, processor, [name])
        vectors.append(alone)
    # As batches are made: filled up, and rows of what fills them are zeros.
    for batch in (QUERIES, [f"@{form}" for form in FORMS]):
        for name, rows in zip(batch, embedded(model, processor, list(batch)), strict=True):
            assert np.abs(rows - vectors[INPUTS.index(name)]).max() < 1e-5, name
    scores = processor.score_retrieval(
        [torch.tensor(vectors[INPUTS.index(query)]) for query in QUERIES],
        [torch.tensor(vectors[INPUTS.index(f"@{form}")]) for form in FORMS],
    )
    np.save(out / "colqwen2.npy", np.concatenate(vectors))
    content = {
        "tensors": shapes,
        "tokens": {name: len(rows) for name, rows in zip(INPUTS, vectors, strict=True)},
        "scores": scores.tolist(),
        "transformers": transformers.__version__,
    }
    (out / "colqwen2.json").write_text(json.dumps(content, indent=1) + "\n")


def processor_of() -> Any:
    """Return the model's processor."""
    fields = {k: v for k, v in PROCESSOR.items() if k not in ("image_processor_type", "size")}
    fields["min_pixels"], fields["max_pixels"] = PROCESSOR["size"].values()
    images = transformers.Qwen2VLImageProcessor(**fields)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(path)
        tokenizer = transformers.Qwen2TokenizerFast(tokenizer_file=str(path), pad_token=END)
    return transformers.ColQwen2Processor(images, tokenizer)


def embedded(model: Any, processor: Any, names: list[str]) -> list[np.ndarray]:
    """Return the vectors of inputs of one kind, which run as one batch: those that the mask keeps."""
    if names[0].startswith("@"):
        fed = processor.process_images([image_of(name[1:]) for name in names])
    else:
        fed = processor.process_queries(names)
    with torch.no_grad():
        rows = model(**fed).embeddings.numpy()
    masks = fed["attention_mask"].numpy().astype(bool)
    assert not rows[~masks].any()
    return [row[mask] for row, mask in zip(rows, masks, strict=True)]


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
