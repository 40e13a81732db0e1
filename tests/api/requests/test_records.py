"""Objects among the inputs: texts by the model's template, in every form of body; refused without one, as ever."""

from typing import Any

import pytest
from nestvec.engine.models.served_model import AliasPreset
from nestvec.engine.text.preparation.record_template import RecordTemplate
from nestvec.engine.text.preparation.text_form import TextForm

from tests.api.applications import Api, Jobs, MakeApi, line, unit_vector
from tests.support.served import ServedOptions

TEMPLATE = RecordTemplate("{title} ({year}). {abstract}")
RECORDS = [
    {"title": "alpha", "year": 4, "abstract": "beta gamma", "doi": "x"},
    {"abstract": "beta gamma"},
    {"text": "red green"},
]
TEXTS = ["alpha (4). beta gamma", "beta gamma", "red green"]


@pytest.fixture
def with_template(make_api: MakeApi) -> Api:
    """An application whose model has a template."""
    return make_api(ServedOptions(text=TextForm(template=TEMPLATE)))


def vectors(body: dict[str, Any]) -> list[list[float]]:
    """The vectors of an answer."""
    return [row["embedding"] for row in body["data"]]


async def test_records_are_texts(with_template: Api) -> None:
    """Records give the vectors of their texts, beside plain strings too, under a space of the template's own."""
    answer = plain = await with_template.embed({"input": [*TEXTS, "one two"]})
    for extra in ({}, {"embedding_type": "float"}, {"normalized": True}):
        answer = await with_template.embed({"input": [*RECORDS, "one two"], **extra})
        assert answer.status_code == 200, answer.text
        assert vectors(answer.json()) == vectors(plain.json())
        assert vectors(answer.json())[1] == pytest.approx(unit_vector(with_template, "beta gamma"))
        assert answer.headers["x-embed-space"] != "0123456789abcdef"


async def test_azures_path(with_template: Api) -> None:
    """The path that names the model takes records as the others do."""
    path = "/openai/deployments/fake-model/embeddings"
    answer = await with_template.client.post(path, json={"input": RECORDS})
    assert answer.status_code == 200, answer.text
    plain = await with_template.client.post(path, json={"input": TEXTS})
    assert answer.json() == plain.json()


async def test_lines_of_a_batch(make_api: MakeApi, tmp_path: Any) -> None:
    """A line may hold records."""
    from tests.api.applications import Clock

    api = make_api(ServedOptions(text=TextForm(template=TEMPLATE), max_queue_tokens=10**9))
    jobs = Jobs(api, tmp_path / "data", Clock())
    jobs.open()
    try:
        content = line("a", RECORDS) + line("b", TEXTS) + line("c", [{"other": 1}])
        batch = await jobs.until((await jobs.create(content))["id"])
        rows = await jobs.rows(batch["output_file_id"])
        failed = await jobs.rows(batch["error_file_id"])
    finally:
        await jobs.runner.close()
    assert rows["a"]["response"]["body"]["data"] == rows["b"]["response"]["body"]["data"]
    assert "title" in failed["c"]["response"]["body"]["error"]["message"]


async def test_an_alias_has_a_template_of_its_own(make_api: MakeApi) -> None:
    """An alias may write records in another way than its model, in another space, which the list of models tells."""
    titles = TextForm(template=RecordTemplate("{title}"))
    presets = {"titles": AliasPreset(text=titles)}
    api = make_api(ServedOptions(text=TextForm(template=TEMPLATE), presets=presets))
    records = {"input": [{"title": "alpha", "abstract": "beta"}]}
    answer = await api.embed({**records, "model": "titles"})
    own = await api.embed(records)
    alpha = await api.embed({"input": ["alpha"]})
    assert vectors(answer.json()) == vectors(alpha.json()) != vectors(own.json())
    assert answer.headers["x-embed-space"] != own.headers["x-embed-space"]
    models = {row["id"]: row for row in (await api.client.get("/v1/models")).json()["data"]}
    assert models["titles"]["space"] == answer.headers["x-embed-space"]
    assert models["titles"]["text"]["template"] == "{title}"
    assert models["org/fake-model"]["text"]["template"] == TEMPLATE.source


REFUSED: list[tuple[Any, str]] = [
    ({"titel": "alpha", "abstract": "beta"}, "did you mean 'title'"),
    ({"Title": "alpha"}, "did you mean 'title'"),
    ({"title": {"en": "alpha"}}, "'title'"),
    ({"name": "alpha"}, "title, year, abstract"),
    ({"image": "https://x"}, "images"),
]


async def test_refused_records(with_template: Api) -> None:
    """A slip of a missing field, a nested value, and a record with nothing of the template name the item."""
    for record, message in REFUSED:
        answer = await with_template.embed({"input": ["alpha", record]})
        assert answer.status_code in (400, 422), answer.text
        assert message in answer.text
        assert "input[1]" in answer.text


async def test_other_fields_are_left_out(with_template: Api) -> None:
    """A field that is like one which the record has is data like any other."""
    record = {"title": "alpha", "titles": "beta", "year": 4}
    answer = await with_template.embed({"input": [record]})
    plain = await with_template.embed({"input": ["alpha (4)"]})
    assert vectors(answer.json()) == vectors(plain.json())


async def test_no_template_is_as_ever(api: Api) -> None:
    """Without a template an object needs `text`, and answers and the list of models have nothing more."""
    answer = await api.embed({"input": [{"title": "alpha"}]})
    assert answer.status_code == 400
    assert "an object with 'text'" in answer.text
    plain = await api.embed({"input": [{"text": "alpha"}]})
    assert plain.headers["x-embed-space"] == "0123456789abcdef"
    models = (await api.client.get("/v1/models")).json()["data"]
    assert not any("text" in row for row in models)


async def test_number_of_records(make_api: MakeApi) -> None:
    """More records than inputs are allowed are refused before any is written."""
    from nestvec.engine.limits import ServiceLimits

    options = ServedOptions(text=TextForm(template=TEMPLATE), limits=ServiceLimits(max_inputs=2))
    answer = await make_api(options).embed({"input": [{"bad": 1}] * 3})
    assert "at most 2 inputs" in answer.text
