"""The dashboards: which panels, in which rows."""

from typing import Final

from charts import (
    CALLS,
    MODEL,
    SERVER,
    Chart,
    Query,
    Section,
    gauge,
    mean,
    quantile,
    quantiles,
    rate,
    share,
)

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
                "Errors by code",
                "reqps",
                [
                    Query(
                        rate("nestvec_request_errors_total", "model, code", SERVER),
                        "{{code}} {{model}}",
                    )
                ],
                "Without a model: refused before it was known which one was meant.",
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
            Chart(
                "Health checks, scrapes, pages",
                "reqps",
                [
                    Query(
                        rate("nestvec_operations_requests_total", "route, status", SERVER),
                        "{{route}} {{status}}",
                    )
                ],
                "What operators and their tools ask for; no other panel counts it.",
            ),
            Chart(
                "Unknown fields that were ignored",
                "cps",
                [Query(rate("nestvec_ignored_fields_total", "instance", SERVER), "{{instance}}")],
                "Clients mean something that this server does not do; their answers name the fields.",
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
                "Tokens run, of those that could be",
                "percentunit",
                [
                    Query(
                        share(
                            rate("nestvec_batch_tokens_sum"),
                            gauge("nestvec_capacity_tokens_per_second"),
                        ),
                        "{{model}}",
                    )
                ],
                "Of what the workers did when all were busy last. Small batches fall short of it.",
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
                [Query(gauge("nestvec_queue_seconds"), "{{model}}")],
            ),
            Chart(
                "Wait of the oldest",
                "s",
                [
                    Query(
                        f"max by (model, priority) (nestvec_queue_oldest_seconds{{{MODEL}}})",
                        "{{model}} {{priority}}",
                    )
                ],
            ),
            Chart(
                "Tokens that the workers can do",
                "cps",
                [Query(gauge("nestvec_capacity_tokens_per_second"), "{{model}}")],
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
        "Sizes of requests",
        (
            Chart("Inputs of a request", "short", quantiles("nestvec_request_inputs")),
            Chart("Tokens of a request", "short", quantiles("nestvec_request_tokens")),
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
                "Drift of texts: p",
                "short",
                [Query(f"nestvec_drift_p{{{MODEL}}}", "{{model}}")],
                "Of the test whether vectors given lately differ from the reference's; from 0.01 down they do.",
                maximum=1.0,
            ),
            Chart(
                "Drift of texts: distance",
                "short",
                [Query(f"nestvec_drift_distance{{{MODEL}}}", "{{model}}")],
                "How far they are from the reference's.",
            ),
            Chart(
                "Tokens cut off",
                "cps",
                [Query(rate("nestvec_truncated_tokens_total"), "{{model}}")],
            ),
            Chart(
                "Unknown tokens",
                "percentunit",
                [
                    Query(
                        share(rate("nestvec_unknown_tokens_total"), rate("nestvec_tokens_total")),
                        "{{model}}",
                    )
                ],
                "What the vocabulary lacks is not in the vectors: another language, script, or emoji.",
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
                            rate("nestvec_vector_cache_hits_total"),
                            rate("nestvec_vector_cache_hits_total")
                            + " + "
                            + rate("nestvec_vector_cache_misses_total"),
                        ),
                        "{{model}}",
                    )
                ],
            ),
            Chart(
                "Tokens that were not run",
                "cps",
                [Query(rate("nestvec_vector_cache_saved_tokens_total"), "{{model}}")],
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
                "Ended",
                "short",
                [
                    Query(
                        f"sum by (status) (increase(nestvec_batch_jobs_ended_total{{{SERVER}}}[$__rate_interval]))",
                        "{{status}}",
                    )
                ],
            ),
            Chart(
                "Stores that do not answer",
                "short",
                [
                    Query(
                        f"max by (instance) ({metric}{{{SERVER}}})",
                        f"{{{{instance}}}} {name}",
                    )
                    for metric, name in (
                        ("nestvec_batch_store_down", "batches"),
                        ("nestvec_usage_store_down", "use of keys"),
                        ("nestvec_rate_store_down", "rates of keys"),
                    )
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
                "Checks of vectors at loads",
                "short",
                [
                    Query(
                        f"sum by (model, outcome) (increase(nestvec_model_probes_total{{{MODEL}}}[$__rate_interval]))",
                        "{{model}} {{outcome}}",
                    )
                ],
                "A failed one: the graph gives other vectors here than where it was made.",
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
        "Energy",
        (
            Chart(
                "Power of the processors",
                "watt",
                [
                    Query(
                        rate("nestvec_energy_joules_total", "instance, zone", SERVER),
                        "{{instance}} {{zone}}",
                    )
                ],
                "Of the whole machine, where the system tells it (RAPL). Zones lie within one another.",
            ),
            Chart(
                "Power of the GPUs",
                "watt",
                [
                    Query(
                        rate("nestvec_gpu_energy_joules_total", "instance, device", SERVER),
                        "{{instance}} {{device}}",
                    )
                ],
                "A mean over the interval, by the cards' own counters of energy.",
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
