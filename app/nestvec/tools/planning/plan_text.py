"""A plan as text and as JSON."""

import json
from collections.abc import Callable
from dataclasses import asdict

from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.sizing import ServerPlan

BytesText = Callable[[float], str]
HOUR_S, MINUTE_S = 3600, 60


def plan_table(plan: ServerPlan, machine: MachineCoefficients, bytes_text: BytesText) -> str:
    """Write a plan as lines of a word and what it stands for."""
    goal, fleet = plan.goal, plan.fleet
    low, high = goal.tokens
    tokens = f"{low}" if low == high else f"{low} to {high}"
    rows = [
        (
            "load",
            f"{goal.requests_per_s:,.6g} requests/s of {goal.texts_per_request} texts, {tokens} tokens each",
        ),
        ("machine", f"{machine.machine}; measured on {machine.measured_on}"),
        ("model", f"{machine.model}, {machine.precision}"),
        (
            "replicas",
            f"{plan.servers:,} ({fleet.replicas:,} for the load, {goal.spare_replicas} to spare), "
            f"each at most {fleet.capacity_requests_per_s:,.1f} requests/s; cores {fleet.busy_share:.0%} busy",
        ),
        ("max_batch_tokens", f"{fleet.max_batch_tokens}"),
        (
            "latency",
            f"p50 {1000 * fleet.p50_s:.1f} ms, p99 {1000 * fleet.p99_s:.1f} ms, simulated ({goal.policy}); "
            f"asked for {1000 * goal.p99_s:g} ms",
        ),
        (
            "memory",
            f"{bytes_text(plan.server_bytes)} a replica, {bytes_text(plan.servers * plan.server_bytes)} in all",
        ),
    ]
    if goal.corpus_vectors:
        rows += [
            (
                "store",
                f"{bytes_text(plan.vectors_bytes)} of vectors ({goal.corpus_vectors:,} x {goal.dimensions} "
                f"{goal.dtype}), {bytes_text(plan.hnsw_bytes)} more for an HNSW index of 32 neighbours",
            ),
            ("corpus", f"embedded in {_time_text(plan.corpus_s)} by these replicas, else idle"),
        ]
    if plan.cost_per_million_texts is None or plan.least_cost_per_million_texts is None:
        rows.append(("cost", "unknown: give --price-per-hour, the price of a machine"))
    else:
        rows.append(
            (
                "cost",
                f"{plan.cost_per_million_texts:.4g} per million texts at this load, "
                f"{plan.least_cost_per_million_texts:.4g} at full load",
            )
        )
    if goal.cells > 1:
        rows.append(
            (
                "cells",
                f"{goal.cells}, simulated as one: {fleet.replicas // goal.cells} replicas behind each balancer",
            )
        )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def plan_json(plan: ServerPlan, machine: MachineCoefficients) -> str:
    """Write a plan as JSON, with the coefficients that it was made from."""
    content = {"plan": asdict(plan), "coefficients": machine.model_dump(mode="json")}
    return json.dumps(content, indent=1)


def _time_text(seconds: float) -> str:
    """Write a duration as people do."""
    if seconds >= HOUR_S:
        return f"{seconds / HOUR_S:,.1f} h"
    return f"{seconds / MINUTE_S:,.1f} min" if seconds >= MINUTE_S else f"{seconds:.1f} s"
