"""Run the command line as ``python -m bayescale``."""

from bayescale.cli import main

main()
