"""Trained and exported models behind the interfaces people already use; `gen serve` starts it.

Imports no torch. `engine` is the continuous batching, `models` what is served, `app` the HTTP side; the interfaces
are `openai`, `libretranslate` and `api`, our own.
"""
