"""What it runs on: processes, energy, GPUs."""

from typing import Final

from charts import (
    SERVER,
    Chart,
    Query,
    Section,
    gauge,
    quantiles,
    rate,
    share,
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
                "Spans of traces that were lost",
                "cps",
                [Query(rate("nestvec_lost_spans_total", "reason", SERVER), "{{reason}}")],
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
