"""Real processes to break: a queue on this machine, replicated servers, a steady load, the naive queue."""
