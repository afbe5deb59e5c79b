"""Which plots does the report show? Each takes a part of the report and gives one SVG drawing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from tasks.report import formats
from tasks.report.model import (
    BatchVerdict,
    DayCount,
    DriftResult,
    EvaluationResult,
    FeatureDrift,
    RatingCount,
    StalenessResult,
    TaskCost,
)
from tasks.report.svg import Canvas, Drawing, clip, ticks

FULL, HALF, ROW = 1040, 500, 24
MAX_DRIFT_BARS = 20


def score_plot(evaluation: EvaluationResult, metric: str) -> Drawing:
    """One metric of every contender: a dot at the mean, a line over the 95 % interval."""
    scores = [score for score in evaluation.scores if score.metric == metric]
    said = "; ".join(f"{s.contender} {s.value:.4f} ({s.low:.4f} to {s.high:.4f})" for s in scores)
    height = ROW * len(scores) + 30
    canvas = Canvas(HALF, height, f"{metric} by contender with 95 % intervals: {said}.")
    left, right = 138.0, HALF - 62.0
    scale = ticks(max(score.high for score in scores))
    step = (right - left) / scale[-1]
    for tick in scale:
        canvas.line(left + tick * step, 4, left + tick * step, height - 24, "grid")
        canvas.text(left + tick * step, height - 8, f"{tick:g}", "axis", anchor="middle")
    champion = evaluation.score("champion", metric)
    if champion is not None:
        canvas.line(left + champion.value * step, 4, left + champion.value * step, height - 24, "threshold")
    for place, score in enumerate(scores):
        y = ROW * place + ROW / 2 + 4
        kind = score.contender if score.contender in ("challenger", "champion") else "baseline"
        tip = f"{score.contender}: {score.value:.4f} ({score.low:.4f} to {score.high:.4f})"
        canvas.text(left - 12, y + 4, clip(score.contender, 20), "", anchor="end", tip=score.contender)
        canvas.line(left + max(score.low, 0) * step, y, left + score.high * step, y, f"interval {kind}", tip=tip)
        canvas.circle(left + score.value * step, y, 5, f"mark {kind}", tip=tip)
        canvas.text(HALF - 4, y + 4, f"{score.value:.4f}", "figure", anchor="end")
    return canvas.drawing()


def staleness_plot(staleness: StalenessResult, metric: str) -> Drawing:
    """One metric of the champions of earlier nights over the nights since: dots with their 95 % intervals, joined."""
    points = [(one, score) for one in staleness.champions if (score := one.score(metric)) is not None]
    said = "; ".join(f"{one.nights_ago} nights ago {s.value:.4f} ({s.low:.4f} to {s.high:.4f})" for one, s in points)
    height, left, right, base = 190.0, 52.0, HALF - 24.0, 150.0
    canvas = Canvas(HALF, height, f"{metric} of the champions of earlier nights on today's interactions: {said}.")
    scale = ticks(max(score.high for _, score in points), 3)
    rise = (base - 10) / scale[-1]
    nights = max(one.nights_ago for one, _ in points) or 1
    step = (right - left - 16) / nights
    for tick in scale:
        canvas.line(left, base - tick * rise, right, base - tick * rise, "grid")
        canvas.text(left - 8, base - tick * rise + 4, f"{tick:g}", "axis", anchor="end")
    for tick in ticks(nights, min(5, nights)):
        if tick <= nights and tick == int(tick):
            canvas.text(left + 16 + tick * step, base + 18, f"{tick:g}", "axis", anchor="middle")
    canvas.text((left + right) / 2, height - 4, "nights since it became champion", "axis", anchor="middle")
    places = [(left + 16 + one.nights_ago * step, base - score.value * rise) for one, score in points]
    canvas.path("M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places), "edge")
    for (one, score), (x, y) in zip(points, places, strict=True):
        tip = f"{one.name}, trained until {one.trained_until}: {score.value:.4f} ({score.low:.4f} to {score.high:.4f})"
        kind = "challenger" if one.nights_ago == 0 else "champion"
        canvas.line(x, base - max(score.low, 0) * rise, x, base - score.high * rise, f"interval {kind}", tip=tip)
        canvas.circle(x, y, 5, f"mark {kind}", tip=tip)
    return canvas.drawing()


def day_plot(days: Sequence[DayCount], marked: date) -> Drawing:
    """Ratings a day as columns over a true time axis, the report's own day in colour."""
    first, last = min(d.day for d in days), max(d.day for d in days)
    total = sum(d.count for d in days)
    peak = max(days, key=lambda d: d.count)
    label = f"Ratings a day from {first} to {last}: {total:,} in all, most on {peak.day} ({peak.count:,})."
    width, height, left, base = 660.0, 190.0, 44.0, 162.0
    canvas = Canvas(width, height, label)
    scale = ticks(peak.count, 3)
    rise = (base - 10) / scale[-1]
    for tick in scale:
        canvas.line(left, base - tick * rise, width, base - tick * rise, "grid")
        canvas.text(left - 8, base - tick * rise + 4, formats.count(tick), "axis", anchor="end")
    span = (last - first).days + 1
    slot = (width - left) / span
    every = max(1, -(-span // 6))
    for number in range(span):
        if number % every == 0:
            day = date.fromordinal(first.toordinal() + number)
            canvas.text(left + number * slot, height - 8, f"{day:%d %b}".lstrip("0"), "axis")
    for entry in days:
        x = left + (entry.day - first).days * slot
        kind = "bar marked" if entry.day == marked else "bar"
        bar = max(entry.count * rise, 1.0 if entry.count else 0.0)
        canvas.rect(x + slot * 0.1, base - bar, slot * 0.8, bar, kind, tip=f"{entry.day}: {entry.count:,}")
    return canvas.drawing()


def rating_plot(histogram: Sequence[RatingCount]) -> Drawing:
    """Ratings by stars as rows with their share."""
    rows = sorted(histogram, key=lambda r: -r.rating)
    total = sum(r.count for r in rows)
    said = ", ".join(f"{r.rating:g} stars {formats.share(r.count, total)}" for r in rows)
    pitch = 32.0 if len(rows) <= 5 else 18.0
    canvas = Canvas(340, pitch * len(rows) + 8, f"Ratings by stars: {said}.")
    top = max((r.count for r in rows), default=0) or 1
    for place, row in enumerate(rows):
        y = pitch * place + 6
        canvas.text(30, y + pitch / 2 + 1, f"{row.rating:g} ★", "", anchor="end")
        canvas.rect(42, y, 226 * row.count / top, pitch - 10, "bar", tip=f"{row.count:,}", radius=2)
        canvas.text(336, y + pitch / 2 + 1, formats.share(row.count, total), "figure", anchor="end")
    return canvas.drawing()


def drift_plot(drift: DriftResult) -> Drawing:
    """Population stability index by feature, largest first, against the threshold."""
    shown = largest_drift(drift)
    drifted = [f.feature for f in drift.features if f.drifted]
    label = (
        f"Population stability index of {len(shown)} features against the threshold {drift.threshold:g}: "
        f"{len(drifted)} drifted{': ' + ', '.join(drifted[:5]) if drifted else ''}."
    )
    height = ROW * len(shown) + 30
    canvas = Canvas(FULL, height, label)
    left, right = 250.0, FULL - 74.0
    scale = ticks(max(drift.threshold * 1.25, *(f.psi for f in shown)))
    step = (right - left) / scale[-1]
    for tick in scale:
        canvas.line(left + tick * step, 2, left + tick * step, height - 24, "grid")
        canvas.text(left + tick * step, height - 8, f"{tick:g}", "axis", anchor="middle")
    for place, feature in enumerate(shown):
        y = ROW * place + 4
        tip = f"{feature.feature}: {feature.psi:.4f}"
        canvas.text(left - 12, y + 13, clip(feature.feature, 36), "mono", anchor="end", tip=feature.feature)
        kind = "bar bad" if feature.drifted else "bar"
        canvas.rect(left, y + 1, max(feature.psi * step, 1), ROW - 9, kind, tip=tip, radius=2)
        canvas.text(FULL - 4, y + 13, formats.decimal(feature.psi), "figure", anchor="end")
    edge = left + drift.threshold * step
    canvas.line(edge, 0, edge, height - 24, "threshold bad", tip=f"threshold {drift.threshold:g}")
    return canvas.drawing()


def largest_drift(drift: DriftResult) -> list[FeatureDrift]:
    """The features that the plot shows: the largest indices, at most twenty, largest first."""
    return sorted(drift.features, key=lambda f: (-f.psi, f.feature))[:MAX_DRIFT_BARS]


def cost_plot(costs: Sequence[TaskCost]) -> Drawing:
    """When each task ran and for how long, and beside it the peak memory of each."""
    started = [c.started_at for c in costs if c.started_at is not None]
    origin = min(started) if started else None
    end = max((_offset(c, origin) + c.seconds for c in costs), default=0)
    peak = max(costs, key=lambda c: c.peak_mib)
    slowest = max(costs, key=lambda c: c.seconds)
    cached = sum(c.cached for c in costs)
    label = (
        f"{len(costs)} tasks over {formats.seconds(end)}: {cached} from the cache; longest {slowest.task} with "
        f"{formats.seconds(slowest.seconds)}; most memory {peak.task} with {formats.mebibytes(peak.peak_mib)}."
    )
    height = ROW * len(costs) + 54
    canvas = Canvas(FULL, height, label)
    left, right, memory_left, memory_right = 168.0, 660.0, 762.0, 958.0
    canvas.text(left, 14, "Seconds from the start", "heading")
    canvas.text(memory_left, 14, "Peak memory", "heading")
    floor = height - 24
    scale, sizes = ticks(end, 5), ticks(peak.peak_mib / 1024, 3)
    step, size_step = (right - left) / scale[-1], (memory_right - memory_left) / sizes[-1]
    for tick in scale:
        canvas.line(left + tick * step, 24, left + tick * step, floor, "grid")
        canvas.text(left + tick * step, height - 8, f"{tick:g}", "axis", anchor="middle")
    for tick in sizes:
        canvas.line(memory_left + tick * size_step, 24, memory_left + tick * size_step, floor, "grid")
        canvas.text(memory_left + tick * size_step, height - 8, f"{tick:g} GiB", "axis", anchor="middle")
    for place, cost in enumerate(costs):
        y = ROW * place + 28
        canvas.text(left - 12, y + 13, clip(cost.task, 22), "mono", anchor="end", tip=cost.task)
        if cost.cached:
            canvas.text(left + 4, y + 13, "from the cache", "quiet")
            continue
        tip = f"{cost.task}: {formats.seconds(cost.seconds)}, {formats.seconds(cost.cpu_seconds)} of CPU"
        x = left + _offset(cost, origin) * step
        canvas.rect(x, y + 1, max(cost.seconds * step, 1.5), ROW - 8, "bar marked", tip=tip, radius=2)
        canvas.text(732, y + 13, formats.seconds(cost.seconds), "figure", anchor="end")
        memory = cost.peak_mib / 1024 * size_step
        canvas.rect(memory_left, y + 1, memory, ROW - 8, "bar", tip=formats.mebibytes(cost.peak_mib), radius=2)
        canvas.text(FULL - 4, y + 13, formats.mebibytes(cost.peak_mib), "figure", anchor="end")
    return canvas.drawing()


def batch_plot(batch: BatchVerdict) -> Drawing:
    """Where the rows of one batch went, as one stacked bar; a part that is not empty is at least visible."""
    parts = [
        ("published", batch.rows_published, "good"),
        ("duplicates", batch.rows_duplicate, "flat"),
        ("quarantined", batch.rows_quarantined, "bad"),
    ]
    said = ", ".join(f"{rows:,} {name}" for name, rows, _ in parts)
    canvas = Canvas(150, 12, f"Of {batch.rows_in:,} rows of {batch.table}: {said}.")
    canvas.rect(0, 0, 150, 12, "track", radius=2)
    whole = sum(rows for _, rows, _ in parts)
    present = [(name, rows, kind) for name, rows, kind in parts if rows]
    room = 150 - 3 * len(present)
    x = 0.0
    for name, rows, kind in present:
        width = 3 + room * rows / whole
        canvas.rect(x, 0, width, 12, f"bar {kind}", tip=f"{rows:,} {name}")
        x += width
    return canvas.drawing()


def share_plot(field: str, counts: Sequence[tuple[str, int]]) -> Drawing:
    """How often each value was answered for one field of the LLM's output, most frequent first."""
    rows = sorted(counts, key=lambda c: (-c[1], c[0]))
    total = sum(number for _, number in rows)
    said = ", ".join(f"{value} {formats.share(number, total)}" for value, number in rows)
    canvas = Canvas(HALF, ROW * len(rows) + 6, f"Answers for {field}: {said}.")
    top = max((number for _, number in rows), default=0) or 1
    for place, (value, number) in enumerate(rows):
        y = ROW * place + 4
        canvas.text(124, y + 13, clip(value, 18), "", anchor="end", tip=value)
        canvas.rect(136, y + 1, 286 * number / top, ROW - 9, "bar", tip=f"{number:,}", radius=2)
        canvas.text(HALF - 4, y + 13, formats.share(number, total), "figure", anchor="end")
    return canvas.drawing()


def _offset(cost: TaskCost, origin: datetime | None) -> float:
    """Seconds from the first task's start to this one's."""
    if origin is None or cost.started_at is None:
        return 0.0
    return (cost.started_at - origin).total_seconds()
