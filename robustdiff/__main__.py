"""Run the command line as `python -m robustdiff`."""

from robustdiff.cli.app import main

main()
