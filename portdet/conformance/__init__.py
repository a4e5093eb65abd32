"""The checklist of a backend: what it must compute, held against the numpy reference and closed forms."""
