"""Public data sets, one file each, as rows of a manifest."""
