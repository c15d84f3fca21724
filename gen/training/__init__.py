"""Training: a task, the loop, a step, validation, the run folder."""
