"""Metrics of several processes as one.

The processes of a server share a folder of mapped files (prometheus-client's multiprocess mode), so that any of them
answers a scrape for all, and what a killed process had counted is not lost.
"""

import os
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, multiprocess, values

# prometheus-client's own variable.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def share_metrics(folder: Path, role: str) -> None:
    """Count in a folder that several processes share; to be called before any metric is made.

    Args:
        folder: Folder of the running server, made anew with it.
        role: Role of this process; a process that takes the place of a dead one goes on with its counters.
    """
    os.environ[FOLDER_VARIABLE] = str(folder)
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: role)  # type: ignore[no-untyped-call] # the library has not typed it


def forget_gauges(folder: Path, role: str) -> None:
    """Drop the gauges of a process that has died: what they said no longer holds."""
    multiprocess.mark_process_dead(role, str(folder))  # type: ignore[no-untyped-call] # the library has not typed it


def is_shared() -> bool:
    """Whether this process counts in a shared folder."""
    return FOLDER_VARIABLE in os.environ


def registry_of_all() -> CollectorRegistry:
    """A registry of what all processes of the server have counted."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the library has not typed it
    return registry


def summed_gauge(registry: CollectorRegistry, name: str, text: str) -> Gauge:
    """A gauge whose values of several processes add up."""
    return Gauge(name, text, registry=registry, multiprocess_mode="livesum")
