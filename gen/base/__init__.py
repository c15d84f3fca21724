"""Foundations: errors, configuration, atomic files, text and tables. Needs no torch."""
