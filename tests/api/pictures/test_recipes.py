"""Pictures for recipes over HTTP: of two models of pictures, and of one beside a model of texts."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from nestvec.config.recipe_settings import RecipeSettings

from tests.api.pictures.test_forms import PIXELS, URL
from tests.api.routes.test_several_models import serving, until
from tests.engine.pictures.forms import FORMS
from tests.model_store.two_towers.towers import HERE, TEXTS, write_model
from tests.support.tiny import write_tiny_bert


def data_url(form: str) -> str:
    """Return a form of picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(FORMS[form]()).decode()


async def test_recipes_of_models_of_pictures(tmp_path: Path) -> None:
    """A join of CLIP's vectors is of transformers'; a part that takes texts only is named, with the input."""
    parts: list[dict[str, Any]] = [
        {"model": "clip"},
        {"model": "clip", "weight": 3, "dimensions": 8},
    ]
    recipes = {
        "both": RecipeSettings(combine="concat", parts=parts),
        "mixed": RecipeSettings(combine="concat", parts=[*parts, {"model": "bert"}]),
    }
    models = {"bert": {"model": str(write_tiny_bert(tmp_path / "bert"))}}
    clip = write_model(tmp_path / "clip", "clip")
    bounds = {"max_picture_pixels_per_request": 2 * PIXELS}
    async with serving(
        tmp_path,
        model=str(clip),
        models=models,
        recipes=recipes,
        cache_dir=tmp_path / "c",
        **bounds,
    ) as client:
        listed = await until(client, both="ready", mixed="ready")
        row = list(FORMS).index("small")
        inputs = [TEXTS[2], {"image": data_url("small")}]
        answer = await client.post("/v1/embeddings", json={"input": inputs, "model": "both"})
        vectors = [each["embedding"] for each in answer.json()["data"]]
        for vector, name, index in zip(vectors, ("texts", "pictures"), (2, row), strict=True):
            whole = np.load(HERE / f"clip_{name}.npy")[index]
            cut = whole[:8] / np.linalg.norm(whole[:8])
            expected = np.hstack([whole * np.sqrt(0.25), cut * np.sqrt(0.75)])
            np.testing.assert_allclose(vector, expected, atol=1e-5)
        body = {"left": inputs, "model": "both"}
        cosines = (await client.post("/v1/similarity", json=body)).json()["similarities"]
        np.testing.assert_allclose(cosines, np.array(vectors) @ np.array(vectors).T, atol=1e-5)
        labelled = {"input": inputs, "labels": ["red", "blue"], "model": "both"}
        assert (await client.post("/v1/classify", json=labelled)).status_code == 200
        assert listed["both"]["input_modalities"] == ["text", "image"]
        assert listed["mixed"]["input_modalities"] == ["text"]
        refused = await client.post("/v1/embeddings", json={"input": inputs, "model": "mixed"})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (
            400,
            "input[1]",
            "unsupported",
        )
        assert "part 'bert' takes texts only" in error["message"]
        # Each part decodes them: two pictures of a recipe of two are four.
        many = {"input": [{"image": URL}] * 2, "model": "both"}
        refused = await client.post("/v1/embeddings", json=many)
        assert f"{4 * PIXELS} pixels" in refused.json()["error"]["message"]
        single = await client.post("/v1/embeddings", json={**many, "model": "clip"})
        assert single.status_code == 200
