"""Files that are whole or absent; folders of parts that resume and are shared.

A leaf: it imports nothing else of the project."""
