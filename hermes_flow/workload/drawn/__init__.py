"""Descriptions of loads in files of other tools, from which requests are drawn. Each module is one format."""

from __future__ import annotations

from hermes_flow.workload.drawn.drawn_format import draw_from, drawn_formats

__all__ = ["draw_from", "drawn_formats"]
