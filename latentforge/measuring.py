"""A deprecated alias: the former name of `latentforge.metrics`."""

from __future__ import annotations

import warnings

from latentforge.metrics import MeanPerImage as MeanPerImage

warnings.warn("latentforge.measuring is now latentforge.metrics", DeprecationWarning, stacklevel=2)
