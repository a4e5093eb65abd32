"""Holding backends against each other: the same detector, trained side by side."""
