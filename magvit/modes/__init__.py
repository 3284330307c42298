"""The commands of main.py, one file a mode."""
