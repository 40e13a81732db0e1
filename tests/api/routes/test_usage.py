"""GET /v1/usage: a key sees what it has used itself, an operator what all have."""

from pathlib import Path
from typing import Any

from tests.api.applications import Api, MakeApi
from tests.api.http.test_key_limits import add, bearer


async def ask(api: Api, key: str, **query: str) -> tuple[int, dict[str, Any]]:
    """Ask for usage as the key's owner."""
    answer = await api.client.get("/v1/usage", params=query, headers=bearer(key))
    return answer.status_code, answer.json()


async def test_a_key_sees_its_own_usage(make_api: MakeApi, tmp_path: Path) -> None:
    """Requests and tokens of the month, written or not; another key's usage is refused."""
    file = tmp_path / "keys.json"
    number, key = add(file, monthly_tokens=500)
    other, other_key = add(file)
    api = make_api(keys_file=file, data_dir=tmp_path)
    month = api.app.state.keys.usage.current_month()
    tokens = (await api.embed({"input": "alpha beta"}, **bearer(key))).json()["usage"][
        "total_tokens"
    ]
    await api.embed({"input": "alpha"}, **bearer(other_key))
    row = {
        "object": "usage",
        "key_id": number,
        "name": "someone",
        "month": month,
        "requests": 2,
        "tokens": tokens,
        "monthly_tokens": 500,
    }
    assert await ask(api, key) == (200, {"object": "list", "month": month, "data": [row]})
    api.app.state.keys.usage.flush()
    row["requests"] = 3
    assert (await ask(api, key, month=month, key_id=number))[1]["data"] == [row]
    status, body = await ask(api, key, key_id=other)
    assert (status, body["error"]["code"]) == (403, "admin_right_missing")
    row |= {"month": "2020-01", "requests": 0, "tokens": 0}
    assert (await ask(api, key, month="2020-01"))[1]["data"] == [row]
    for month in ("2026", "2026-13", "2026-1", "x", "２０２６-11"):
        status, body = await ask(api, key, month=month)
        assert (status, body["error"]["param"]) == (400, "month")


async def test_an_operator_sees_all(make_api: MakeApi, tmp_path: Path) -> None:
    """A key with the admin right sees every key's usage, or one key's."""
    file = tmp_path / "keys.json"
    number, key = add(file)
    admin_id, admin = add(file, is_admin=True)
    api = make_api(keys_file=file, data_dir=tmp_path, api_keys=["plain"])
    for caller in (key, "plain"):
        await api.embed({"input": "alpha"}, **bearer(caller))
    status, body = await ask(api, admin)
    assert status == 200
    assert len(body["data"]) == 3
    assert {number, admin_id} < {row["key_id"] for row in body["data"]}
    assert [row["key_id"] for row in (await ask(api, admin, key_id=number))[1]["data"]] == [number]
    assert len((await ask(api, "plain"))[1]["data"]) == 1


async def test_a_damaged_store_is_told(make_api: MakeApi, tmp_path: Path) -> None:
    """Where the store is damaged nothing is told as nothing used, and keys with a quota wait for it."""
    file = tmp_path / "keys.json"
    _, key = add(file, monthly_tokens=500)
    _, free = add(file)
    (tmp_path / "jobs.db").write_bytes(b"junk" * 500)
    api = make_api(keys_file=file, data_dir=tmp_path)
    status, body = await ask(api, free)
    assert (status, body["error"]["code"]) == (503, "store_error")
    assert (await api.embed({"input": "alpha"}, **bearer(key))).status_code == 503
    assert (await api.embed({"input": "alpha"}, **bearer(free))).status_code == 200


async def test_without_keys_nothing_is_counted(api: Api) -> None:
    """A server without keys has no usage to tell."""
    await api.embed({"input": "alpha"})
    answer = await api.client.get("/v1/usage")
    assert answer.json()["data"] == []
