"""Builds Grafana's dashboards of a Nestvec server: `make dashboards` writes them into `deploy/grafana/dashboards`.

The panels are data: a title, a unit, queries with their legends. Layout and Grafana's model are the SDK's part.
Source: https://grafana.github.io/grafana-foundation-sdk
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, GridPos, VariableRefresh

FOLDER: Final = Path(__file__).parent / "dashboards"
COLUMNS: Final = 24
WIDTH: Final = 8
HEIGHT: Final = 8
# What a panel looks at: the servers chosen, and of series of a model the models chosen.
SERVER: Final = 'job=~"$job",instance=~"$instance"'
MODEL: Final = SERVER + ',model=~"$model"'
# Requests that are about a model; operators' pages and refused paths are not users' traffic.
CALLS: Final = MODEL + ',model!=""'
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL.
        legend: What its lines are called, with labels in double braces.
    """

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A panel of lines.

    Attributes:
        title: What it shows.
        unit: Grafana's unit of its values.
        queries: Where they come from.
        description: What to make of them.
        maximum: Upper end of the axis; None: as the values have it.
    """

    title: str
    unit: str
    queries: Sequence[Query]
    description: str = ""
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A row of panels.

    Attributes:
        title: Its name.
        charts: Its panels, three beside one another.
    """

    title: str
    charts: Sequence[Chart]


def rate(metric: str, by: str = "model", labels: str = MODEL) -> str:
    """Return what a counter grows by in a second, by labels."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def share(part: str, whole: str) -> str:
    """Return one rate over another; nothing where there is no whole."""
    return f"{part} / ({whole} > 0)"


def quantile(q: float, metric: str, by: str = "model", labels: str = MODEL) -> str:
    """Return a quantile of a histogram, by labels."""
    buckets = rate(f"{metric}_bucket", f"{by}, le" if by else "le", labels)
    return f"histogram_quantile({q}, {buckets})"


def mean(metric: str, by: str = "model", labels: str = MODEL) -> str:
    """Return the mean of a histogram's or summary's values, by labels."""
    return share(rate(f"{metric}_sum", by, labels), rate(f"{metric}_count", by, labels))


def gauge(metric: str, by: str = "model", labels: str = MODEL) -> str:
    """Return a gauge, summed by labels."""
    return f"sum by ({by}) ({metric}{{{labels}}})"


def quantiles(metric: str, by: str = "model", labels: str = MODEL) -> list[Query]:
    """Return median, 95th and 99th percentile."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",")) if by else ""
    return [
        Query(quantile(q, metric, by, labels), f"{legend} {name}".strip())
        for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]


REQUESTS: Final = "nestvec_requests_total"
STAGES: Final = "nestvec_request_stage_duration_seconds"

OVERVIEW: Final = (
    Section(
        "Requests",
        (
            Chart("Requests", "reqps", [Query(rate(REQUESTS, "model", CALLS), "{{model}}")]),
            Chart(
                "Answers that are no 200",
                "reqps",
                [Query(rate(REQUESTS, "status", CALLS + ',status!="200"'), "{{status}}")],
                "429: too much waits; 499: the caller left; 5xx: the server's fault.",
            ),
            Chart(
                "Time of an answer",
                "s",
                quantiles("nestvec_request_duration_seconds", "model", CALLS + ',outcome="ok"'),
            ),
            Chart("Inputs", "cps", [Query(rate("nestvec_inputs_total"), "{{model}}")]),
            Chart("Tokens", "cps", [Query(rate("nestvec_tokens_total"), "{{model}}")]),
            Chart(
                "Requests by dialect",
                "reqps",
                [Query(rate(REQUESTS, "dialect", CALLS), "{{dialect}}")],
            ),
        ),
    ),
    Section(
        "How full it is",
        (
            Chart(
                "Workers at work",
                "percentunit",
                [
                    Query(
                        share(
                            rate("nestvec_engine_duration_seconds_sum"), gauge("nestvec_workers")
                        ),
                        "{{model}}",
                    )
                ],
                "At 100% more callers only wait longer. The worker for queries may add to it for moments.",
            ),
            Chart(
                "Queue",
                "percentunit",
                [
                    Query(
                        share(gauge("nestvec_queue_tokens"), gauge("nestvec_queue_limit_tokens")),
                        "{{model}}",
                    )
                ],
            ),
            Chart(
                "Connections and bodies",
                "percentunit",
                [
                    Query(
                        share(
                            gauge("nestvec_connections", "instance", SERVER),
                            gauge("nestvec_connections_limit", "instance", SERVER),
                        ),
                        "connections {{instance}}",
                    ),
                    Query(
                        share(
                            gauge("nestvec_in_flight_body_bytes", "instance", SERVER),
                            gauge("nestvec_in_flight_body_limit_bytes", "instance", SERVER),
                        ),
                        "bodies {{instance}}",
                    ),
                ],
            ),
        ),
    ),
)

SERVING: Final = (
    Section(
        "Latency by stage",
        (
            Chart("Mean of each stage", "s", [Query(mean(STAGES, "stage"), "{{stage}}")]),
            Chart("99 of 100 within", "s", [Query(quantile(0.99, STAGES, "stage"), "{{stage}}")]),
            Chart("Tokenising a request", "s", quantiles("nestvec_tokenization_duration_seconds")),
        ),
    ),
    Section(
        "Queue and admission",
        (
            Chart("Wait of an input", "s", quantiles("nestvec_queue_wait_seconds")),
            Chart(
                "Time that what waits will take",
                "s",
                [Query(gauge("nestvec_queue_predicted_seconds"), "{{model}}")],
            ),
            Chart(
                "Refused",
                "reqps",
                [Query(rate("nestvec_refused_requests_total", "reason"), "{{reason}}")],
            ),
            Chart(
                "Left without a vector",
                "cps",
                [Query(rate("nestvec_dropped_inputs_total", "reason"), "{{reason}}")],
            ),
            Chart(
                "Inputs and tokens that wait",
                "short",
                [
                    Query(gauge("nestvec_queue_items"), "{{model}} inputs"),
                    Query(gauge("nestvec_queue_tokens"), "{{model}} tokens"),
                ],
            ),
            Chart(
                "How far waits were foreseen wrongly",
                "percentunit",
                quantiles("nestvec_wait_prediction_error_ratio"),
            ),
        ),
    ),
    Section(
        "Micro-batches",
        (
            Chart("Time of one", "s", quantiles("nestvec_engine_duration_seconds")),
            Chart("Tokens of one", "short", quantiles("nestvec_batch_tokens")),
            Chart("Inputs of one", "short", quantiles("nestvec_batch_inputs")),
            Chart(
                "Micro-batches",
                "cps",
                [Query(rate("nestvec_batches_total", "model, outcome"), "{{model}} {{outcome}}")],
            ),
            Chart(
                "Share that padding would not waste",
                "percentunit",
                [Query(mean("nestvec_batch_packing_ratio"), "{{model}}")],
            ),
            Chart(
                "How far times were foreseen wrongly",
                "percentunit",
                quantiles("nestvec_batch_prediction_error_ratio"),
            ),
        ),
    ),
    Section(
        "Vectors",
        (
            Chart(
                "Dimensions asked for",
                "cps",
                [Query(rate("nestvec_vectors_total", "dimensions"), "{{dimensions}}")],
                "What an index could be cut to, if nobody asks for more.",
            ),
            Chart(
                "Dtypes asked for",
                "cps",
                [Query(rate("nestvec_vectors_total", "dtype"), "{{dtype}}")],
            ),
            Chart(
                "Prompts",
                "cps",
                [Query(rate("nestvec_prompted_vectors_total", "prompt"), "{{prompt}}")],
            ),
            Chart(
                "Inputs that were cut",
                "percentunit",
                [
                    Query(
                        share(rate("nestvec_truncated_inputs_total"), rate("nestvec_inputs_total")),
                        "{{model}}",
                    )
                ],
                "The end of these texts is not in their vectors.",
            ),
            Chart(
                "Tokens cut off",
                "cps",
                [Query(rate("nestvec_truncated_tokens_total"), "{{model}}")],
            ),
            Chart(
                "Inputs read in windows",
                "cps",
                [Query(rate("nestvec_windowed_inputs_total"), "{{model}}")],
            ),
        ),
    ),
    Section(
        "Vector cache",
        (
            Chart(
                "Hits",
                "percentunit",
                [
                    Query(
                        share(
                            rate("nestvec_vector_cache_hits_total", "instance", SERVER),
                            rate("nestvec_vector_cache_hits_total", "instance", SERVER)
                            + " + "
                            + rate("nestvec_vector_cache_misses_total", "instance", SERVER),
                        ),
                        "{{instance}}",
                    )
                ],
            ),
            Chart(
                "Tokens that were not run",
                "cps",
                [
                    Query(
                        rate("nestvec_vector_cache_saved_tokens_total", "instance", SERVER),
                        "{{instance}}",
                    )
                ],
            ),
            Chart(
                "Memory",
                "bytes",
                [
                    Query(gauge("nestvec_vector_cache_bytes", "instance", SERVER), "{{instance}}"),
                    Query(
                        gauge("nestvec_vector_cache_limit_bytes", "instance", SERVER),
                        "{{instance}} limit",
                    ),
                ],
            ),
        ),
    ),
)

WORK: Final = (
    Section(
        "Keys",
        (
            Chart(
                "Requests",
                "reqps",
                [Query(rate("nestvec_key_requests_total", "key_id", SERVER), "{{key_id}}")],
            ),
            Chart(
                "Tokens",
                "cps",
                [Query(rate("nestvec_key_tokens_total", "key_id", SERVER), "{{key_id}}")],
            ),
            Chart(
                "Refused by limits",
                "reqps",
                [
                    Query(
                        rate("nestvec_rate_limited_total", "key_id, reason", SERVER),
                        "{{key_id}} {{reason}}",
                    )
                ],
            ),
        ),
    ),
    Section(
        "Batches",
        (
            Chart(
                "Not ended",
                "short",
                [Query(f"max by (status) (nestvec_batch_jobs{{{SERVER}}})", "{{status}}")],
                "Servers that share a database all show the same: the maximum, not the sum.",
            ),
            Chart(
                "Age of the oldest",
                "s",
                [Query(f"max(nestvec_batch_job_oldest_seconds{{{SERVER}}})", "oldest")],
            ),
            Chart(
                "Lines",
                "cps",
                [Query(rate("nestvec_batch_job_lines_total", "outcome", SERVER), "{{outcome}}")],
            ),
            Chart(
                "Chunks begun, and lost to another server",
                "cps",
                [
                    Query(
                        rate("nestvec_batch_job_claims_total", "instance", SERVER), "{{instance}}"
                    ),
                    Query(
                        rate("nestvec_batch_job_claims_lost_total", "instance", SERVER),
                        "{{instance}} lost",
                    ),
                ],
            ),
            Chart(
                "Stored files",
                "bytes",
                [Query(f"max(nestvec_stored_files_bytes{{{SERVER}}})", "stored")],
            ),
        ),
    ),
    Section(
        "Models",
        (
            Chart(
                "In memory",
                "short",
                [Query(f"max by (model) (nestvec_model_loaded{{{MODEL}}})", "{{model}}")],
            ),
            Chart(
                "Loads and unloads",
                "short",
                [
                    Query(
                        f"sum by (model, outcome) (increase(nestvec_model_loads_total{{{MODEL}}}[$__rate_interval]))",
                        "{{model}} {{outcome}}",
                    )
                ],
            ),
            Chart(
                "What is served",
                "short",
                [
                    Query(
                        "max by (model, precision, provider, dimensions, space) "
                        f"(nestvec_model_info{{{MODEL}}})",
                        "{{model}} {{precision}} {{provider}} {{dimensions}} {{space}}",
                    )
                ],
            ),
        ),
    ),
)

MACHINE: Final = (
    Section(
        "Processes",
        (
            Chart(
                "Memory",
                "bytes",
                [
                    Query(
                        f"max by (instance, role) (nestvec_process_resident_memory_bytes{{{SERVER}}})",
                        "{{instance}} {{role}}",
                    ),
                    Query(
                        f"max by (instance) (nestvec_memory_limit_bytes{{{SERVER}}})",
                        "{{instance}} limit",
                    ),
                ],
            ),
            Chart(
                "How late the event loop is",
                "s",
                quantiles("nestvec_event_loop_lag_seconds", "instance", SERVER),
            ),
            Chart(
                "Restarts, and hangs among them",
                "short",
                [
                    Query(
                        f"sum by (role) (increase(nestvec_process_restarts_total{{{SERVER}}}[$__range]))",
                        "{{role}} restarts",
                    ),
                    Query(
                        f"sum by (role) (increase(nestvec_process_hangs_total{{{SERVER}}}[$__range]))",
                        "{{role}} hangs",
                    ),
                ],
            ),
            Chart(
                "Threads that tokenise and finish",
                "percentunit",
                [
                    Query(
                        share(
                            gauge("nestvec_front_busy_threads", "instance", SERVER),
                            gauge("nestvec_front_threads", "instance", SERVER),
                        ),
                        "{{instance}}",
                    )
                ],
            ),
            Chart(
                "Connections that were closed on callers",
                "cps",
                [Query(rate("nestvec_refused_connections_total", "reason", SERVER), "{{reason}}")],
            ),
            Chart(
                "Quarantined, suspect, overdue",
                "short",
                [
                    Query(
                        gauge("nestvec_quarantined_inputs", "instance", SERVER),
                        "{{instance}} quarantined",
                    ),
                    Query(
                        gauge("nestvec_suspect_inputs", "instance", SERVER), "{{instance}} suspect"
                    ),
                    Query(
                        gauge("nestvec_engine_overdue_seconds", "instance", SERVER),
                        "{{instance}} seconds overdue",
                    ),
                ],
            ),
        ),
    ),
    Section(
        "GPUs",
        (
            Chart(
                "GPUs at work",
                "percentunit",
                [Query(f"nestvec_gpu_utilization_ratio{{{SERVER}}}", "{{instance}} {{device}}")],
                maximum=1.0,
            ),
            Chart(
                "Memory of each",
                "bytes",
                [
                    Query(f"nestvec_gpu_memory_used_bytes{{{SERVER}}}", "{{instance}} {{device}}"),
                    Query(
                        f"nestvec_gpu_memory_total_bytes{{{SERVER}}}",
                        "{{instance}} {{device}} total",
                    ),
                ],
            ),
            Chart(
                "Temperature and power",
                "short",
                [
                    Query(
                        f"nestvec_gpu_temperature_celsius{{{SERVER}}}", "{{instance}} {{device}} °C"
                    ),
                    Query(f"nestvec_gpu_power_watts{{{SERVER}}}", "{{instance}} {{device}} W"),
                ],
            ),
        ),
    ),
)

DASHBOARDS: Final = {
    "overview": ("Nestvec: overview", OVERVIEW),
    "serving": ("Nestvec: serving", SERVING),
    "work": ("Nestvec: keys, batches, models", WORK),
    "machine": ("Nestvec: processes and GPUs", MACHINE),
}


def build(name: str) -> str:
    """Return a dashboard as Grafana's JSON."""
    title, sections = DASHBOARDS[name]
    builder = (
        dashboard.Dashboard(title)
        .uid(f"nestvec-{name}")
        .tags(["nestvec"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
    )
    for label, metric in (
        ("job", "nestvec_ready"),
        ("instance", "nestvec_ready"),
        ("model", "nestvec_model_info"),
    ):
        builder = builder.with_variable(
            dashboard.QueryVariable(label)
            .label(label)
            .datasource(SOURCE)
            .query(f"label_values({metric}, {label})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(multi=True)
            .include_all(include_all=True)
            .all_value(".*")
        )
    y = 0
    for section in sections:
        builder = builder.with_row(
            dashboard.Row(section.title).grid_pos(GridPos(h=1, w=COLUMNS, x=0, y=y))
        )
        y += 1
        for number, chart in enumerate(section.charts):
            x = WIDTH * (number % (COLUMNS // WIDTH))
            y += HEIGHT if number and not x else 0
            builder = builder.with_panel(
                _panel(chart).grid_pos(GridPos(h=HEIGHT, w=WIDTH, x=x, y=y))
            )
        y += HEIGHT
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def _panel(chart: Chart) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(chart.title)
        .description(chart.description)
        .datasource(SOURCE)
        .unit(chart.unit)
        .min(0)
        .fill_opacity(10)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if chart.maximum is not None:
        panel = panel.max(chart.maximum)
    for number, query in enumerate(chart.queries):
        panel = panel.with_target(
            prometheus.Dataquery()
            .expr(query.expression)
            .legend_format(query.legend)
            .ref_id(chr(ord("A") + number))
            .range()
        )
    return panel


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for dashboard_name in DASHBOARDS:
        (FOLDER / f"{dashboard_name}.json").write_text(build(dashboard_name), "utf-8")
