"""Losses, as spec functions."""
