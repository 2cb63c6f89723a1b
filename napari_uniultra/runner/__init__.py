"""Training runs as processes of their own: made, queued, watched and used, without Qt and without torch."""
