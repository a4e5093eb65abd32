"""Necks: features at several strides to one feature for each output, coarsest first."""
