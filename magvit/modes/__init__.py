"""The commands of main.py, one file a mode; `table.py` lists them.

Each file has a frozen dataclass `Options`, whose fields are the mode's flags,
and `run(options, config, workdir)`; `config` is what --config gives, or None.
Class variables of Options say what else a mode needs: SUBJECT is the flag that
all the others belong to, NEEDS_CONFIG and NEEDS_WORKDIR what it cannot lack.
"""
