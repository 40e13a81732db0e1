"""Where the time of requests goes: stages, queue, micro-batches, vectors, cache."""

from typing import Final

from charts import (
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

STAGES: Final = "nestvec_request_stage_duration_seconds"

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
