"""`make soak`: hours of bad luck; `python -m tests.soak --help` says which. test_fuzz.py runs a little of each."""
