"""Processes: their own ones, the cores and folders that they have, what they leave, and whether they still live."""
