"""Thin Qt panels and the one inference thread behind them."""
