"""Weight files of every framework, read, renamed and written without importing any of them."""

from portdet_convert.convert import convert
from portdet_convert.files import open_weights, sniff
from portdet_convert.load import LoadReport, load_canonical
from portdet_convert.report import Report

__all__ = ["LoadReport", "Report", "convert", "load_canonical", "open_weights", "sniff"]
