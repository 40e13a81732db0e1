"""A loopback server without keys: whom it answers, by `Host` and `Origin`."""

from pathlib import Path

import httpx
import pytest
from nestvec.api.loopback import MAX_AUTHORITY_CHARS, host_name, is_loopback_name

from tests.api.applications import Api, MakeApi
from tests.keys.test_keyring import add

OWN_NAMES = (
    *("localhost", "localhost:8080", "LOCALHOST.", "app.localhost", "127.0.0.1:8080", "127.8.9.1"),
    *("[::1]", "[::1]:8080", "[::ffff:127.0.0.1]", "0.0.0.0:8080", "host.docker.internal:8080"),
)
FOREIGN_NAMES = (
    *("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"),
    *("xlocalhost", "10.0.0.7", "[2001:db8::1]", "[::ffff:10.0.0.7]", "x" * 300, ".localhost.x"),
)
OWN_ORIGINS = (
    "http://localhost:3000",
    "http://127.0.0.1:8080",
    "https://app.localhost",
    "http://[::1]",
)
FOREIGN_ORIGINS = (
    *(
        "https://evil.example",
        "http://localhost.evil.example",
        "null",
        "file://",
        "http://10.0.0.7",
    ),
    *("chrome-extension://abc", "http://[", "not an origin", "http://localhost@evil.example"),
)
READING = (("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/v1/files"), ("GET", "/"))
CHANGING = (("POST", "/v1/embeddings"), ("POST", "/embed"), ("DELETE", "/v1/files/file-1"))


@pytest.fixture
async def local(make_api: MakeApi) -> Api:
    """An application with default settings, reached on a loopback address."""
    return reached_locally(make_api())


def reached_locally(api: Api) -> Api:
    """Have the client of an application come in on 127.0.0.1:8080."""
    api.client.base_url = httpx.URL("http://127.0.0.1:8080")
    return api


async def ask(api: Api, method: str, path: str, **headers: str) -> httpx.Response:
    """Send a request, with a body where the method has one."""
    json = {"input": "alpha", "inputs": "alpha"} if method == "POST" else None
    return await api.client.request(method, path, json=json, headers=headers)


@pytest.mark.parametrize("name", OWN_NAMES)
async def test_names_of_this_machine_are_answered(local: Api, name: str) -> None:
    """A request for any name that only this machine has is answered."""
    assert (await ask(local, "POST", "/v1/embeddings", host=name)).status_code == 200


@pytest.mark.parametrize("name", FOREIGN_NAMES)
async def test_other_names_are_refused(local: Api, name: str) -> None:
    """A page that has taken the address 127.0.0.1 for its own name gets nothing, whatever it asks for."""
    for method, path in (*READING, *CHANGING):
        answer = await ask(local, method, path, host=name)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")
        assert "trusted_hosts" in answer.text
        assert name not in answer.text


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
async def test_pages_of_other_origins_are_refused(local: Api, origin: str) -> None:
    """A page of another origin can have nothing run, although its simple requests need no preflight."""
    for method, path in (*READING, *CHANGING):
        answer = await ask(local, method, path, origin=origin)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert local.served.backend.batches == []


@pytest.mark.parametrize("origin", OWN_ORIGINS)
async def test_pages_of_this_machine_may_call(local: Api, origin: str) -> None:
    """Pages that this machine serves may have work done, the server's own /docs among them."""
    assert (await ask(local, "POST", "/v1/embeddings", origin=origin)).status_code == 200


async def test_health_checks_come_under_any_name(local: Api) -> None:
    """Health checks are answered under any name, as load balancers and monitors ask by whatever they know."""
    for path in ("/health", "/health/live", "/ping", "/v2/health/live", "/v2/health/ready"):
        answer = await ask(local, "GET", path, host="10.0.0.7", origin="https://monitor.example")
        assert answer.status_code == 200, path


async def test_settings_let_more_in(make_api: MakeApi) -> None:
    """`trusted_hosts` adds names to those of this machine, and `cors_origins` adds origins."""
    api = reached_locally(
        make_api(trusted_hosts=["embed.example", "*.lan"], cors_origins=["https://App.example"])
    )
    for name, status in (("localhost", 200), ("embed.example", 200), ("a.LAN", 200), ("lan", 403)):
        assert (await ask(api, "GET", "/v1/models", host=name)).status_code == status, name
    answer = await ask(api, "POST", "/v1/embeddings", origin="https://app.example")
    assert answer.status_code == 200
    same_origin = {"host": "embed.example", "origin": "https://embed.example"}
    assert (await ask(api, "POST", "/v1/embeddings", **same_origin)).status_code == 200
    assert (await ask(api, "GET", "/v1/models", origin="https://other.example")).status_code == 403
    any_api = reached_locally(make_api(trusted_hosts=["*"], cors_origins=["*"]))
    foreign = {"host": "evil.example", "origin": "https://other.example"}
    assert (await ask(any_api, "GET", "/v1/models", **foreign)).status_code == 200


async def test_only_loopback_without_keys_is_guarded(make_api: MakeApi, tmp_path: Path) -> None:
    """Servers for a network, and those that ask for a key, answer under any name as before."""
    foreign = {"host": "evil.example", "origin": "https://evil.example"}
    wide = reached_locally(make_api(host="0.0.0.0", allow_unauthenticated=True))  # noqa: S104 - not bound
    assert (await ask(wide, "GET", "/v1/models", **foreign)).status_code == 200
    keyed = reached_locally(make_api(api_keys=["k"]))
    assert (await ask(keyed, "GET", "/v1/models", **foreign)).status_code == 401
    authorized = {**foreign, "authorization": "Bearer k"}
    assert (await ask(keyed, "GET", "/v1/models", **authorized)).status_code == 200
    # The operators' port may have an address of its own.
    elsewhere = make_api()
    elsewhere.client.base_url = httpx.URL("http://192.0.2.1:9090")
    assert (await ask(elsewhere, "GET", "/metrics", **foreign)).status_code == 200
    # The first key of a file that is made while the server runs.
    api = reached_locally(make_api(data_dir=tmp_path))
    assert (await ask(api, "GET", "/v1/models", **foreign)).status_code == 403
    add(tmp_path)
    api.app.state.keys.reload()
    assert (await ask(api, "GET", "/v1/models", **foreign)).status_code == 401


async def test_a_foreign_preflight_allows_nothing(local: Api) -> None:
    """A preflight of a page of another origin is refused, and no header allows it anything."""
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = await local.client.options("/v1/embeddings", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("authority", "name"),
    [("A.example.:80", "a.example"), ("[::1]:80", "::1"), ("[::1", "::1"), ("", ""), (":80", "")],
)
def test_names_without_ports(authority: str, name: str) -> None:
    """The name of an authority has no port, no brackets, no dot at its end, and small letters."""
    assert host_name(authority) == name


def test_no_name_of_the_dns_is_this_machines() -> None:
    """Names under which a page can be published are never taken for this machine's."""
    for name in ("example.com", "local", "internal", "host.docker.internal.example", "1.2.3.4", ""):
        assert not is_loopback_name(name)
    assert MAX_AUTHORITY_CHARS > 253
