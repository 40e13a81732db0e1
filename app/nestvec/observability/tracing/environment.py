"""What OpenTelemetry's standard variables ask for, and the start of what does it.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables
Sampling, batching, service name, time-outs, headers and certificates are read by the SDK itself.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from nestvec.errors import ConfigError
from nestvec.observability.logs import get_logger
from nestvec.observability.tracing.span_metrics import SpanMetrics
from nestvec.system.extras import how_to_install
from nestvec.system.packages import installed_version

# Imported where spans are recorded: it needs the extra.
if TYPE_CHECKING:
    from nestvec.observability.tracing.span_recorder import SpanRecorder

log = get_logger(__name__)

EXTRA: Final = "otel"
PACKAGES: Final = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER: Final = "OTEL_TRACES_EXPORTER"
HTTP: Final = "http/protobuf"
COMPRESSIONS: Final = ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
COMPRESSION_WORDS: Final = ("none", "gzip", "deflate")


def asks_for_traces(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the variables ask for traces: by an exporter, or an endpoint for one.

    Raises:
        ConfigError: They ask for what there is not here, or the extra is not installed.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get(EXPORTER, "").strip().lower()
    endpoint = next(filter(None, map(environment.get, ENDPOINTS)), "").strip()
    if exporter == "none" or not (exporter or endpoint):
        return False
    problems = _problems(environment, exporter, endpoint)
    if problems:
        raise ConfigError(problems)
    return True


def _problems(environment: Mapping[str, str], exporter: str, endpoint: str) -> list[str]:
    """Return a sentence for each thing that is asked for and cannot be done."""

    def named(names: Sequence[str]) -> tuple[str, str]:
        """Return the variable of these that counts, and its value."""
        name = next(filter(environment.get, names), names[0])
        return name, environment.get(name, "").strip().lower()

    problems = []
    if exporter not in ("", "otlp"):
        problems.append(f"{EXPORTER}: '{exporter}' is none of otlp, none")
    if endpoint and not endpoint.lower().startswith(("http://", "https://")):
        problems.append(f"{named(ENDPOINTS)[0]}: must be a URL that begins http:// or https://")
    name, protocol = named(PROTOCOLS)
    if protocol not in ("", HTTP):
        problems.append(
            f"{name}: '{protocol}' is not spoken here; set {HTTP}, which collectors take on port 4318"
        )
    name, compression = named(COMPRESSIONS)
    if compression not in ("", *COMPRESSION_WORDS):
        problems.append(f"{name}: '{compression}' is none of {', '.join(COMPRESSION_WORDS)}")
    if not all(map(installed_version, PACKAGES)):
        problems.append(
            f"{EXPORTER if exporter else named(ENDPOINTS)[0]}: traces need the extra {EXTRA}: "
            f"{how_to_install(EXTRA)}; {EXPORTER}=none does without them"
        )
    return problems


def start_recorder(role: str, metrics: SpanMetrics) -> "SpanRecorder | None":
    """Return what records and exports this process's spans; None where none are asked for, or the SDK refuses to start.

    Args:
        role: Role of this process among several.
        metrics: Told of spans that are lost.

    Raises:
        ConfigError: The variables ask for what there is not here, or the extra is not installed.
    """
    if not asks_for_traces():
        return None
    from nestvec.observability.tracing.span_export import open_recorder

    try:
        return open_recorder(role, metrics)
    except ValueError as error:
        # Of numbers that the SDK reads, as of its queue; a server without traces still serves.
        log.error("traces_off", reason=str(error))  # noqa: TRY400 - the reason is whole
        return None
