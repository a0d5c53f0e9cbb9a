"""Measurements against references, both sides in the same run; ``make bench`` prints the table."""
