"""The table of reports: what the command line, requests and docs know of them."""

from collections.abc import Mapping
from typing import Final

from nestvec.corpus.reports.frame import Report
from nestvec.corpus.reports.kinds import (
    bias,
    bitext,
    calibration,
    code,
    columns,
    compare,
    cost,
    drift,
    entities,
    leakage,
    numbers,
    outliers,
    quality,
    robustness,
    segments,
    tokens,
)
from nestvec.errors import InputError

REPORTS: Final[Mapping[str, Report]] = {
    module.REPORT.name: module.REPORT
    for module in (
        *(tokens, robustness, quality, compare, drift, outliers, segments, numbers, columns),
        *(entities, bitext, bias, code, calibration, leakage, cost),
    )
}


def find_report(name: str) -> Report:
    """Return a report by its name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in REPORTS:
        raise InputError(f"'report' must be one of: {', '.join(REPORTS)}", param="report")
    return REPORTS[name]
