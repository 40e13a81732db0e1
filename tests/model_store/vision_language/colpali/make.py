"""Computes what is expected of ColPali by transformers 5.24, torch and Pillow: `make.py FOLDER`, in a venv with these.

Inputs run alone, in float64, and in batches, in float32. Version 4.57, whose masks are of float32 only, gives the same
to 1e-5, but for a palette with one transparent colour: 5.24 lays it on white, as neither 4.57 nor the authors' code
does. Here such a colour stays.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[3]))

from tests.engine.pictures.forms import FORMS  # noqa: E402 - the path comes first
from tests.export.families.weights import random_weights  # noqa: E402 - the path comes first
from tests.model_store.vision_language.colpali.models import (  # noqa: E402 - the path comes first
    BOS,
    CONFIG,
    EOS,
    INPUTS,
    LAYOUTS,
    PAD,
    PROCESSOR,
    QUERIES,
    SEED,
    UNKNOWN,
    write_tokenizer,
)
from tests.model_store.vision_language.make import image_of  # noqa: E402 - the path comes first

IS_NEW = not transformers.__version__.startswith("4")
# Which names beside those in files of both each version finds.
TAKEN = {False: {"4.57's memory"}, True: {"5.24's memory", "without the whole"}}
TOLERANCE = 1e-5
FORM_NAMES = tuple(f"@{form}" for form in FORMS)


def make(out: Path) -> None:
    """Write names and shapes of tensors, ids, hashes of pixels, scores, and vectors in the order of `INPUTS`."""
    config = transformers.ColPaliConfig(**json.loads(json.dumps(CONFIG)))
    model = transformers.ColPaliForRetrieval(config).eval()
    shapes = {
        stored(name): list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if "lm_head" not in name
    }
    weights = random_weights(shapes, SEED)
    model = loaded(weights, lambda name: name)
    taken = {name for name, renamed in LAYOUTS.items() if loaded(weights, renamed) is not None}
    assert taken == TAKEN[IS_NEW], taken
    processor = processor_of()
    # As batches are made: filled up, and rows of what fills them are zeros.
    batched = {
        name: rows
        for names in (QUERIES, FORM_NAMES)
        for name, rows in zip(names, embedded(model, batch(processor, list(names))), strict=True)
    }
    ids, vectors = {}, []
    model = model.double() if IS_NEW else model
    for name in INPUTS:
        fed = batch(processor, [name])
        ids[name] = fed["input_ids"][0].tolist()
        (alone,) = embedded(model, fed)
        assert name not in batched or np.abs(batched[name] - alone).max() < TOLERANCE, name
        vectors.append(alone.astype(np.float32))
    scores = processor.score_retrieval(
        [torch.tensor(vectors[INPUTS.index(query)]) for query in QUERIES],
        [torch.tensor(vectors[INPUTS.index(form)]) for form in FORM_NAMES],
    )
    raw = {"do_rescale": False, "do_normalize": False}
    pixels = {form: processor.image_processor([opaque(form)], **raw) for form in FORMS}
    np.save(out / "colpali.npy", np.concatenate(vectors))
    content = {
        "tensors": shapes,
        "ids": ids,
        "pixels": {form: digest(each["pixel_values"][0]) for form, each in pixels.items()},
        "scores": scores.tolist(),
        "transformers": transformers.__version__,
    }
    (out / "colpali.json").write_text(json.dumps(content, indent=1) + "\n")


def stored(name: str) -> str:
    """Return a tensor's name in a file, by that in memory."""
    name = name.replace("vlm.model.", "vlm.").replace("vision_tower.vision_model.", "vision_tower.")
    name = name.replace("vlm.language_model.", "vlm.language_model.model.")
    return name.replace("vlm.vision_tower.", "vlm.vision_tower.vision_model.")


def loaded(weights: dict[str, np.ndarray], renamed: Any) -> Any:
    """Return the model of a folder with other names; None where this version does not find all of its tensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        named = {renamed(name): torch.tensor(values) for name, values in weights.items()}
        save_file(named, path / "model.safetensors", metadata={"format": "pt"})
        (path / "config.json").write_text(json.dumps(CONFIG))
        model, told = transformers.ColPaliForRetrieval.from_pretrained(
            path, output_loading_info=True
        )
    return None if set(told["missing_keys"]) - {"vlm.lm_head.weight"} else model.eval()


def processor_of() -> Any:
    """Return the model's processor."""
    fields = {k: v for k, v in PROCESSOR.items() if k != "image_processor_type"}
    name = "SiglipImageProcessorPil" if IS_NEW else "SiglipImageProcessor"
    images = getattr(transformers, name)(**fields)
    tokens = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS, "unk_token": UNKNOWN}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        write_tokenizer(path)
        kind = transformers.PreTrainedTokenizerFast if IS_NEW else transformers.GemmaTokenizerFast
        tokenizer = kind(tokenizer_file=str(path), **tokens)
    return transformers.ColPaliProcessor(images, tokenizer)


def batch(processor: Any, names: list[str]) -> Any:
    """Return what the model is fed of inputs of one kind."""
    if names[0].startswith("@"):
        return processor.process_images([opaque(name[1:]) for name in names])
    if names[0].startswith("#"):  # as the authors' code has it
        fed = processor.tokenizer([BOS + name[1:] for name in names], return_tensors="pt")
        return {**fed, "token_type_ids": torch.zeros_like(fed["input_ids"])}
    return processor.process_queries(names)


def embedded(model: Any, fed: Any) -> list[np.ndarray]:
    """Return the vectors of inputs that run as one batch: those that the mask keeps."""
    with torch.no_grad():
        rows = model(**fed).embeddings.numpy()
    masks = fed["attention_mask"].numpy().astype(bool)
    assert not rows[~masks].any()
    return [row[mask] for row, mask in zip(rows, masks, strict=True)]


def opaque(form: str) -> Any:
    """Return a form's picture without the colour that stands for transparency."""
    image = image_of(form)
    image.info.pop("transparency", None)
    return image


def digest(values: Any) -> str:
    """Return the hash of pixels of whole bytes, (3, S, S), colours last."""
    whole = np.ascontiguousarray(np.asarray(values).transpose(1, 2, 0))
    assert (whole == whole.astype(np.uint8)).all()
    return hashlib.sha256(whole.astype(np.uint8).tobytes()).hexdigest()


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
