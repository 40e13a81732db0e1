"""Requests, and how full the server is: what an operator looks at first."""

from typing import Final

from charts import (
    CALLS,
    SERVER,
    Chart,
    Query,
    Section,
    gauge,
    quantiles,
    rate,
    share,
)

REQUESTS: Final = "nestvec_requests_total"

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
            Chart(
                "Time of an answer by dialect",
                "s",
                quantiles("nestvec_request_duration_seconds", "dialect", CALLS + ',outcome="ok"'),
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
