"""Reports over HTTP: made in the background, each key sees its own, and nothing of them is kept but figures."""

import asyncio
import dataclasses
import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from nestvec.api.reports import report_jobs
from nestvec.api.reports.report_files import STALE_S, ReportFolder, ReportStatus
from nestvec.api.requests import report_request
from nestvec.api.requests.report_request import parse_lines
from nestvec.errors import InputError, NotFoundError

from tests.api.applications import Api, Jobs, MakeApi
from tests.api.http.test_key_limits import add, bearer
from tests.support.served import ServedOptions
from tests.support.tiny import WORDS

TEXTS = [f"{first} {second}" for first in WORDS[:8] for second in WORDS[:8]]
BODY = {"report": "outliers", "texts": TEXTS}


@pytest.fixture(autouse=True)
def _quick_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for turns and cancellations often."""
    monkeypatch.setattr(report_jobs, "TURN_POLL_S", 0.005)
    monkeypatch.setattr(report_jobs, "NOTE_S", 0.01)


@pytest.fixture
def api(make_api: MakeApi, tmp_path: Path) -> Api:
    """An application whose queue takes whole calls."""
    return make_api(ServedOptions(max_queue_tokens=10**6), data_dir=tmp_path)


async def post(api: Api, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    """POST a report."""
    answer = await api.client.post("/v1/reports", json=body, headers=headers)
    return answer.status_code, answer.json()


async def ended(api: Api, report_id: str, **headers: str) -> dict[str, Any]:
    """Return a report once it has ended."""
    while True:
        answer = await api.client.get(f"/v1/reports/{report_id}", headers=headers)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        if content["status"] not in ("queued", "running"):
            return content
        await asyncio.sleep(0.005)


async def test_a_report_is_made_and_shown_in_three_forms(api: Api, tmp_path: Path) -> None:
    """It is queued, completes with figures, is a page and Markdown too, and its file holds no text."""
    status, queued = await post(api, BODY)
    assert (status, queued["status"], queued["result"]) == (200, "queued", None)
    done = await ended(api, queued["id"])
    assert (done["status"], done["error"], done["embedded_texts"]) == ("completed", None, 64)
    assert done["usage"]["prompt_tokens"] == 4 * 64
    figures = {figure["name"]: figure for figure in done["result"]["figures"]}
    assert figures["texts that are exact copies of an earlier one"]["value"] == 0
    path = f"/v1/reports/{done['id']}"
    page = await api.client.get(path, params={"format": "html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "<svg" in page.text
    text = await api.client.get(path, params={"format": "markdown"})
    assert text.text.startswith("# outliers: org/fake-model")
    stored = [file for file in (tmp_path / "reports").iterdir() if file.suffix == ".json"]
    assert [file.stat().st_mode & 0o77 for file in stored] == [0]
    assert "alpha beta" not in stored[0].read_text()
    for limit in ("0", "101", "x", "9" * 5000, "٣"):
        wrong = await api.client.get("/v1/reports", params={"limit": limit})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "limit")
    wrong = await api.client.get(path, params={"format": "pdf"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "format")
    listed = (await api.client.get("/v1/reports")).json()
    assert [row["id"] for row in listed["data"]] == [done["id"]]
    assert "result" not in listed["data"][0]


async def test_two_models_and_the_tokenizer(api: Api) -> None:
    """`compare` takes a second model, `tokens` reads the server's own tokenizer."""
    body = {"report": "compare", "texts": TEXTS, "other_model": "org/fake-model"}
    same = await ended(api, (await post(api, body))[1]["id"])
    figures = {figure["name"]: figure["value"] for figure in same["result"]["figures"]}
    assert figures["order of pairs (Spearman)"] == pytest.approx(1)
    assert figures["neighbours kept of ten"] == 1
    tokens = await ended(api, (await post(api, {"report": "tokens", "texts": TEXTS}))[1]["id"])
    assert tokens["status"] == "completed", tokens
    assert tokens["result"]["tables"][0]["title"] == "by language or script"


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"report": None}, 400, "report"),
    ({"report": "moods"}, 400, "report"),
    ({"model": "unknown"}, 404, "model"),
    ({"texts": None}, 400, "texts"),
    ({"texts": "alpha"}, 400, "texts"),
    ({"texts": ["alpha"] * 29}, 400, "texts"),
    ({"texts": [*TEXTS, 7]}, 400, "texts[64]"),
    ({"texts": [*TEXTS, " "]}, 400, "texts[64]"),
    ({"pairs": [["a"]]}, 400, "pairs[0]"),
    ({"pairs": [["a", "b"]]}, 400, "pairs"),
    ({"reference": ["a"]}, 400, "reference"),
    ({"seed": -1}, 400, "seed"),
    ({"timeout_s": 0}, 400, "timeout_s"),
    ({"timeout_s": 3601}, 400, "timeout_s"),
    ({"other_model": "org/fake-model"}, 400, "other_model"),
    ({"file_id": "file-1"}, 400, "file_id"),
]


async def test_what_is_wrong_is_named(api: Api) -> None:
    """A body that no report can be made of is refused by its field, and nothing is queued."""
    for change, status, param in WRONG:
        got, body = await post(api, BODY | change)
        assert (got, body["error"]["param"]) == (status, param), change
    assert (await api.client.get("/v1/reports")).json()["data"] == []


async def test_sizes_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """More texts or characters than a server reads are refused as too large."""
    monkeypatch.setattr(report_request, "MAX_ITEMS", 64)
    status, body = await post(api, BODY | {"texts": [*TEXTS, "one"]})
    assert (status, body["error"]["param"]) == (400, "texts")
    assert body["error"]["code"] == "request_too_large"
    monkeypatch.setattr(report_request, "MAX_TEXT_CHARACTERS", 100)
    assert (await post(api, BODY))[1]["error"]["code"] == "request_too_large"


async def test_keys_see_their_own_and_pay(make_api: MakeApi, tmp_path: Path) -> None:
    """Another key finds no such report; tokens are counted, and a month that is used up ends a report."""
    file = tmp_path / "keys.json"
    number, key = add(file, monthly_tokens=256)
    _, other = add(file)
    options = ServedOptions(max_queue_tokens=10**6)
    api = make_api(options, keys_file=file, data_dir=tmp_path)
    mine, others = bearer(key), bearer(other)
    assert (await post(api, BODY))[0] == 401
    first = await ended(api, (await post(api, BODY, **mine))[1]["id"], **mine)
    assert first["status"] == "completed"
    path = f"/v1/reports/{first['id']}"
    for method, url in (("GET", path), ("POST", f"{path}/cancel")):
        assert (await api.client.request(method, url, headers=others)).status_code == 404
    assert (await api.client.get("/v1/reports", headers=others)).json()["data"] == []
    usage = (await api.client.get("/v1/usage", headers=mine)).json()["data"]
    assert [(row["key_id"], row["tokens"]) for row in usage] == [(number, 256)]
    second = await ended(api, (await post(api, BODY, **mine))[1]["id"], **mine)
    assert (second["status"], second["error"]["code"]) == ("failed", "insufficient_quota")


async def test_one_at_a_time_few_wait_and_any_is_cancelled(api: Api) -> None:
    """The second waits for the first; a third of the same key is refused; both can be cancelled."""
    backend = api.served.backend
    backend.gate.clear()
    first = (await post(api, BODY))[1]
    while await asyncio.to_thread(lambda: not backend.started.acquire(timeout=0.01)):
        pass
    second = (await post(api, BODY))[1]
    status, refused = await post(api, BODY)
    assert (status, refused["error"]["code"]) == (429, "rate_limit_exceeded")
    for report in (second, first):
        answer = await api.client.post(f"/v1/reports/{report['id']}/cancel")
        assert answer.status_code == 200
    assert (await ended(api, second["id"]))["status"] == "cancelled"
    state = (await api.client.get(f"/v1/reports/{first['id']}")).json()["status"]
    assert state == "running"
    await asyncio.sleep(0.05)  # the watch sees the wish while the backend is held
    backend.gate.set()
    assert (await ended(api, first["id"]))["status"] in ("cancelled", "completed")


async def test_a_report_has_its_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose time has passed fails and says what to do."""
    monkeypatch.setattr("nestvec.api.routes.reports.timeout_of", lambda _: -1.0)
    late = await ended(api, (await post(api, BODY))[1]["id"])
    assert (late["status"], late["error"]["code"]) == ("failed", "deadline_exceeded")


async def test_a_stopping_server_says_so(api: Api) -> None:
    """A report under way when the server stops has failed, and says to send it again."""
    api.served.backend.gate.clear()
    report = (await post(api, BODY))[1]
    while await asyncio.to_thread(lambda: not api.served.backend.started.acquire(timeout=0.01)):
        pass
    await api.app.state.reports.close()
    lost = await ended(api, report["id"])
    assert (lost["status"], lost["error"]["code"]) == ("failed", "interrupted")


async def test_an_uploaded_file_is_read(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of a file stand for the body's fields; a wrong line is named, and so is an unknown file."""
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS).encode()
    uploaded: httpx.Response = await jobs.upload(lines, purpose="user_data")
    file_id = uploaded.json()["id"]
    status, report = await post(jobs.api, {"report": "outliers", "file_id": file_id})
    assert status == 200, report
    done = await ended(jobs.api, report["id"])
    assert (done["status"], done["embedded_texts"]) == ("completed", 64)
    assert (await post(jobs.api, {"report": "outliers", "file_id": "file-x"}))[0] == 404
    monkeypatch.setattr(report_request, "MAX_FILE_BYTES", 10)
    refused = (await post(jobs.api, {"report": "outliers", "file_id": file_id}))[1]
    assert refused["error"]["code"] == "request_too_large"


def test_lines_of_a_file() -> None:
    """Texts with labels, references and pairs are told by their fields; what is wrong is named by its line."""
    content = b'{"text": "a", "label": "x"}\n\n{"reference": "b"}\n{"pair": ["c", "d"]}\n'
    data = parse_lines(content)
    assert (data.texts, data.labels, data.reference) == (["a"], ["x"], ["b"])
    assert data.pairs == [("c", "d")]
    for line in (b"[1]", b"{", b'{"text": 1}', b'{"pair": ["a"]}', b'{"pair": ["a", 1]}', b"\xff"):
        with pytest.raises(InputError, match="line 5") as caught:
            parse_lines(content + line)
        assert caught.value.param == "file_id"


def test_files_of_reports(tmp_path: Path) -> None:
    """A report whose process is gone has failed; old ones are forgotten; ids are no paths."""
    now = [1_000_000_000.0]
    files = ReportFolder(tmp_path / "reports", lambda: now[0])
    record = files.new("key", "drift", "model")
    path = tmp_path / "reports" / f"{record.id}.json"
    now[0] = path.stat().st_mtime + STALE_S - 1
    assert files.find(record.id, "key").status == "queued"
    now[0] += 2
    lost = files.find(record.id, "key")
    assert (lost.status, lost.error and lost.error["code"]) == ("failed", "interrupted")
    for wrong in (f"../reports/{record.id}", "report_", f"{record.id}.json"):
        with pytest.raises(NotFoundError):
            files.find(wrong, "key")
    path.write_text("{")
    assert files.of_owner("key") == []
    now[0] += 8 * 24 * 3600
    files.new("key", "drift", "model")
    assert not path.exists()


def test_notes_and_endings_do_not_meet(tmp_path: Path) -> None:
    """Regression: a note that was written while its report ended left half a file, or the report as still running."""
    files = ReportFolder(tmp_path / "reports")
    record = files.new("", "numbers", "model")
    running = dataclasses.replace(record, status=ReportStatus.RUNNING)
    files.write(running)
    with ThreadPoolExecutor(4) as threads:
        notes = [threads.submit(files.note, running) for _ in range(100)]
        reads = [threads.submit(files.find, record.id, "") for _ in range(100)]
        ended = threads.submit(
            files.end, running, ReportStatus.COMPLETED, result={"figures": [0.5] * 5000}
        )
        late = [threads.submit(files.note, running) for _ in range(20)]
        futures: list[Future[Any]] = [*notes, *reads, ended, *late]
        for future in futures:
            future.result()
    assert files.find(record.id, "").status == ReportStatus.COMPLETED
