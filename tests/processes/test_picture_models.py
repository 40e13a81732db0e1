"""Models of pictures whose code is their authors' own, over HTTP and the socket to an engine process."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.engine.text.tokenizer import Tokenizer
from numpy.typing import NDArray
from PIL import Image

from tests.export.families.harness import load
from tests.model_store.two_towers import jina_vision
from tests.model_store.two_towers.nomic import nomic_vision
from tests.model_store.two_towers.pairs import write_texts
from tests.support.server import running_server

pytestmark = [pytest.mark.process, pytest.mark.load]
TOLERANCE = 1e-5
TEXT = "red and green"


def sent(pixels: NDArray[np.uint8]) -> dict[str, str]:
    """Return a picture of pixels, (S, S, 3), as a request has it: a file that loses nothing."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"image": base64.b64encode(file.getvalue()).decode()}


def test_texts_and_pictures_of_both_kinds(tmp_path: Path) -> None:
    """Two checkpoints as one model, and jina-clip, give the references' vectors, texts and pictures in one request."""
    jina = jina_vision.CONFIGS["v2"]
    folder = jina_vision.write_jina(tmp_path / "jina", "v2")
    nomic_pixels, jina_pixels = nomic_vision.some_pixels(), jina_vision.some_pixels()
    with running_server(
        tmp_path,
        http_processes=1,
        model=write_texts(tmp_path / "nomic"),
        picture_model=nomic_vision.write_vision(tmp_path / "eyes"),
        models=json.dumps({"jina": {"model": str(folder)}}),
        cache_dir=tmp_path / "cache",
    ) as server:

        def embed(model: str, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
            body: dict[str, Any] = {
                "model": model,
                "input": [sent(pixels[0]), TEXT, sent(pixels[1])],
            }
            answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
            assert answer.status_code == httpx.codes.OK, answer.text
            return np.array([row["embedding"] for row in answer.json()["data"]])

        by_nomic, by_jina = embed("nomic", nomic_pixels), embed("jina", jina_pixels)
        listed = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert all(model["input_modalities"] == ["text", "image"] for model in listed)
    expected = nomic_vision.reference(nomic_vision.PUBLISHED, nomic_vision.scaled(nomic_pixels[:2]))
    assert np.abs(by_nomic[[0, 2]] - expected).max() < TOLERANCE
    expected = jina_vision.picture_reference(jina, jina_vision.scaled(jina_pixels[:2]))
    assert np.abs(by_jina[[0, 2]] - expected).max() < TOLERANCE
    ids = Tokenizer(folder / "tokenizer.json", max_tokens=40, vocabulary_size=128)
    token_ids = ids.library.encode(TEXT).ids
    text = jina_vision.text_reference(jina, [token_ids])
    assert np.abs(by_jina[1] - text[0]).max() < TOLERANCE
    assert by_nomic.shape[1] == load("nomic_bert").config["hidden_size"]
