"""`python -m dtq` is the `dtq` command."""

from dtq.cli.commands import main

main()
