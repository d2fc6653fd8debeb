"""The `dtq` command: `commands` has them all; what a person sees of the longer ones is in a module each."""
