"""The operators' routes: who may use them, and what they show."""

from pathlib import Path

import pytest
from nestvec.keys.keyring import KeyGrant
from nestvec.keys.records import KeyFile, KeyLimits

from tests.api.applications import MakeApi
from tests.api.routes.test_several_models import AUTH, KEY, serving, until
from tests.support.tiny import write_tiny_bert

ROUTES = (
    ("GET", "/admin/models", None),
    ("POST", "/admin/models/load", {"model": "second"}),
    ("POST", "/admin/models/unload", {"model": "second"}),
)


def add(path: Path, *, is_admin: bool = False, models: tuple[str, ...] = ()) -> dict[str, str]:
    """Add a key to a file; returns the header that sends it."""
    file = KeyFile.read(path)
    _, key = file.add("someone", KeyLimits(models=models), is_admin=is_admin)
    file.write()
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Folders of two models."""
    return {name: write_tiny_bert(tmp_path / name) for name in ("first", "second")}


async def test_operators_routes_need_the_admin_right(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    """A key without the right is refused before its body is read, and a key with it is not; nor are admin_keys."""
    keys_file = tmp_path / "keys.json"
    plain, admin = add(keys_file), add(keys_file, is_admin=True)
    settings = {
        "model": str(folders["first"]),
        "models": {"second": {"model": str(folders["second"])}},
        "admin_api": True,
        "keys_file": keys_file,
        "api_keys": [KEY],
        "admin_keys": ["operator"],
    }
    async with serving(tmp_path, **settings) as client:
        client.headers.update(admin)
        await until(client, first="ready", second="ready")
        for method, path, body in ROUTES:
            for key in (plain, AUTH):
                refused = await client.request(method, path, json=body, headers=key)
                assert (refused.status_code, refused.json()["error"]["code"]) == (
                    403,
                    "admin_right_missing",
                )
                broken = await client.request(method, path, content=b"{", headers=key)
                assert broken.status_code == 403
            for key in (admin, {"authorization": "Bearer operator"}):
                allowed = await client.request(method, path, json=body, headers=key)
                assert allowed.status_code == 200, allowed.text
        # The right is one more, not another: ordinary routes answer such keys too.
        body = {"input": "alpha", "model": "first"}
        assert (await client.post("/v1/embeddings", json=body)).status_code == 200


async def test_an_operator_of_some_models_sees_no_others(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    """A key with the right that is limited to a model lists, loads and unloads that one only."""
    keys_file = tmp_path / "keys.json"
    bound = add(keys_file, is_admin=True, models=("second",))
    free = add(keys_file, is_admin=True)
    settings = {
        "model": str(folders["first"]),
        "models": {"second": {"model": str(folders["second"])}},
        "admin_api": True,
        "keys_file": keys_file,
        "api_keys": [KEY],
    }
    async with serving(tmp_path, **settings) as client:
        client.headers.update(free)
        await until(client, first="ready", second="ready")
        rows = (await client.get("/admin/models", headers=bound)).json()["models"]
        assert [row["model"] for row in rows] == ["second"]
        for action, state in (("unload", "unloaded"), ("load", "ready")):
            path = f"/admin/models/{action}"
            refused = await client.post(path, json={"model": "first"}, headers=bound)
            assert refused.status_code == 404
            allowed = await client.post(path, json={"model": "second"}, headers=bound)
            assert allowed.json()["state"] == state
        rows = (await client.get("/admin/models")).json()["models"]
        assert [(row["model"], row["state"]) for row in rows] == [
            ("first", "ready"),
            ("second", "ready"),
        ]


async def test_no_listing_tells_where_models_lie(tmp_path: Path, folders: dict[str, Path]) -> None:
    """No listing has a path of the server's disk: not of a loaded model, one to be loaded, or one that is broken."""
    broken = write_tiny_bert(tmp_path / "broken")
    (broken / "config.json").unlink()
    first, second = str(folders["first"]), str(folders["second"])
    settings = {
        "model": first,
        "models": {
            second: {"model": second, "load": "first_use"},
            str(broken): {"model": str(broken)},
        },
        "admin_api": True,
        "admin_keys": [KEY],
    }
    async with serving(tmp_path, **settings) as client:
        client.headers.update(AUTH)
        listed = await until(client, first="ready", second="unloaded", broken="failed")
        assert listed["first"]["source"] == "folder first"
        texts = [
            (await client.request(method, path, json=body)).text
            for method, path, body in (
                ("GET", "/v1/models", None),
                ("GET", "/v1/models/first", None),
                ("GET", "/info", None),
                ("GET", "/api/tags", None),
                ("GET", "/api/ps", None),
                ("POST", "/api/show", {"model": "first"}),
                ("POST", "/v2/repository/index", {}),
                ("GET", "/v2/models/first", None),
                ("GET", "/admin/models", None),
                ("POST", "/v1/embeddings", {"input": "a", "model": "broken"}),
                ("GET", "/", None),
            )
        ]
        assert not [text for text in texts if str(tmp_path) in text or '"/' in text]
        assert "config.json" in texts[8]
        # What is listed is answered to.
        body = {"input": "alpha", "model": "second"}
        assert (await client.post("/v1/embeddings", json=body)).status_code == 200
        listed = await until(client, first="ready", second="ready", broken="failed")
        assert second not in listed["second"]["aliases"]
        assert (await client.post("/v1/embeddings", json={**body, "model": second})).is_success


async def test_where_no_key_is_needed_everybody_is_an_operator(make_api: MakeApi) -> None:
    """Without any key the routes are open, which settings allow to nobody but a test."""
    api = make_api(admin_api=True)
    assert (await api.client.get("/admin/models")).status_code == 200
    assert not KeyGrant().is_admin
