"""Makes a worker's handlers sign the ledger of executions: `dtq worker --tasks dtq.lab.witness.ledger_hook`.

Only task types that are registered by then sign: of several `--tasks`, this one comes last.
"""

from dtq.config import load
from dtq.lab.witness.ledger import sign_all

sign_all(load())
