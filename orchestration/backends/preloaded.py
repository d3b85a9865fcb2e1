"""What the server has in memory that forks workers: modules, and what is the same for them all.

Nothing here is used by name; nobody else imports this.
"""

import importlib
import platform

from gigatok.stages import STAGES
from orchestration import provenance

MODULES = (
    "orchestration.study",
    *(f"gigatok.stages.{stage}" for stage in STAGES),
    # Optimizers import the compiler at their first step, which would cost every worker a second.
    "torch._dynamo",
)

for module in MODULES:
    importlib.import_module(module)
provenance.package_versions()
provenance.imported_state()
platform.platform()
