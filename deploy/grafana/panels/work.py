"""Who asks, and what runs behind: keys, batches, models."""

from typing import Final

from charts import (
    MODEL,
    SERVER,
    Chart,
    Query,
    Section,
    rate,
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
