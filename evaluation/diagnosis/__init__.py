"""What is wrong with a run, by its metrics: a line for each fault."""
