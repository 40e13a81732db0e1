"""`GET /v1/cards`: the models that have a card."""

from pathlib import Path

from nestvec.model_store.sources.card import card_files

from tests.api.applications import Api, MakeApi


async def test_every_card_is_listed_once(api: Api) -> None:
    """Each card of the repository is there, with what it says; the first folder's counts."""
    answer = await api.client.get("/v1/cards")
    rows = {row["id"]: row for row in answer.json()["data"]}
    assert set(rows) == {path.stem for path in card_files((Path("models"),))}
    assert list(rows) == sorted(rows, key=str.casefold)
    default = rows["all-MiniLM-L6-v2"]
    assert (default["dimensions"], default["license"]) == (384, "Apache-2.0")
    static = rows["static"]
    assert (static["dimensions"], static["trained_dimensions"]) == (256, [128, 64])


async def test_it_asks_for_a_key(make_api: MakeApi) -> None:
    """Cards of one's own may tell what is nobody's business."""
    client = make_api(api_keys=["secret"]).client
    assert (await client.get("/v1/cards")).status_code == 401
