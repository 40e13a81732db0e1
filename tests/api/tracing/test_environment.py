"""What OpenTelemetry's variables ask for."""

import pytest
from nestvec.errors import ConfigError
from nestvec.observability.tracing import environment
from nestvec.observability.tracing.environment import asks_for_traces, start_recorder
from nestvec.observability.tracing.span_metrics import SpanMetrics
from prometheus_client import CollectorRegistry

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.fixture
def _is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that the extra is there."""
    monkeypatch.setattr(environment, "installed_version", lambda _: "1.0")


@pytest.mark.usefixtures("_is_installed")
@pytest.mark.parametrize(
    ("variables", "asks"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "OTLP "}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        # Set to nothing, as compose does, is not set.
        (
            dict.fromkeys([*ENDPOINT, "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL"], ""),
            False,
        ),
        ({"OTEL_SERVICE_NAME": "search", "OTEL_TRACES_SAMPLER": "always_on"}, False),
    ],
)
def test_an_exporter_or_an_endpoint_asks(variables: dict[str, str], *, asks: bool) -> None:
    """Nothing is recorded unless one of them is named, and the SDK is not switched off."""
    assert asks_for_traces(variables) is asks


@pytest.mark.usefixtures("_is_installed")
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, ["OTEL_TRACES_EXPORTER", "zipkin", "otlp"]),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["_OTLP_PROTOCOL", "http/protobuf"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, ["_OTLP_ENDPOINT", "http://"]),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_COMPRESSION": "brotli"}, ["_COMPRESSION", "gzip"]),
    ],
)
def test_what_there_is_not_is_refused(variables: dict[str, str], words: list[str]) -> None:
    """A start fails by the variable's name, with what it may be."""
    with pytest.raises(ConfigError) as raised:
        asks_for_traces(variables)
    assert all(word in raised.value.message for word in words), raised.value.message


def test_a_start_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not silent about traces that were asked for."""
    monkeypatch.setattr(environment, "installed_version", lambda _: None)
    with pytest.raises(ConfigError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT.*EXTRAS=otel"):
        asks_for_traces(ENDPOINT)
    assert not asks_for_traces({})


def test_nothing_is_started_where_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default costs nothing."""
    for name in ("OTEL_TRACES_EXPORTER", *environment.ENDPOINTS):
        monkeypatch.delenv(name, raising=False)
    assert start_recorder("server", SpanMetrics(CollectorRegistry())) is None
