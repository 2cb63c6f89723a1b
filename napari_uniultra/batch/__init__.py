"""Labelling folders of loops: jobs, the engine that spreads them over processes and machines, and their report."""
