"""latentforge.metrics, and its former name."""

from __future__ import annotations

import subprocess
import sys

from latentforge.metrics import MeanPerImage


def test_the_former_name_still_imports_and_says_the_new_one():
    code = "from latentforge.measuring import MeanPerImage; print(MeanPerImage.__module__)"
    command = [sys.executable, "-W", "default", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == MeanPerImage.__module__ == "latentforge.metrics"
    assert "DeprecationWarning: latentforge.measuring is now latentforge.metrics" in done.stderr
