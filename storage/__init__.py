"""Files that are whole or absent; folders of parts that resume and are shared.

This wing is a leaf: it imports nothing else of the project.
"""
