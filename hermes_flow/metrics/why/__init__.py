"""Explains a run: the causes of a missed bound, the resource behind them, the headroom of a met SLO."""
