"""The mixin: rendered files are up to date, expressions parse and name series that exist, alerts have a runbook."""

import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml

from celery_daemons.node.series import SERIES
from tests.support.pages import DOCS, anchors

mixin_main = pytest.importorskip("mixin.__main__", reason="the wheel has no mixin")
from mixin import grafana, rules  # noqa: E402
from mixin.boards import BOARDS  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
#: What the table of series is on the page of metrics: a histogram has three families of lines, a summary two.
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count"), "gauge": ("",), "counter": ("",)}
SCRAPED = {series.full_name + suffix: series for series in SERIES.values() for suffix in SUFFIXES[series.kind]}
RECORDED = {rule.name for rule in rules.RECORDINGS}
#: What Prometheus adds to each series.
TARGET_LABELS = {"job", "instance", "le"}

EXPRESSIONS = [
    *((f"alert {alert.name}", alert.expr) for alert in rules.ALERTS),
    *((f"rule {rule.name}", rule.expr) for rule in rules.RECORDINGS),
    *((f"board {name}", expr) for name, board in BOARDS.items() for expr in grafana.expressions(board)),
]


def selectors(expr: object) -> Iterator[promql_parser.VectorSelector]:
    """Yield each selector of a parsed expression."""
    if isinstance(expr, promql_parser.VectorSelector):
        yield expr
        return
    if isinstance(expr, promql_parser.MatrixSelector):
        yield from selectors(expr.vector_selector)
        return
    for name in ("expr", "lhs", "rhs", "param"):
        yield from selectors(getattr(expr, name)) if hasattr(expr, name) else ()
    for argument in getattr(expr, "args", None) or ():
        yield from selectors(argument)


@pytest.mark.parametrize("name", list(mixin_main.rendered()))
def test_every_rendered_file_is_up_to_date(name: str) -> None:
    assert (mixin_main.FOLDER / name).read_text() == mixin_main.rendered()[name], "run python -m mixin"


def test_no_other_file_is_among_the_rendered_ones() -> None:
    assert {path.name for path in mixin_main.FOLDER.iterdir()} == mixin_main.rendered().keys()


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS, ids=lambda value: str(value)[:60])
def test_every_expression_parses_and_names_series_and_labels_that_exist(where: str, expr: str) -> None:
    found = list(selectors(promql_parser.parse(expr)))

    assert found, f"{where} selects nothing"
    for selector in found:
        name = selector.name
        assert name in SCRAPED or name in RECORDED, f"{where}: {name}"
        if name in SCRAPED:
            used = {matcher.name for matcher in selector.matchers.matchers} - {"__name__"}
            assert used <= TARGET_LABELS | set(SCRAPED[name].labels), f"{where}: {used}"


def test_every_rule_that_is_recorded_is_used() -> None:
    text = "\n".join(expr for where, expr in EXPRESSIONS if not where.startswith("rule"))

    # Two are for people and for other dashboards: there is only one series per job.
    assert {name for name in RECORDED if name not in text} == set()


@pytest.mark.parametrize("alert", rules.ALERTS, ids=lambda alert: alert.name)
def test_every_alert_links_to_a_section_of_the_runbook_that_says_what_to_do(alert: rules.Alert) -> None:
    path, _, anchor = alert.runbook.partition("#")
    runbook = ROOT / path

    assert anchor in anchors(runbook)
    section = runbook.read_text().split(f"## {alert.full_name}\n")[1].split("\n## ")[0]
    for part in ("**Meaning.**", "**Diagnosis.**", "**Mitigation.**"):
        assert part in section
    assert "```sh" in section


def test_the_runbook_has_no_section_without_an_alert() -> None:
    headings = re.findall(r"^## (CeleryDaemons\w+)$", (DOCS / "how-to" / "runbook.md").read_text(), re.MULTILINE)

    assert headings == [alert.full_name for alert in rules.ALERTS]


def test_the_rules_are_what_prometheus_reads() -> None:
    document = yaml.safe_load((mixin_main.FOLDER / "rules.yaml").read_text())

    assert document == rules.document()


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.uid)
def test_no_panel_of_a_dashboard_overlaps_another_or_leaves_the_grid(board: grafana.Board) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in grafana.document(board)["panels"]:
        at = panel["gridPos"]
        mine = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & mine
        assert max(x for x, _ in mine) < 24
        cells |= mine
