"""Networks, their configurations, and the files their weights come in."""
