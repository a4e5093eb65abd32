"""Backbones: images to features at several strides."""
