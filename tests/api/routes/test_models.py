"""`GET /v1/models`: which names are listed, and in which order."""

import dataclasses

from nestvec.engine.types import OutputKind

from tests.api.applications import MakeApi
from tests.support.served import SPEC, ServedOptions


async def test_an_id_with_embed_is_listed_behind_the_models(make_api: MakeApi) -> None:
    """Clients that filter by "embed" find OpenAI's names; those that take the first id get the model's own."""
    aliases = ("text-embedding-ada-002", "text-embedding-3-small", "text-embedding-3-large", "x")
    api = make_api(ServedOptions(aliases=aliases))
    rows = (await api.client.get("/v1/models")).json()["data"]
    assert [row["id"] for row in rows] == [
        SPEC.name,
        "text-embedding-3-small",
        "text-embedding-3-large",
    ]
    assert {row["root"] for row in rows} == {SPEC.name}
    for row in rows:
        answer = await api.embed({"input": "alpha", "model": row["id"]})
        assert answer.status_code == 200
    tags = (await api.client.get("/api/tags")).json()["models"]
    assert [row["name"] for row in tags] == [f"{SPEC.name}:latest"]


async def test_only_names_that_are_answered_to_are_listed(make_api: MakeApi) -> None:
    """Without the aliases, and for a model that embeds nothing, no name of OpenAI's is listed."""
    ranks = dataclasses.replace(SPEC, kinds=(OutputKind.LABELS,), labels=("relevance",))
    for options in (ServedOptions(aliases=()), ServedOptions(spec=ranks)):
        rows = (await make_api(options).client.get("/v1/models")).json()["data"]
        assert [row["id"] for row in rows] == [SPEC.name]


async def test_what_a_card_says_of_a_model_is_shown(make_api: MakeApi) -> None:
    """Licence, languages and size, which a folder's own files do not say: null where nothing is known."""
    told = dataclasses.replace(SPEC, languages=("en", "de"), language_count=2, parameters=22713216)
    counted = dataclasses.replace(SPEC, language_count=100)
    seen = []
    for spec in (told, counted, SPEC):
        api = make_api(ServedOptions(spec=spec))
        row = (await api.client.get(f"/v1/models/{SPEC.name}")).json()
        seen.append([row[key] for key in ("license", "languages", "language_count", "parameters")])
        shown = (await api.client.post("/api/show", json={"model": SPEC.name})).json()
        count = shown["model_info"]["general.parameter_count"]
        assert (count == 22713216) is (spec is told)
    assert seen == [
        ["MIT", ["en", "de"], 2, 22713216],
        ["MIT", [], 100, None],
        ["MIT", [], None, None],
    ]
