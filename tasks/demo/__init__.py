"""`gen demo`."""
