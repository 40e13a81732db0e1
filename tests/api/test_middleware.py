"""The operators' port behind a root path, and what browsers may send."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nestvec.config.settings import Settings
from nestvec.main import ProcessRole, build_app
from starlette.types import ASGIApp

from tests.api.applications import MakeApi
from tests.support.asgi import ask
from tests.support.served import serve_fake

OPERATIONS_PORT, COMMON_PORT = 9000, 8080
OPERATORS_ROUTES = ("/metrics", "/admin/models", "/admin/models/load", "/admin/models/unload")
PIECES = (
    *(
        "/",
        "//",
        "/nestvec",
        "/metrics",
        "/admin",
        "/models",
        "/unload",
        "/v1",
        "/openai",
        "/health",
    ),
    *(
        "/%6detrics",
        "%2F",
        "%2fmetrics",
        "/..",
        "/.",
        "%0A",
        "%00",
        "?",
        "#",
        ";",
        "/docs",
        "/METRICS",
    ),
)


@pytest.fixture(scope="module", params=["", "/nestvec", "/a/b/", "proxy", "/v1"])
def gated(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ASGIApp]:
    """An application with a port for operators, under several root paths."""
    options = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        admin_keys=["k"],
        admin_api=True,
        root_path=request.param,
    )
    app = build_app(options, process_role=ProcessRole(operations_port=OPERATIONS_PORT))
    served = serve_fake(tiny_folder / "tokenizer.json", also_tell=app.state.metrics.engine)
    app.state.become_ready(served.service)
    yield app
    served.service.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.sampled_from(PIECES), min_size=1, max_size=6),
    port=st.sampled_from([OPERATIONS_PORT, COMMON_PORT]),
    method=st.sampled_from(["GET", "POST"]),
)
async def test_what_the_gate_sees_is_what_the_router_sees(
    gated: ASGIApp, parts: list[str], port: int, method: str
) -> None:
    """However a path is written, operators' routes are matched on their port only, and others on the common one."""
    _, route = await ask(gated, "/" + "".join(parts).lstrip("/"), port, method)
    if route and not route.startswith(("/health", "/ping", "/v2/health")):
        assert (route in OPERATORS_ROUTES) == (port == OPERATIONS_PORT), route


@pytest.mark.parametrize(
    "root", ["", "/nestvec", "/nestvec/nestvec", "//nestvec/", "/a/b", "/metrics"]
)
async def test_no_root_path_leads_past_the_gate(gated: ASGIApp, root: str) -> None:
    """Under the root path, without it and with it twice, operators' routes are 404 on the common port."""
    for path in OPERATORS_ROUTES:
        for method in ("GET", "POST", "HEAD"):
            status, _ = await ask(gated, f"{root}{path}", COMMON_PORT, method)
            assert status == 404, (root, path, method)


async def test_the_operators_port_serves_under_its_root_path(gated: ASGIApp) -> None:
    """On their own port operators' routes answer, with and without the root path."""
    assert (await ask(gated, "/metrics", OPERATIONS_PORT))[0] == 200
    assert (await ask(gated, "/admin/models", OPERATIONS_PORT))[0] == 200
    assert (await ask(gated, "/v1/models", OPERATIONS_PORT))[0] == 404
    assert (await ask(gated, "/v1/models", COMMON_PORT))[0] == 200


@pytest.mark.parametrize(
    "names",
    [
        "authorization,content-type",
        "x-title,http-referer",
        "X-Requested-With",
        "tracestate",
        "x-stainless-poll-helper",
    ],
)
async def test_allowed_origins_may_send_any_header(make_api: MakeApi, names: str) -> None:
    """The origin is what is checked: a page that may call may send whatever headers its client adds."""
    for origins in (["https://app.test"], ["*"]):
        api = make_api(cors_origins=origins)
        headers = {
            "origin": "https://app.test",
            "access-control-request-method": "POST",
            "access-control-request-headers": names,
        }
        answer = await api.client.options("/v1/embeddings", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-headers"] == names
        other = await make_api(cors_origins=["https://x.test"]).client.options(
            "/v1/embeddings", headers=headers
        )
        assert "access-control-allow-origin" not in other.headers
