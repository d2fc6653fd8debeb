#!/usr/bin/env python
"""Puts the queue under load and reports how fast it was: `dtq stress` by another name.

python scripts/stress_test.py --tasks 500
"""

import sys

from dtq.cli.commands import main

if __name__ == "__main__":
    main(["stress", *sys.argv[1:]], prog_name="dtq")
