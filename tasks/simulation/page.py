"""How does a simulation become a page? One HTML text in the style of the night's report."""

from __future__ import annotations

from pathlib import Path

from tasks.report import formats
from tasks.report.html import environment, stylesheet, whole_page
from tasks.report.render import CSS, Tile
from tasks.simulation.model import Simulation
from tasks.simulation.plots import cost_plot, gain_plot, timeline_plot


def render(simulation: Simulation) -> str:
    """The whole page; the same simulation gives the same bytes."""
    from markupsafe import Markup

    templates = environment(Path(__file__).parent)
    for plot in (timeline_plot, gain_plot, cost_plot):
        templates.globals[plot.__name__] = plot
    script = simulation.script
    noticed = sum(one.noticed_on is not None for one in simulation.incidents)
    planted = len(simulation.incidents)
    body = templates.get_template("simulation.html.j2").render(
        s=simulation,
        tiles=_tiles(simulation),
        badge=f"{noticed} of {planted} incidents noticed" if planted else "no incidents",
        tone="flat" if not planted else "good" if noticed == planted else "warn",
        refused=[one for one in simulation.trainings if one.refused_by],
    )
    css = stylesheet(templates, CSS, "simulation.css.j2")
    title = f"Simulation {script.first} to {script.last}"
    return whole_page(templates, title, css, Markup(body))  # noqa: S704 - the template has escaped every value


def _tiles(simulation: Simulation) -> list[Tile]:
    """One figure a policy."""
    return [
        Tile(
            f"NDCG@10, {one.policy}",
            f"{one.ndcg.value:.4f}",
            f"{formats.plural(one.trainings, 'training')}, {formats.seconds(one.cpu_seconds)} of CPU",
            _tone(one.gain.low, one.gain.high) if one.policy != "never" else "flat",
        )
        for one in simulation.policies
    ]


def _tone(low: float, high: float) -> str:
    """Whether a gain is one beyond chance."""
    return "good" if low > 0 else "bad" if high < 0 else "flat"
