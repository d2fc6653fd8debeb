#!/usr/bin/env python
"""Soaks the queue: real processes under random faults, then an audit.

    python scripts/soak.py --minutes 10 --seed 7 --log soak.log

Its code is in the folder `soaking`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.soaking.command import main

if __name__ == "__main__":
    main()
