"""What moved the scores, as plots: the size of each input's contributions, and the contributions to one score."""

from __future__ import annotations

from tasks.report import formats
from tasks.report.model import ExplanationResult, WorkedExample
from tasks.report.svg import Canvas, Drawing, clip, ticks

WIDTH, ROW = 500, 24
MAX_IMPORTANCE_BARS = 12


def importance_plot(explanations: ExplanationResult) -> Drawing:
    """The largest inputs: a dot at the mean size of the contributions, a line over the 95 % interval."""
    shown = explanations.importances[:MAX_IMPORTANCE_BARS]
    said = "; ".join(f"{s.contender} {s.value:.3f} ({s.low:.3f} to {s.high:.3f})" for s in shown)
    height = ROW * len(shown) + 30
    canvas = Canvas(WIDTH, height, f"Mean size of the contributions by input with 95 % intervals: {said}.")
    left, right = 190.0, WIDTH - 62.0
    scale = ticks(max(score.high for score in shown))
    step = (right - left) / scale[-1]
    for tick in scale:
        canvas.line(left + tick * step, 4, left + tick * step, height - 24, "grid")
        canvas.text(left + tick * step, height - 8, f"{tick:g}", "axis", anchor="middle")
    for place, score in enumerate(shown):
        y = ROW * place + ROW / 2 + 4
        tip = f"{score.contender}: {score.value:.3f} ({score.low:.3f} to {score.high:.3f})"
        canvas.text(left - 12, y + 4, clip(score.contender, 25), "mono", anchor="end", tip=score.contender)
        canvas.line(left + score.low * step, y, left + score.high * step, y, "interval challenger", tip=tip)
        canvas.circle(left + score.value * step, y, 5, "mark challenger", tip=tip)
        canvas.text(WIDTH - 4, y + 4, formats.decimal(score.value), "figure", anchor="end")
    return canvas.drawing()


def contribution_plot(example: WorkedExample) -> Drawing:
    """What lifts the film and what holds it down, the largest first, then all else, and the margin that they make."""
    rows = [(part.what, part.value, "" if part.history else "mono") for part in example.contributions]
    rows.append(("all else", example.rest, ""))
    said = "; ".join(f"{what} {formats.signed(value)}" for what, value, _ in rows)
    canvas = Canvas(WIDTH, ROW * (len(rows) + 1) + 6, f"What makes {formats.signed(example.margin)}: {said}.")
    left, right = 214.0, WIDTH - 66.0
    low, high = min(0.0, *(value for _, value, _ in rows)), max(0.0, *(value for _, value, _ in rows))
    step = (right - left) / ((high - low) or 1)
    zero = left - low * step
    canvas.line(zero, 2, zero, ROW * len(rows) + 2, "grid")
    for place, (what, value, kind) in enumerate(rows):
        y = ROW * place + 4
        tip = f"{what}: {formats.signed(value)}"
        bar = "bar good" if value >= 0 else "bar bad"
        canvas.text(left - 12, y + 13, clip(what, 27), kind, anchor="end", tip=what)
        canvas.rect(min(zero, zero + value * step), y + 1, abs(value) * step, ROW - 9, bar, tip=tip, radius=2)
        canvas.text(WIDTH - 4, y + 13, formats.signed(value), "figure", anchor="end")
    y = ROW * len(rows) + 4
    canvas.text(left - 12, y + 13, "together", "strong", anchor="end")
    canvas.text(WIDTH - 4, y + 13, formats.signed(example.margin), "figure strong", anchor="end")
    return canvas.drawing()
