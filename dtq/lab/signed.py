"""Makes the handlers of a worker sign the ledger of executions: `dtq worker --tasks dtq.lab.signed`.

Only task types that are registered by then sign: of several `--tasks`, this one comes last.
"""

from dtq.config import load
from dtq.lab.executions import sign_all

sign_all(load())
