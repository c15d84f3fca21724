"""Metrics of outputs, the Markov chain as a baseline, and plots. Needs no torch."""
