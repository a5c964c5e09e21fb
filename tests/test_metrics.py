"""latentforge.metrics, and its former name."""

from __future__ import annotations

import subprocess
import sys

from latentforge.metrics import MeanPerImage


def test_former_name_imports_with_a_deprecation_warning():
    code = "from latentforge.measuring import MeanPerImage; print(MeanPerImage.__module__)"
    command = [sys.executable, "-W", "default", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == MeanPerImage.__module__ == "latentforge.metrics"
    assert "DeprecationWarning: latentforge.measuring is now latentforge.metrics" in done.stderr
