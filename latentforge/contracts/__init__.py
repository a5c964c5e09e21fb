"""The contracts of components, which docs/contracts.md explains: the Protocols, and the values that
core and plugins exchange. Importing this package imports neither torch nor Ignite."""

from latentforge.contracts.data import (
    LARGEST_BATCH,
    RANGES,
    Arrays,
    Batch,
    DataSpec,
    Factor,
    Images,
    Kind,
    RangeName,
    Scaling,
    at_once,
)
from latentforge.contracts.evaluation import EvaluateContext, Measure, Seen
from latentforge.contracts.exploration import ExploreContext, Objective, OtherRun, RunInfo
from latentforge.contracts.models import (
    Autoencoder,
    Conditional,
    LatentSpec,
    Posterior,
    Prior,
    VariationalPosterior,
)
from latentforge.contracts.training import Callback, Engines, Loss, Step, Terms

__all__ = [
    "LARGEST_BATCH",
    "RANGES",
    "Arrays",
    "Autoencoder",
    "Batch",
    "Callback",
    "Conditional",
    "DataSpec",
    "Engines",
    "EvaluateContext",
    "ExploreContext",
    "Factor",
    "Images",
    "Kind",
    "LatentSpec",
    "Loss",
    "Measure",
    "Objective",
    "OtherRun",
    "Posterior",
    "Prior",
    "RangeName",
    "RunInfo",
    "Scaling",
    "Seen",
    "Step",
    "Terms",
    "VariationalPosterior",
    "at_once",
]
