"""The version of this program, which what it writes names.

Exports and results outlive the program that wrote them. It stands here, below
everything that writes; `magvit.__version__` is the same.
"""

VERSION = "0.1.0"
