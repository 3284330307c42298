"""The commands of main.py, one file a mode; `table.py` lists them.

Each file has a frozen dataclass `Options`, whose fields are the mode's flags,
and `run(options, config, workdir)`; `config` is None without --config. Class
variables of Options say more: SUBJECT names the flag without which no other is
read, NEEDS_CONFIG and NEEDS_WORKDIR whether the mode needs that flag, and
READS_CONFIG whether it takes --config.
"""
