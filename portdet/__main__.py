"""`python -m portdet`."""

from portdet.cli.__main__ import main

main()
