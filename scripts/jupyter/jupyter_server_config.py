"""How `scripts/lab` runs JupyterLab; arguments given to it win."""

from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

c = get_config()  # noqa: F821

c.ServerApp.ip = "127.0.0.1"
# The folder that is served is the project's, so that a notebook's links into dtq/ open beside it.
c.ServerApp.root_dir = str(Path(__file__).parents[2])
c.LabApp.default_url = "/lab/tree/notebooks/week0_start_here.ipynb"

# Kernels are spoken to through sockets in the runtime folder: no ports, nothing that others on the machine
# can read. A socket's path has at most 103 characters, of which a kernel's file name takes 50.
if len(jupyter_runtime_dir()) <= 53:
    c.KernelManager.transport = "ipc"
