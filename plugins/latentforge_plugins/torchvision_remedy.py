"""Imports torchvision also where its compiled operators cannot load.

The wheel on PyPI is a CUDA build. Beside a CPU-only torch its library does not load, and the import
then dies on declaring a fake kernel for an operator that nobody has defined. Datasets, transforms
and utils need none of these operators, so declaring the two schemas is enough.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

SYMPTOM = "operator torchvision::nms does not exist"
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")


def import_torchvision() -> ModuleType:
    """torchvision; without `nms` and the other compiled operators where they do not load."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if SYMPTOM not in str(error):
            raise
    from torch.library import Library

    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    library = Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        library.define(operator + SCHEMA)
    torchvision = importlib.import_module("torchvision")
    # The schemas go when the library goes, so it lives where it is needed.
    torchvision._latentforge_schemas = library  # type: ignore[attr-defined]
    return torchvision
