"""Commands that serve every task."""
