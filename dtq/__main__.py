"""`python -m dtq` is the `dtq` command."""

from dtq.cli import main

main()
