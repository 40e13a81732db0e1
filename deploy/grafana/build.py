"""Writes Grafana's dashboards of a Nestvec server: `make dashboards` puts them into `deploy/grafana/dashboards`.

What they show is in `panels/`; layout and Grafana's model are the SDK's part.
Source: https://grafana.github.io/grafana-foundation-sdk
"""

from pathlib import Path
from typing import Final

from charts import Chart
from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, GridPos, VariableRefresh
from panels import DASHBOARDS

FOLDER: Final = Path(__file__).parent / "dashboards"
COLUMNS: Final = 24
WIDTH: Final = 8
HEIGHT: Final = 8
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")


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
