"""The kinds of findings: image grids, panels of curves, scatters, charts, tables and arrays.

Tensors may be on any device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from latentforge.contracts import DataSpec

FRAMES = 30
"""The maximum number of frames of an animation, which limits the size of a page."""


@dataclass(frozen=True)
class ImageGrid:
    """Rows of images, each row (n, C, H, W) with values in [0, 1]; C is 1 or 3 (RGB).

    `captions` contains a list of strings for each row, shown below its images. `colours="heat"`
    draws one channel as a heat map, for activations and differences; all images of a row share a
    scale, from the lowest to the highest value of the row. "grey" draws the values unchanged.
    """

    name: str  # the file name without a suffix
    title: str
    rows: Sequence[Tensor]
    column_titles: Sequence[str] = ()
    row_titles: Sequence[str] = ()
    captions: Sequence[Sequence[str]] = ()
    colours: Literal["grey", "heat"] = "grey"


@dataclass(frozen=True)
class CurveGrid:
    """A grid of panels with curves, for signals and vectors: `rows[r][c]` is (n, C, L), n curves of
    C channels with L values each.

    `curves` are the names of the n curves, which are the same in all panels. With `sequence`, they
    are steps from the first to the last one: colours show the step, and `curves` labels a colour
    bar; with `ends`, the first and the last curve are data, which are dashed and have no colour.
    Otherwise the dash shows the curve and the colour the channel. `captions` contains a list
    of strings for each row, shown above its panels.
    """

    name: str
    title: str
    rows: Sequence[Sequence[Tensor]]
    curves: Sequence[str] = ()
    sequence: bool = False
    ends: bool = False
    column_titles: Sequence[str] = ()
    row_titles: Sequence[str] = ()
    captions: Sequence[Sequence[str]] = ()
    x_title: str = "position"


@dataclass(frozen=True)
class Plane:
    """Decoded images at the points of a regular grid on a map: `images` (rows, columns, C, H, W)
    in [0, 1], the first row at the lowest y. `x` and `y` are the first and last coordinates."""

    images: Tensor
    x: tuple[float, float]
    y: tuple[float, float]


@dataclass(frozen=True)
class Scatter:
    """A map of codes: `points` (N, 2), coloured by `labels`, int64 (N,) that index `classes`, or by
    `values`, finite numbers (N,), on a continuous scale with the title `values_title`. With
    `values`, `labels` only name the points.

    `images` (N, C, H, W) appear under the pointer; `plane` contains decoded images for positions on
    the map. `paths` are curves on the map by name, (T, 2) each, from start to end. `codes` (N, D)
    are the codes before projection, for TensorBoard's projector.
    """

    name: str
    title: str
    points: Tensor
    labels: Tensor | None = None
    classes: Sequence[str] = ()
    images: Tensor | None = None
    plane: Plane | None = None
    paths: Mapping[str, Tensor] = field(default_factory=dict)
    codes: Tensor | None = None
    axes: tuple[str, str] = ("z0", "z1")
    values: Tensor | None = None
    values_title: str = ""


@dataclass(frozen=True)
class Lines:
    """Curves over a common `x` (n,): `series` are y values (n,) by name; NaN leaves a gap."""

    name: str
    title: str
    x: Tensor
    series: Mapping[str, Tensor]
    x_title: str
    y_title: str


@dataclass(frozen=True)
class Bars:
    """A group of bars for each label: `series` maps names to one height per label."""

    name: str
    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]
    y_title: str


@dataclass(frozen=True)
class Histogram:
    """Histograms: `panels` maps titles to values (n,); `normal` adds the fitted normal density."""

    name: str
    title: str
    panels: Mapping[str, Tensor]
    x_title: str
    normal: bool = False


@dataclass(frozen=True)
class Film:
    """An animation of at most FRAMES frames, each with the same kinds of panels side by side.

    It is written as a GIF, and as a PNG that shows the images of all frames in one strip.
    """

    name: str
    title: str
    frames: Sequence[Sequence[ImageGrid | Scatter | Bars]]
    frame_titles: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Rows of strings and numbers under `columns`."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True)
class NamedArrays:
    """Tensors by name for further processing, written as one .npz file. Texts, such as names of
    files, are arrays of NumPy."""

    name: str
    arrays: Mapping[str, Tensor | np.ndarray[Any, Any]]


Arrays = NamedArrays  # the former name, for plugins; `contracts.Arrays` is a dataset split


@dataclass(frozen=True)
class Raw:
    """Any other file: `content` is written to `name` + `suffix`, where `suffix` is like ".svg"."""

    name: str
    suffix: str
    content: bytes


Finding = (
    ImageGrid | CurveGrid | Scatter | Lines | Bars | Histogram | Film | Table | NamedArrays | Raw
)


@dataclass(frozen=True)
class Findings:
    """What an explorer returns: the findings, and metrics by name, defined by the sentence
    `protocol`. `notes` are lines for the reader, for example about data that was left out. `roles`
    maps the name of a finding to a role if the finding shows the run of that role."""

    items: Sequence[Finding]
    metrics: Mapping[str, float] = field(default_factory=dict)
    protocol: str = ""
    notes: Sequence[str] = ()
    roles: Mapping[str, str] = field(default_factory=dict)

    def adapt(self, data: DataSpec) -> Findings:
        """Return the findings with titles, protocol and notes in the words of the data."""
        items: list[Any] = []
        for item in self.items:
            titles = {key: data.adapt(text) for key, text in vars(item).items() if key in TITLES}
            items.append(replace(cast(Any, item), **titles))
        notes = [data.adapt(note) for note in self.notes]
        return replace(self, items=items, protocol=data.adapt(self.protocol), notes=notes)


TITLES = {"title", "x_title", "y_title"}
