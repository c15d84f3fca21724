"""What the toolkit can train on without a download. Installed as `tasks.data`; see README.md for formats."""
