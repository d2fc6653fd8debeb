"""How `scripts/lab` runs JupyterLab."""

from jupyter_core.paths import jupyter_runtime_dir

c = get_config()  # noqa: F821

# Kernels are spoken to through sockets in the runtime folder: no ports, nothing that others on the machine can
# read. A socket's path has at most 103 characters, of which a kernel's file name takes 50.
if len(jupyter_runtime_dir()) <= 53:
    c.KernelManager.transport = "ipc"
