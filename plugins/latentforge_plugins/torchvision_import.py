"""Import torchvision even if its compiled operators cannot be loaded.

The wheel on PyPI is a CUDA build. With a CPU-only torch its library does not load, and the import
fails when it declares a fake kernel for an undefined operator. Datasets, transforms and utils need
none of these operators, so defining the two schemas is enough.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

SYMPTOM = "operator torchvision::nms does not exist"
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")


def import_torchvision() -> ModuleType:
    """Return torchvision, without `nms` and the other compiled operators if they do not load."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if SYMPTOM not in str(error):
            raise
    from torch.library import Library

    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # partially imported
    library = Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        library.define(operator + SCHEMA)
    torchvision = importlib.import_module("torchvision")
    # The schemas exist only as long as the library object, so torchvision keeps a reference.
    torchvision._latentforge_schemas = library  # type: ignore[attr-defined]
    return torchvision
