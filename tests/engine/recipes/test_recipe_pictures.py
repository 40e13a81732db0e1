"""Pictures as inputs of recipes: each part makes its own of them; where one takes none, it is named."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.pictures.decoding import PictureBounds
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.pictures.preprocessing import PictureTower
from nestvec.engine.recipes.conditions import parse_condition
from nestvec.engine.recipes.recipe import Combination, Recipe, RecipePart
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall
from nestvec.errors import InputError, RequestTooLargeError, UnsupportedError

from tests.engine.pictures.forms import FORMS
from tests.support.recipes import ServedRecipes, concat, serve_recipes

TOWERS = {
    "one": PictureTower(size=16, tokens=5, is_square=True, resized_side=16, resample=2),
    "two": PictureTower(size=8, tokens=3, is_square=True, resized_side=8, resample=3),
}
BOTH = concat(RecipePart("one", 3.0), RecipePart("two", 1.0))
VIEWS = Recipe(
    "views",
    Combination.VIEWS,
    (RecipePart("one", view="large"), RecipePart("two", view="small", dimensions=2)),
)
ROUTE = Recipe(
    "route",
    Combination.ROUTE,
    (
        RecipePart("two", condition=parse_condition("tokens < 100")),
        RecipePart("two", condition=parse_condition("script != 'latin'")),
        RecipePart("one", condition=parse_condition("input_type = 'query'"), dimensions=4),
        RecipePart("two"),
    ),
    allows_spaces=True,
)
PNG, JPEG = (Picture(FORMS[name]()) for name in ("png", "jpeg"))
Serve = Callable[..., ServedRecipes]


@pytest.fixture
def serve(tiny_folder: Path) -> Iterator[Serve]:
    """Make services of two models, and close them."""
    made: list[ServedRecipes] = []

    def serve_one(*recipes: Recipe, **options: Any) -> ServedRecipes:
        options.setdefault("towers", TOWERS)
        made.append(serve_recipes(tiny_folder / "tokenizer.json", *recipes, **options))
        return made[-1]

    yield serve_one
    for each in made:
        each.close()


def embed(served: ServedRecipes, model: str, *inputs: Any, **fields: Any) -> EmbedResult:
    """Embed inputs."""
    return asyncio.run(served.service.embed(EmbedCall(inputs, model=model, **fields)))


def test_each_part_reads_the_picture(serve: Serve) -> None:
    """A join is of what the parts give for it, in its own size; tokens of all parts count."""
    served = serve(BOTH, VIEWS)
    inputs = ("alpha", PNG, "beta gamma", JPEG)
    parts = [embed(served, name, *inputs, normalize=True) for name in ("one", "two")]
    joined = embed(served, "both", *inputs)
    shares = [np.sqrt(0.75), np.sqrt(0.25)]
    expected = np.hstack([part.vectors * share for part, share in zip(parts, shares, strict=True)])
    np.testing.assert_allclose(joined.vectors, expected, atol=1e-5)
    assert joined.input_tokens[1::2] == (8, 8)
    views = embed(served, "views", *inputs, takes_views=True)
    assert [each.vectors.shape for each in views.views.values()] == [(4, 8), (4, 2)]


def test_rules_of_texts_take_no_picture(serve: Serve) -> None:
    """What asks for tokens or scripts does not hold for one; what the request says of its inputs does."""
    served = serve(ROUTE)
    for fields, part, number in (({}, "two", 3), ({"prompt_role": "query"}, "one", 2)):
        result = embed(served, "route", PNG, **fields)
        alone = embed(served, part, PNG, dimensions=4)
        np.testing.assert_allclose(result.vectors, alone.vectors, atol=1e-5)
        assert f"{number};model=" in result.route
    mixed = embed(served, "route", "alpha", PNG)
    assert "0;model=" in mixed.route


@pytest.mark.parametrize("recipe", [BOTH, VIEWS, ROUTE], ids=lambda each: each.name)
def test_the_part_of_texts_is_named(serve: Serve, recipe: Recipe) -> None:
    """A recipe takes pictures where all of its parts do, and says which one does not, and for which input."""
    served = serve(recipe, towers={"one": TOWERS["one"]})
    with pytest.raises(UnsupportedError, match=r"part '(two|small)' takes texts only") as caught:
        embed(served, recipe.name, "alpha", PNG, takes_views=True)
    assert (caught.value.param, caught.value.input_index) == ("input", 1)
    spec = served.slots[recipe.name].spec
    assert spec is not None
    assert spec.pictures is None
    assert embed(served, recipe.name, "alpha", takes_views=True).input_tokens


def test_a_picture_counts_for_each_part(serve: Serve) -> None:
    """As it is decoded by each; and tokens are added up before anything is queued."""
    limits = ServiceLimits(pictures=PictureBounds(max_pictures=3))
    served = serve(BOTH, limits=limits)
    with pytest.raises(RequestTooLargeError, match="at most 3 pictures, got 4"):
        embed(served, "both", PNG, JPEG)
    assert embed(served, "both", PNG).vectors.shape == (1, 12)
    served = serve(BOTH, limits=ServiceLimits(max_tokens=15))
    with pytest.raises(RequestTooLargeError):
        embed(served, "both", PNG, JPEG)
    assert not served.one.batches
    assert not served.two.batches


def test_errors_name_part_and_place(serve: Serve) -> None:
    """A broken picture is the caller's input, whichever part saw it first."""
    served = serve(BOTH)
    with pytest.raises(InputError, match=r"part '(one|two)'") as caught:
        embed(served, "both", "alpha", Picture(PNG.data[:60]))
    assert caught.value.input_index == 1
