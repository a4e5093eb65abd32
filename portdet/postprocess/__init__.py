"""From a model's output to boxes: decoding rules and non-maximum suppression."""
