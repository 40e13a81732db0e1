"""ColPali against transformers: from the bytes of files, and texts, to vectors that are compared one by one."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import Truncation
from nestvec.errors import InputError, InputTooLongError
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.vision_language.colpali import read_colpali_pictures

from tests.engine.pictures.forms import FORMS
from tests.model_store.vision_language.colpali.inputs import IDS, MADE, VECTORS, input_of
from tests.model_store.vision_language.colpali.models import (
    DOCUMENT,
    INPUTS,
    QUERIES,
)
from tests.model_store.vision_language.in_process import Embed

TOLERANCE = 1e-5
PATCHES = 16
ASKED = tuple(name for name in INPUTS if not name.startswith("#"))
WIDE = "@wide"


def test_pixels_and_ids_equal_those_of_transformers(colpali_folder: Path) -> None:
    """Bytes after resizing, and what stands behind a picture, are those of the processor; so are ids of queries."""
    folder = read_model_folder(colpali_folder / "model")
    settings = read_colpali_pictures(folder.path, folder.config)
    assert settings is not None
    tower = settings.tower
    for form, digest in MADE["pixels"].items():
        pixels = tower.square.pixels(decode_picture(FORMS[form](), PictureBounds()))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == digest, form
        ids = tower.cut(pixels).ids
        assert (ids[:PATCHES] < 0).all()
        assert ids[PATCHES:].tolist() == IDS[f"@{form}"][PATCHES:]
    late = folder.head.late_interaction
    assert late is not None
    tokenizer = folder.open_tokenizer()
    asked = TokenizeOptions(Truncation.ERROR, prompt=folder.head.prompts["query"])
    options = late.limit(asked, is_query=True, model_max_tokens=256)
    for query, encoded in zip(QUERIES, tokenizer.encode_texts(QUERIES, options), strict=True):
        assert late.mark(encoded, is_query=True).ids.tolist() == IDS[query], query


def test_vectors_equal_those_of_transformers(patches_of: Embed) -> None:
    """Queries and pictures, all in one call: vectors and tokens are those of both versions."""
    result = patches_of(*map(input_of, ASKED))
    assert list(result.rows) == list(result.input_tokens) == [len(IDS[name]) for name in ASKED]
    for name, rows in zip(ASKED, result.by_input(result.vectors), strict=True):
        assert np.abs(rows - VECTORS[name]).max() < TOLERANCE, name


@pytest.mark.parametrize("name", [*QUERIES[:2], WIDE, "@exif-6"])
def test_an_input_alone_equals_it_among_others(patches_of: Embed, name: str) -> None:
    """What an input is batched with changes nothing of its vectors."""
    assert np.abs(patches_of(input_of(name)).vectors - VECTORS[name]).max() < TOLERANCE


def test_documents_of_text_have_no_prompt(patches_of: Embed) -> None:
    """As the authors' code reads them: behind the first token, with neither suffix nor line."""
    result = patches_of(DOCUMENT, prompt_role="document")
    assert np.abs(result.vectors - VECTORS[f"#{DOCUMENT}"]).max() < TOLERANCE


def test_placeholders_in_texts_are_no_pictures(patches_of: Embed) -> None:
    """Whoever spells a picture's tokens gets vectors of a text, and moves no picture of the same call."""
    spelt = "<image>" * PATCHES
    both = patches_of(spelt, input_of(WIDE))
    text, picture = both.by_input(both.vectors)
    assert len(text) == len(IDS[""]) + PATCHES
    assert np.abs(picture - VECTORS[WIDE]).max() < TOLERANCE
    assert np.abs(text - patches_of(spelt).vectors).max() < TOLERANCE


def test_texts_are_cut_and_what_follows_them_stays(patches_of: Embed) -> None:
    """A limit on tokens cuts a query's text; padding and the line's end stay, and pictures are never cut."""
    whole = len(IDS["a red apple"])
    cut = patches_of("a red apple and more of it", truncate=Truncation.END, max_tokens=whole)
    assert (cut.rows, cut.is_truncated) == ((whole,), (True,))
    assert np.abs(cut.vectors - VECTORS["a red apple"]).max() < TOLERANCE
    for truncate in (Truncation.ERROR, Truncation.END, Truncation.START):
        with pytest.raises(InputTooLongError) as caught:
            patches_of("a", input_of(WIDE), truncate=truncate, max_tokens=30)
        assert caught.value.input_index == 1


def test_an_input_is_a_text_or_one_picture(patches_of: Embed) -> None:
    """Both at once, two pictures, and files that are none, are refused where they stand."""
    picture = Picture(FORMS["wide"]())
    for parts in ((picture, "a"), (picture, picture)):
        with pytest.raises(InputError, match="a text or one picture") as caught:
            patches_of("a", MixedInput(parts))
        assert caught.value.input_index == 1
    with pytest.raises(InputError) as caught:
        patches_of("a", Picture(FORMS["png"]()[:90]))
    assert caught.value.input_index == 1
