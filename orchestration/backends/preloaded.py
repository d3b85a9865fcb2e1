"""Preparation of the server that forks workers: it imports once what they all need.

Nothing here is used by name; nobody else imports this.
"""

import gc
import importlib
import pkgutil
import platform
from collections.abc import Iterator

import gigatok
from orchestration.runs import provenance
from orchestration.runs.records import Record

# Looking again and again for garbage among objects that all stay takes a quarter of these imports.
gc.disable()
# Before the long imports: a commit during them is then recorded as the one before it.
provenance.imported_state()

UNUSED = ("gigatok.commands.", "gigatok.contracts.")
"""Modules that no stage imports; they would bring Matplotlib and polars."""


def _science() -> Iterator[str]:
    """List all modules that a stage may import: one imported later may have been edited since."""
    names = (module.name for module in pkgutil.walk_packages(gigatok.__path__, "gigatok."))
    yield from (name for name in names if not name.startswith(UNUSED))


MODULES = (
    "orchestration.launching.foreground",
    # What a worker runs first; it would read the file again, as it is by then.
    "orchestration.backends.workers",
    *_science(),
    # Optimizers import the compiler at their first step, which would cost every worker a second.
    "torch._dynamo",
)

for module in MODULES:
    importlib.import_module(module)
configs = [stage.config for stage in importlib.import_module("gigatok.stages").STAGES.values()]
for kind in (*configs, *Record.__subclasses__()):
    kind.model_rebuild()  # its validator, or every worker would build it
provenance.package_versions()
platform.platform()
# Workers look for garbage again, but not among what they inherit: looking writes into each object,
# and so would copy all of this memory into each worker.
gc.freeze()
gc.enable()
