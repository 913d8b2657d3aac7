"""Vega-Lite specifications of charts, made with Altair, for the pages and for the pictures of the documentation."""
