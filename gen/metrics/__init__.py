"""How good outputs are, and what that looks like. Knows no torch."""
