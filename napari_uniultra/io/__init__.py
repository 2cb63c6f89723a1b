"""Files in and out: readers make a `Cine`, writers keep masks and measurements."""
