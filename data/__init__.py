"""Training data that needs no download. Installed as `tasks.data`; README.md describes the formats."""
