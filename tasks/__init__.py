"""The tasks: how each reads its data, trains the shared model, and is used from the command line."""
