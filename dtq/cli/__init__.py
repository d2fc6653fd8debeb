"""The `dtq` command: `commands` defines all subcommands; the longer ones print from modules of their own."""
