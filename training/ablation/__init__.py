"""The paper's tables as runs that one command starts and collects."""
