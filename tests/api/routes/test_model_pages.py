"""What was measured of a model, and its page."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from nestvec.corpus.reports.model_card import card_markdown, card_page
from nestvec.errors import ArtefactError
from nestvec.model_store.artefacts.kept_reports import read_reports, write_report

from tests.api.applications import Api

FIGURE = {
    "name": "cosine",
    "value": 0.5,
    "n": 9,
    "low": 0.4,
    "high": 0.6,
    "p": None,
    "unit": "cosine",
    "better": "",
}
RESULT: dict[str, Any] = {
    "report": "drift",
    "title": "Whether <texts> moved.",
    "model": "m",
    "space": "s",
    "seed": 7,
    "texts_of": "a.txt",
    "nestvec": "1",
    "made_s": 1_700_000_000,
    "method": "energy",
    "figures": [FIGURE],
    "notes": ["a note"],
    "advice": ["do this"],
    "tables": [],
}


def with_reports(api: Api) -> None:
    """Let the served model have a report and figures of quality."""
    slot = api.served.service.models.find("")
    assert slot.model is not None
    quality = {"recommendations": [{"budget": 0.01, "text": "keep 128 dimensions"}]}
    slot.model = dataclasses.replace(slot.model, reports={"drift": RESULT}, quality=quality)


async def test_what_was_measured_is_shown(api: Api) -> None:
    """The single description has reports, the list has none, and `/quality` has them alone."""
    empty = (await api.client.get("/v1/models/org/fake-model/quality")).json()
    assert (empty["object"], empty["quality"], empty["reports"]) == ("model.quality", None, {})
    with_reports(api)
    shown = (await api.client.get("/v1/models/org/fake-model/quality")).json()
    assert shown["model"] == "org/fake-model"
    assert shown["reports"]["drift"]["figures"] == [FIGURE]
    assert shown["quality"]["recommendations"][0]["text"] == "keep 128 dimensions"
    described = (await api.client.get("/v1/models/org/fake-model")).json()
    assert described["reports"] == shown["reports"]
    assert "reports" not in (await api.client.get("/v1/models")).json()["data"][0]
    unknown = await api.client.get("/v1/models/nobody/quality")
    assert unknown.status_code == 404


async def test_a_model_has_a_page(api: Api) -> None:
    """It says what the model is and what was measured, as HTML or as Markdown, and nothing in it is markup."""
    with_reports(api)
    page = await api.client.get("/v1/models/org/fake-model/card")
    assert page.headers["content-type"].startswith("text/html")
    for part in ("MIT", "keep 128 dimensions", "do this", "0.4 to 0.6", "&lt;texts&gt;"):
        assert part in page.text
    assert "<texts>" not in page.text
    text = (await api.client.get("/v1/models/org/fake-model/card?format=markdown")).text
    assert text.startswith("# org/fake-model\n")
    assert "| licence | MIT |" in text
    assert "| languages | not told by its card |" in text
    assert "## drift: m" in text
    wrong = await api.client.get("/v1/models/org/fake-model/card?format=pdf")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "format")


def test_a_page_of_a_model_that_was_never_loaded() -> None:
    """It says that nothing is known yet."""
    for written in (card_page({"id": "m"}), card_markdown({"id": "m"})):
        assert "has not been loaded" in written


def test_reports_are_kept_beside_an_artefact(tmp_path: Path) -> None:
    """One of each name is kept, without tables; broken and foreign files are left out."""
    write_report(tmp_path, RESULT | {"tables": ["long"]})
    write_report(tmp_path, RESULT | {"report": "bias"})
    (tmp_path / "report-broken.json").write_text("{")
    (tmp_path / "report-foreign.json").write_text('{"a": 1}')
    kept = read_reports(tmp_path)
    assert sorted(kept) == ["bias", "drift"]
    assert "tables" not in kept["drift"]
    with pytest.raises(ArtefactError):
        write_report(tmp_path / "nowhere" / "x", RESULT)
