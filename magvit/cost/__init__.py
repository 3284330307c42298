"""The cost of a program on a chip: memory, operations and traffic."""
