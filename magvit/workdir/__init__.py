"""The folder of a run: config, weights and exports."""
