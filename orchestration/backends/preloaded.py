"""Preparation of the server that forks workers: it imports once what they all need.

Nothing here is used by name; nobody else imports this.
"""

import importlib
import pkgutil
import platform

import gigatok
from orchestration.runs import provenance

# Before the long imports: a commit during them is then recorded as the one before it.
provenance.imported_state()

MODULES = (
    "orchestration.launching.foreground",
    # What a worker runs first; it would read the file again, as it is by then.
    "orchestration.backends.workers",
    # All of it: a module that a worker imports later may have been edited since the launch.
    *(module.name for module in pkgutil.walk_packages(gigatok.__path__, "gigatok.")),
    # Optimizers import the compiler at their first step, which would cost every worker a second.
    "torch._dynamo",
)

for module in MODULES:
    importlib.import_module(module)
provenance.package_versions()
platform.platform()
