"""How does the report become a page? Its template, the figures to read first, and the plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tasks.report import formats
from tasks.report.html import environment, stylesheet, whole_page
from tasks.report.lineage import lineage_plot
from tasks.report.model import NightReport
from tasks.report.plots import (
    MAX_DRIFT_BARS,
    batch_plot,
    cost_plot,
    day_plot,
    drift_plot,
    rating_plot,
    score_plot,
    share_plot,
    staleness_plot,
)
from tasks.report.reasons import MAX_IMPORTANCE_BARS, contribution_plot, importance_plot

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

CSS = "night.css.j2"
VERDICTS = {
    "promoted": ("Promoted", "good"),
    "registered": ("Registered, not promoted", "warn"),
    "kept": ("Champion kept", "flat"),
    "failed": ("Failed", "bad"),
}


class Tile(NamedTuple):
    """One figure at the top of the page. `tone`: good, warn, bad or flat."""

    label: str
    value: str
    note: str
    tone: str = "flat"


def render(report: NightReport) -> str:
    """The whole page. The same report gives the same bytes."""
    templates = _templates()
    title = f"{report.workflow} {report.day}: {VERDICTS[report.verdict][0]}"
    return whole_page(templates, title, stylesheet(templates, CSS), _body(templates, report))


def render_fragment(report: NightReport) -> str:
    """The same content without a page around it, for a Flyte deck: its styles reach nothing outside it."""
    templates = _templates()
    return f"<style>{stylesheet(templates, CSS)}</style>\n{_body(templates, report)}"


def headline_tiles(report: NightReport) -> list[Tile]:
    """The figures to read first; a part of the report that is empty has none."""
    tiles = []
    if report.evaluation is not None and report.evaluation.scores:
        metric = report.evaluation.metrics[0]
        challenger = report.evaluation.score("challenger", metric)
        champion = report.evaluation.score("champion", metric)
        if challenger is not None and champion is not None:
            gain = challenger.value - champion.value
            note = f"{formats.signed(gain, 4)} against the champion"
            tiles.append(Tile(metric, f"{challenger.value:.4f}", note, "good" if gain >= 0 else "warn"))
        elif challenger is not None:
            tiles.append(Tile(metric, f"{challenger.value:.4f}", "no champion to compare with"))
    if report.gates:
        failed = [gate.gate for gate in report.gates if not gate.passed]
        note = f"failed: {', '.join(failed)}" if failed else "all passed"
        passed = f"{len(report.gates) - len(failed)} / {len(report.gates)}"
        tiles.append(Tile("Gates passed", passed, note, "bad" if failed else "good"))
    if report.batches:
        rows = sum(batch.rows_published for batch in report.batches if batch.published)
        quarantined = sum(batch.rows_quarantined for batch in report.batches)
        refused = [batch.table for batch in report.batches if not batch.published]
        lost = [batch.table for batch in report.batches if not batch.conserved]
        note = f"{formats.count(quarantined)} quarantined"
        if refused:
            note += f"; refused: {', '.join(refused)}"
        tone = "bad" if refused or lost else "warn" if quarantined else "good"
        tiles.append(Tile("Rows published", formats.count(rows), note, tone))
    if report.drift is not None:
        drifted = sum(feature.drifted for feature in report.drift.features)
        note = "retraining" if report.drift.retrain else "no retraining"
        total = len(report.drift.features)
        tiles.append(Tile("Features drifted", f"{drifted} / {total}", note, "warn" if drifted else "good"))
    cached = sum(cost.cached for cost in report.costs)
    note = f"{formats.plural(len(report.costs), 'task')}, {cached} from the cache"
    tiles.append(Tile("Time", formats.seconds(report.seconds), note if report.costs else "tasks not measured"))
    if any(not cost.cached for cost in report.costs):
        peak = max(report.costs, key=lambda cost: cost.peak_mib)
        tiles.append(Tile("Peak memory", formats.mebibytes(peak.peak_mib), peak.task))
    return tiles


def _templates() -> Environment:
    templates = environment()
    plots = (score_plot, staleness_plot, day_plot, rating_plot, drift_plot, cost_plot, batch_plot, share_plot)
    reasons = (importance_plot, contribution_plot)
    for plot in (*plots, *reasons, lineage_plot):
        templates.globals[plot.__name__] = plot
    templates.globals |= {"MAX_DRIFT_BARS": MAX_DRIFT_BARS, "MAX_IMPORTANCE_BARS": MAX_IMPORTANCE_BARS}
    return templates


def _body(templates: Environment, report: NightReport) -> Markup:
    from markupsafe import Markup

    words, tone = VERDICTS[report.verdict]
    text = templates.get_template("night.html.j2").render(
        r=report,
        verdict=words,
        tone=tone,
        tiles=headline_tiles(report),
        quality=_quality(report),
        shares=_shares(report),
    )
    return Markup(text)  # noqa: S704 - the template has escaped every value


class QualityTable(NamedTuple):
    """One table's metrics as a grid. `whole`: (metric, value) of the table; `cells`: (column, metric) to value."""

    table: str
    version: int
    metrics: list[str]
    columns: list[str]
    whole: list[tuple[str, float]]
    cells: dict[tuple[str, str], float]


def _quality(report: NightReport) -> list[QualityTable]:
    grids = []
    for table, version in dict.fromkeys((m.table, m.version) for m in report.quality):
        rows = [m for m in report.quality if (m.table, m.version) == (table, version)]
        cells = [m for m in rows if m.column != "*"]
        grids.append(
            QualityTable(
                table,
                version,
                sorted({m.metric for m in cells}),
                list(dict.fromkeys(m.column for m in cells)),
                [(m.metric, m.value) for m in rows if m.column == "*"],
                {(m.column, m.metric): m.value for m in cells},
            )
        )
    return grids


def _shares(report: NightReport) -> dict[str, list[tuple[str, int]]]:
    shares: dict[str, list[tuple[str, int]]] = {}
    for entry in report.llm.shares if report.llm else ():
        shares.setdefault(entry.field, []).append((entry.value, entry.count))
    return shares
