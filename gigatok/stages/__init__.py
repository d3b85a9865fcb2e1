"""The graph of a trial: every kind of job as one object. Imports no torch.

Each stage is a folder here: `spec.py` describes and registers it, `cost.py` says what it costs,
`run.py` does the work and alone imports torch.
"""

from __future__ import annotations

from importlib import import_module

from gigatok.stages.base import Costs, Disk, Stage, where_had
from gigatok.stages.registry import STAGES, register

BUILT_IN = (
    "extract_teacher_features",
    "extract_reference_features",
    "train_tokenizer",
    "adopt_tokenizer",
    "evaluate_reconstruction",
    "extract_codes",
    "train_generator",
    "adopt_generator",
    "evaluate_generation",
    "search_guidance",
    "linear_probe",
    "probe_tokenizer",
)
"""Folders here, in the order in which tables show stages. A stage's spec imports those of its
inputs, so the registry is in an order in which stages can run, whatever this one is."""

# Importing registers a stage; no spec imports torch.
for _name in BUILT_IN:
    import_module(f"{__name__}.{_name}.spec")

__all__ = ["BUILT_IN", "STAGES", "Costs", "Disk", "Stage", "register", "where_had"]
