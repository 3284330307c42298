"""The commands of main.py, one file a mode; `table.py` lists them.

`table.py` has for each a frozen dataclass, whose fields are the mode's flags,
and the file has `run(options, config, workdir)`; `config` is None without
--config. Class variables of the dataclass say more: SUBJECT names the flag
without which no other is read, NEEDS_CONFIG and NEEDS_WORKDIR whether the mode
needs that flag, READS_CONFIG whether it takes --config, and COMPUTES whether it
uses JAX, which takes seconds to import.
"""
