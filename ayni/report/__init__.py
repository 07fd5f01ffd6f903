"""Plots, pages and the last screen, drawn from a run directory's files. Nothing is computed here."""

from ayni.report.page import build
from ayni.report.picture import overview_png
from ayni.report.screen import last_screen, print_samples

__all__ = ["build", "last_screen", "overview_png", "print_samples"]
