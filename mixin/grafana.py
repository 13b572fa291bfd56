"""Build the JSON model of a Grafana dashboard from rows of panels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

#: Columns of Grafana's grid, and the height of each kind of panel in its rows.
_COLUMNS: Final = 24
_HEIGHTS: Final = {"stat": 4, "timeseries": 8, "table": 8}
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel; ``queries`` are pairs of an expression and the legend.

    ``bad_from`` is the value from which a stat is red.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    unit: str = "short"
    bad_from: float | None = None
    bad_below: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A dashboard: rows of panels of equal width, and the variables besides data source and job."""

    uid: str
    title: str
    rows: Sequence[Sequence[Panel]]
    variables: Sequence[tuple[str, str]] = ()


def document(board: Board) -> dict[str, Any]:
    """Return the JSON model of a dashboard."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in board.rows:
        width = _COLUMNS // len(row)
        height = max(_HEIGHTS[panel.kind] for panel in row)
        for place, panel in enumerate(row):
            at = {"x": place * width, "y": top, "w": width, "h": height}
            panels.append({"id": len(panels) + 1, "gridPos": at, **_panel(panel)})
        top += height
    variables = [("job", "label_values(celery_daemons_build_info, job)"), *board.variables]
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["celery", "celery_daemons"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_data_source(), *(_variable(name, query) for name, query in variables)]},
        "panels": panels,
    }


def expressions(board: Board) -> list[str]:
    """Return every expression of a dashboard."""
    return [expr for row in board.rows for panel in row for expr, _ in panel.queries]


def _panel(panel: Panel) -> dict[str, Any]:
    table = panel.kind == "table"
    found: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": expr,
                "legendFormat": legend,
                "instant": table,
                "format": "table" if table else "time_series",
            }
            for number, (expr, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": {"unit": panel.unit, **_thresholds(panel)}, "overrides": []},
    }
    if panel.kind == "stat":
        found["options"] = {"colorMode": "background", "reduceOptions": {"calcs": ["lastNotNull"]}}
    if table:
        hidden = ["Time", "Value", "__name__", "instance", "job"]
        found["transformations"] = [
            {"id": "organize", "options": {"excludeByName": dict.fromkeys(hidden, True)}},
        ]
    return found


def _thresholds(panel: Panel) -> dict[str, Any]:
    if panel.bad_from is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.bad_from}]
    elif panel.bad_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.bad_below}]
    else:
        steps = [{"color": "blue", "value": None}]
    return {"thresholds": {"mode": "absolute", "steps": steps}} if panel.kind == "stat" else {}


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
    }
