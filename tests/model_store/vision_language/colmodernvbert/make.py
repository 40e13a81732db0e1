"""Computes what is expected by transformers 5.24, torch and Pillow (needs a venv with them)."""

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

from tests.engine.pictures.forms import FORMS  # noqa: E402 - the path comes first
from tests.export.families.weights import random_weights  # noqa: E402 - the path comes first
from tests.model_store.vision_language.colmodernvbert.models import (  # noqa: E402 - the path comes first
    CONFIG,
    DOCUMENTS,
    IMAGE_PROCESSOR,
    PROCESSOR,
    QUERIES,
    SEED,
    write_tokenizer,
)


def make(out: Path) -> None:
    """Write names and shapes of tensors, hashes of pixels, tokens and their vectors, and scores."""
    model = transformers.ColModernVBertForRetrieval(
        transformers.ColModernVBertConfig(**CONFIG)
    ).eval()
    shapes = {name: list(t.shape) for name, t in model.state_dict().items()}
    weights = random_weights(shapes, SEED)
    model.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
    process = processor_of()
    pages = process.process_images(images=[image_of(name) for name in DOCUMENTS])
    asked = process.process_queries(list(QUERIES))
    with torch.no_grad():
        documents, queries = (rows_of(model, fed) for fed in (pages, asked))
        lone = rows_of(model, process.process_images(images=[image_of("png")]))[0]
        assert (lone - documents[DOCUMENTS.index("png")]).abs().max() < 1e-5
    scores = process.score_retrieval(queries, documents)
    np.save(out / "documents.npy", torch.cat(documents).numpy().astype(np.float32))
    np.save(out / "queries.npy", torch.cat(queries).numpy().astype(np.float32))
    np.save(out / "scores.npy", scores.numpy())
    image_id = CONFIG["vlm_config"]["image_token_id"]
    content = {
        "tensors": shapes,
        "pixels": {name: digest(process, name) for name in FORMS},
        "whole": {name: digest(process, name, do_image_splitting=False) for name in ("wide",)},
        "ids": {name: ids_of(pages, place, image_id) for place, name in enumerate(DOCUMENTS)},
        "query_ids": [ids_of(asked, place, None) for place in range(len(QUERIES))],
        "transformers": transformers.__version__,
    }
    (out / "colmodernvbert.json").write_text(json.dumps(content) + "\n")


def processor_of() -> Any:
    """Return the processor of the folder, on Pillow."""
    fields = {name: v for name, v in IMAGE_PROCESSOR.items() if name != "image_processor_type"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(path)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(path), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
        )
    return transformers.ColModernVBertProcessor(
        transformers.Idefics3ImageProcessorPil(**fields),
        tokenizer,
        image_seq_len=PROCESSOR["image_seq_len"],
    )


def image_of(name: str) -> Any:
    """Return a form's picture as the library loads it."""
    return load_image("data:image/png;base64," + base64.b64encode(FORMS[name]()).decode())


def rows_of(model: Any, fed: Any) -> list[Any]:
    """Return the vectors of each input's tokens, without those of padding."""
    vectors = model(**{k: v for k, v in fed.items() if k != "token_type_ids"}).embeddings
    return [each[mask.bool()] for each, mask in zip(vectors, fed["attention_mask"], strict=True)]


def ids_of(fed: Any, place: int, image_id: int | None) -> list[int]:
    """Return the ids of an input, -1 for those of a picture's tokens."""
    ids = fed["input_ids"][place][fed["attention_mask"][place].bool()].tolist()
    return [-1 if each == image_id else each for each in ids]


def digest(process: Any, name: str, **options: Any) -> list[Any]:
    """Return the number of a picture's tiles, and the hash of their pixels, colours last."""
    done = process.image_processor(
        [image_of(name)], do_rescale=False, do_normalize=False, return_tensors="np", **options
    )
    tiles = done["pixel_values"][0].transpose(0, 2, 3, 1)
    assert (tiles == tiles.astype(np.uint8)).all()
    assert done["pixel_attention_mask"].all()
    whole = np.ascontiguousarray(tiles.astype(np.uint8))
    return [len(tiles), hashlib.sha256(whole.tobytes()).hexdigest()]


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
