"""Training on five gigabytes of images in a process limited to 1.5 gigabytes of memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

LIMIT = 1_500_000_000
IMAGES, SHAPE = 6_500, (3, 512, 512)  # 5.1 GB


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA and /proc")
def test_five_gigabytes_train_in_1_5_gigabytes_of_memory(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (IMAGES, *SHAPE))
    draw = np.random.default_rng(0)
    for index in range(0, IMAGES, 1000):  # the others are holes in a sparse file
        x[index] = draw.integers(0, 256, SHAPE, dtype=np.uint8)
    x.flush()
    del x
    np.save(tmp_path / "y.npy", np.arange(IMAGES) % 3)
    assert (tmp_path / "x.npy").stat().st_size > 5e9
    command = [
        *(sys.executable, "-m", "latentforge", "train", "mlp-classifier", "--epochs", "1"),
        *("--data", "arrays", "--set", f"data.path={tmp_path / 'x.npy'}"),
        *("--set", f"data.labels={tmp_path / 'y.npy'}", "--set", "model.width=4"),
        *("--set", "data.test=0.01", "--set", "data.validation=0"),
        *("--batch-size", "32", "--set", "train.threads=2", "--run", str(tmp_path / "run")),
    ]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", "MALLOC_ARENA_MAX": "2"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
    )
    peak = [0]

    def watch():
        """Record the peak of private and shared memory; the page cache does not count."""
        while started.poll() is None:
            try:
                status = Path(f"/proc/{started.pid}/status").read_text()
            except OSError:
                return
            kinds = dict(line.split(":", 1) for line in status.splitlines())
            used = [int(kinds.get(k, "0").split()[0]) for k in ("RssAnon", "RssShmem")]
            peak[0] = max(peak[0], sum(used) * 1024)
            time.sleep(0.05)

    watching = threading.Thread(target=watch)
    watching.start()
    out, _ = started.communicate(timeout=600)
    watching.join()
    print(f"{peak[0] / 1e9:.2f} GB")
    assert started.returncode == 0, out
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["status"] == "done"
    assert run["data"]["images"] == {"train": 6_435, "test": 65}
    assert "5.1 GB is more than half" in run["steps_made"]["images"]
    assert "images streamed (5.1 GB" in out
    assert 0.1e9 < peak[0] < LIMIT
