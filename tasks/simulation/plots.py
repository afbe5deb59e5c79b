"""Which plots does the simulation's page show? Everything over one axis of days; then what each policy won and cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from tasks.report import formats
from tasks.report.svg import Canvas, Drawing, ticks
from tasks.simulation.model import PolicyName, Served, Simulation
from tasks.simulation.summary import trailing

FULL, HALF, ROW = 1040, 500, 24
#: Days whose users are averaged for one point of a line: MovieLens has some ten users a day.
SMOOTHED_DAYS = 7
LEFT, RIGHT = 62.0, FULL - 84.0
#: Heights of the panels.
_INCIDENT_ROW, _QUALITY, _DRIFT, _TRAINING_ROW, _GAP = 22.0, 230.0, 84.0, 22.0, 34.0


class _Days:
    """Where a day stands."""

    def __init__(self, first: date, last: date) -> None:
        self.first, self.last = first, last
        self._step = (RIGHT - LEFT) / max((last - first).days, 1)

    def x(self, day: date) -> float:
        return LEFT + max((day - self.first).days, 0) * self._step

    def axis(self) -> list[date]:
        """About eight days to write down."""
        span = (self.last - self.first).days
        every = max(1, -(-span // 8))
        return [date.fromordinal(self.first.toordinal() + n) for n in range(0, span + 1, every)]


def timeline_plot(simulation: Simulation) -> Drawing:
    """Incidents, quality, drift and trainings, one under the other over the same days."""
    script, incidents = simulation.script, simulation.incidents
    policies = [summary.policy for summary in simulation.policies]
    days = _Days(script.first, script.last)
    top = len(incidents) * _INCIDENT_ROW + (_GAP if incidents else 0.0)
    drift_top = top + _QUALITY + _GAP
    rows_top = drift_top + _DRIFT + _GAP
    height = rows_top + len(policies) * _TRAINING_ROW + 30
    canvas = Canvas(FULL, height, _said(simulation))
    floor = height - 26
    for day in days.axis():
        canvas.line(days.x(day), top, days.x(day), floor, "grid")
        canvas.text(days.x(day), height - 8, f"{day:%d %b}".lstrip("0"), "axis", anchor="middle")
    for incident in incidents:
        canvas.line(days.x(incident.day), 0, days.x(incident.day), floor, "begins")
    _incidents(canvas, simulation, days)
    if policies:
        _quality(canvas, simulation, days, policies, top)
    _drift(canvas, simulation, days, drift_top)
    _trainings(canvas, simulation, days, policies, rows_top)
    return canvas.drawing()


def gain_plot(simulation: Simulation) -> Drawing:
    """What each policy has over the model that is never retrained: a dot at the mean, a line over the interval."""
    rows = [summary for summary in simulation.policies if summary.policy != "never"]
    said = "; ".join(f"{r.policy} {r.gain.value:+.4f} ({r.gain.low:+.4f} to {r.gain.high:+.4f})" for r in rows)
    height = ROW * len(rows) + 30
    canvas = Canvas(HALF, height, f"NDCG@10 over the model that is never retrained, with 95 % intervals: {said}.")
    left, right = 76.0, HALF - 66.0
    reach = ticks(max(abs(bound) for r in rows for bound in (r.gain.low, r.gain.high)), 2)
    middle, step = (left + right) / 2, (right - left) / 2 / reach[-1]
    for tick in sorted({*reach, *(-value for value in reach)}):
        canvas.line(middle + tick * step, 4, middle + tick * step, height - 24, "grid")
        canvas.text(middle + tick * step, height - 8, formats.signed(tick, 2) if tick else "0", "axis", anchor="middle")
    canvas.line(middle, 4, middle, height - 24, "threshold")
    for place, row in enumerate(rows):
        y = ROW * place + ROW / 2 + 4
        tip = f"{row.policy}: {row.gain.value:+.4f} ({row.gain.low:+.4f} to {row.gain.high:+.4f})"
        kind = _kind(row.policy)
        canvas.text(left - 12, y + 4, row.policy, "", anchor="end")
        canvas.line(middle + row.gain.low * step, y, middle + row.gain.high * step, y, f"interval {kind}", tip=tip)
        canvas.circle(middle + row.gain.value * step, y, 5, f"mark {kind}", tip=tip)
        canvas.text(HALF - 4, y + 4, formats.signed(row.gain.value, 4), "figure", anchor="end")
    return canvas.drawing()


def cost_plot(simulation: Simulation) -> Drawing:
    """CPU seconds of each policy's trainings, and how many there were."""
    rows = simulation.policies
    said = "; ".join(f"{r.policy} {r.trainings} trainings, {r.cpu_seconds:.1f} s" for r in rows)
    canvas = Canvas(HALF, ROW * len(rows) + 30, f"CPU time of the trainings: {said}.")
    left, right = 76.0, HALF - 150.0
    most = max(row.cpu_seconds for row in rows) or 1.0
    for place, row in enumerate(rows):
        y = ROW * place + 4
        canvas.text(left - 12, y + 13, row.policy, "", anchor="end")
        width = max((right - left) * row.cpu_seconds / most, 1.5)
        canvas.rect(left, y + 2, width, ROW - 10, f"fill {_kind(row.policy)}", radius=2)
        words = f"{formats.seconds(row.cpu_seconds)}, {formats.plural(row.trainings, 'training')}"
        canvas.text(left + width + 8, y + 13, words, "figure")
    return canvas.drawing()


def _incidents(canvas: Canvas, simulation: Simulation, days: _Days) -> None:
    """A row an incident: from where it began to where it was noticed."""
    for place, incident in enumerate(simulation.incidents):
        y = place * _INCIDENT_ROW + _INCIDENT_ROW / 2
        begun = days.x(incident.day)
        until = days.last if incident.noticed_on is None else incident.noticed_on
        ended = days.x(until)
        canvas.line(begun, y, ended, y, "unnoticed", tip=incident.what)
        canvas.circle(begun, y, 5, "mark bad", tip=f"{incident.day}: {incident.kind}")
        if incident.noticed_on is None:
            words = f"{incident.kind}: not noticed"
        else:
            canvas.circle(ended, y, 5, "mark good", tip=f"{incident.noticed_on}: {incident.noticed_by}")
            wait = (incident.noticed_on - incident.day).days
            when = "the same day" if wait == 0 else f"after {formats.plural(wait, 'day')}"
            words = f"{incident.kind}: noticed {when} by {incident.noticed_by}"
        middle = (LEFT + RIGHT) / 2
        if begun > middle:
            canvas.text(begun - 11, y + 4, words, "", anchor="end")
        elif ended > middle:  # too near the edge to stand behind the bar
            canvas.text(begun + 9, y - 4, words, "")
        else:
            canvas.text(ended + 11, y + 4, words, "")


def _quality(canvas: Canvas, simulation: Simulation, days: _Days, policies: Sequence[PolicyName], top: float) -> None:
    """NDCG@10 of each policy, the mean of the last days."""
    lines = {name: trailing([s for s in simulation.served if s.policy == name], SMOOTHED_DAYS) for name in policies}
    known = [value for line in lines.values() for _, value in line if value is not None]
    scale = _between(min(known), max(known))
    base, rise = top + _QUALITY, _QUALITY / (scale[-1] - scale[0])
    canvas.text(0, top - 10, f"NDCG@10, users of the last {SMOOTHED_DAYS} days", "heading")
    for tick in scale:
        y = base - (tick - scale[0]) * rise
        canvas.line(LEFT, y, RIGHT, y, "grid")
        canvas.text(LEFT - 8, y + 4, f"{tick:g}", "axis", anchor="end")
    ends: list[tuple[float, PolicyName]] = []
    for name, line in lines.items():
        points = [
            (days.x(served.day), base - (value - scale[0]) * rise, served, value)
            for served, value in line
            if value is not None
        ]
        steps = " L".join(f"{x:.1f} {y:.1f}" for x, y, _, _ in points)
        canvas.path(f"M{steps}", f"line {_kind(name)}")
        for x, y, served, value in points:
            canvas.circle(x, y, 5, "hover", tip=_tip(name, served, value))
        ends.append((points[-1][1], name))
    for y, name in _apart(ends):
        canvas.text(RIGHT + 10, y + 4, name, f"label {_kind(name)}")


def _drift(canvas: Canvas, simulation: Simulation, days: _Days, top: float) -> None:
    """The largest index of each day against its bound."""
    from features.drift import THRESHOLD

    canvas.text(0, top - 10, "Drift: the largest PSI of all features, and without the planted shift", "heading")
    scale = ticks(max(THRESHOLD * 1.5, *(max(one.psi, one.unshifted_psi) for one in simulation.drift)), 3)
    base, rise = top + _DRIFT, _DRIFT / scale[-1]
    for tick in scale:
        canvas.line(LEFT, base - tick * rise, RIGHT, base - tick * rise, "grid")
        canvas.text(LEFT - 8, base - tick * rise + 4, f"{tick:g}", "axis", anchor="end")
    edge = base - THRESHOLD * rise
    canvas.line(LEFT, edge, RIGHT, edge, "threshold bad", tip=f"bound {THRESHOLD:g}")
    canvas.text(RIGHT + 10, edge + 4, f"bound {THRESHOLD:g}", "axis")
    for kind, values in (
        ("line unshifted", [one.unshifted_psi for one in simulation.drift]),
        ("line psi", [one.psi for one in simulation.drift]),
    ):
        points = zip(simulation.drift, values, strict=True)
        canvas.path("M" + " L".join(f"{days.x(one.day):.1f} {base - v * rise:.1f}" for one, v in points), kind)
    for one in simulation.drift:
        if one.drifted:
            tip = f"{one.day}: drift in {', '.join(one.drifted)}"
            canvas.circle(days.x(one.day), base - one.psi * rise, 3, "mark bad", tip=tip)


def _trainings(canvas: Canvas, simulation: Simulation, days: _Days, policies: Sequence[PolicyName], top: float) -> None:
    """A row a policy: a dot a training, full where it was promoted."""
    canvas.text(0, top - 10, "Trainings: full where promoted, a red ring where the gates refused", "heading")
    for place, name in enumerate(policies):
        y = top + place * _TRAINING_ROW + _TRAINING_ROW / 2
        canvas.text(LEFT - 8, y + 4, name, f"label {_kind(name)}", anchor="end")
        canvas.line(LEFT, y, RIGHT, y, "grid")
        made = [one for one in simulation.trainings if one.policy == name]
        for one in made:
            words = "promoted" if one.promoted else "refused by " + "; ".join(one.refused_by)
            kind = f"mark {_kind(name)}" if one.promoted else "ring"
            canvas.circle(days.x(one.day), y, 4.5, kind, tip=f"{one.day}, {one.cause}: {words}")
        canvas.text(RIGHT + 10, y + 4, f"{len(made)}", "figure")


def _said(simulation: Simulation) -> str:
    """The timeline in one sentence."""
    quality = ", ".join(f"{s.policy} {s.ndcg.value:.4f}" for s in simulation.policies)
    noticed = ", ".join(
        f"{one.kind} on {one.day} noticed on {one.noticed_on or 'no day'}" for one in simulation.incidents
    )
    return f"NDCG@10 by policy: {quality}. Incidents: {noticed or 'none'}."


def _tip(name: PolicyName, served: Served, value: float) -> str:
    return (
        f"{served.day}, {name}: {value:.4f}; that day {formats.plural(len(served.ndcg), 'user')}, "
        f"model of {served.model_until}"
    )


def _kind(name: PolicyName) -> str:
    """A policy's name as a class of the style sheet."""
    return name.replace(" ", "-")


def _between(low: float, high: float) -> list[float]:
    """Round numbers from below the lowest value to above the highest."""
    step = ticks(max(high - low, 0.01), 4)[1]
    first = int(low / step)
    return [step * n for n in range(first, int(high / step) + 2)]


def _apart(ends: Sequence[tuple[float, PolicyName]], least: float = 14.0) -> list[tuple[float, PolicyName]]:
    """Labels moved down until none covers another."""
    placed: list[tuple[float, PolicyName]] = []
    for y, name in sorted(ends):
        placed.append((max(y, placed[-1][0] + least) if placed else y, name))
    return placed
