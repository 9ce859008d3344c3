"""`python -m foveate.cli` is the command `foveate`."""

from foveate.cli import main

main()
