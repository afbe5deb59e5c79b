"""The nightly report: one page that says what the night did, from which data, at what cost."""

from __future__ import annotations

from tasks.report.model import NightReport
from tasks.report.render import render, render_fragment

__all__ = ["NightReport", "render", "render_fragment"]
