"""Speed and peak memory of training with more images and with larger images.

    python benchmarks/growth.py [--repeats 2] [--images 60000] [--case more] [--json FILE]

Each size is trained in its own process, because peak memory is a property of a process. The sizes
run alternately. Images are random bytes, because the speed does not depend on their content. The
rate is the rate of the second of two epochs. `relative` is the ratio to the first size: the ratio
of images/s for more images, and of pixels/s for larger images. At 1.00 the time is linear.

The process creates its data, so the peak includes the images. `no images` is the peak minus the
size of the images.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import turns


class Size(NamedTuple):
    images: float  # a multiple of --images
    pixels: int
    batch_size: int = 128

    @property
    def name(self) -> str:
        times = f", {self.images:g}x" if self.images >= 1 else ""
        return f"{self.pixels}x{self.pixels}{times}"


CASES: dict[str, tuple[str, list[Size]]] = {
    "more": ("vae", [Size(1, 28), Size(4, 28), Size(16, 28)]),
    "larger": ("vae", [Size(1 / 4, 28), Size(1 / 4, 64), Size(1 / 4, 128)]),
    "larger-conv": (
        # with batch size 128 and 128x128 pixels, the output of one layer would take 512 MB
        *("conv-vae", [Size(1 / 60, 28, 32), Size(1 / 60, 64, 32), Size(1 / 60, 128, 32)]),
    ),
}


def train(model: str, images: int, pixels: int, batch_size: int) -> dict[str, Any]:
    """Train for two epochs in this process. Return the images/s of the second epoch."""
    import torch

    from latentforge import Forge

    generator = torch.Generator().manual_seed(0)
    shape = (images, 1, pixels, pixels)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    with tempfile.TemporaryDirectory() as scratch:
        run = Forge().train(
            model,
            data={"train": x, "test": x[:batch_size]},
            train={"epochs": 2, "batch_size": batch_size, "device": "cpu"},
            run=Path(scratch) / "run",
            quiet=True,
        )
        _, second = run.history()
    storage = run.manifest["steps_made"]["images"]
    return {"images_per_second": second["images_per_second"], "storage": storage}


def measure_in_process(model: str, size: Size, images: int) -> dict[str, Any]:
    count = max(1, round(size.images * images))
    arguments = [model, str(count), str(size.pixels), str(size.batch_size)]
    process = turns.run([sys.executable, __file__, "--one", *arguments])
    result: dict[str, Any] = json.loads(process.out.splitlines()[-1])
    data = count * size.pixels**2 / 2**20
    return {**result, "images": count, "data_mb": data, "peak_mb": process.peak_mb}


def measure_case(case: str, images: int, repeats: int) -> dict[str, Any]:
    """Measurements of each size, and its speed relative to the first size."""
    model, sizes = CASES[case]
    measured = turns.take_turns(
        {size.name: partial(measure_in_process, model, size, images) for size in sizes}, repeats
    )
    results: dict[str, Any] = {}
    work: dict[str, list[float]] = {}  # pixels/s
    for size in sizes:
        measurements = measured[size.name]
        rates = [measurement["images_per_second"] for measurement in measurements]
        work[size.name] = [rate * size.pixels**2 for rate in rates]
        results[size.name] = {
            **{key: measurements[0][key] for key in ("images", "data_mb", "storage")},
            "images_per_second": rates,
            "peak_mb": [measurement["peak_mb"] for measurement in measurements],
            "of_the_first": turns.ratio(work[size.name], work[sizes[0].name]),
        }
    return {"model": model, "sizes": results}


def show(case: str, results: dict[str, Any]) -> None:
    print(f"{results['model']}, {'more' if case == 'more' else 'larger'} images:\n")
    table = turns.Table("size", "images", "images/s", "relative", "peak MB", "no images", first=18)
    for name, size in results["sizes"].items():
        rate, peak = (statistics.median(size[key]) for key in ("images_per_second", "peak_mb"))
        speed = [f"{size['images']:,}", f"{rate:,.0f}", f"{size['of_the_first']:.2f}"]
        table.row(name, *speed, f"{peak:,.0f}", f"{peak - size['data_mb']:,.0f}")
        if size["storage"] != "in memory":
            print(f"{name}: images {size['storage']}")
    print()


def main() -> None:
    parser = turns.make_parser(__doc__, repeats=2)
    parser.add_argument("--images", type=int, default=60_000, help="images of 1x  [default: 60000]")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # a size, in this process
    options = parser.parse_args()
    if options.one:
        model, *numbers = options.one
        print(json.dumps(train(model, *map(int, numbers))))
        return
    detail = f"random images, 1x is {options.images:,}; medians of {options.repeats} rounds"
    info = turns.headline("Growth", detail)
    cases = {}
    for case in options.case or CASES:
        cases[case] = measure_case(case, options.images, options.repeats)
        show(case, cases[case])
    turns.finish(options.json, info, {"images": options.images, "cases": cases})


if __name__ == "__main__":
    main()
