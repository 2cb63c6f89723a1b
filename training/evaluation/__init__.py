"""Scores of models and of other tools' masks against the truth, and their report."""
