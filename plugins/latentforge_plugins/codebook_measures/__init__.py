"""Measures of how a codebook is used: `codebook_usage` and `perplexity`."""

from typing import Any

from latentforge import MeasureSpec, hookimpl
from latentforge.contracts import EvaluateContext


def build_usage(config: Any, context: EvaluateContext):
    from .usage import Usage

    return Usage()


def build_perplexity(config: Any, context: EvaluateContext):
    from .usage import Perplexity

    return Perplexity()


@hookimpl
def latentforge_measures():
    yield MeasureSpec(
        name="codebook_usage",
        summary="Fraction of the codebook's entries that occur",
        build=build_usage,
        protocol="fraction of the codebook's entries that occur in the codes of the split",
        needs={"encode", "codebook"},
        better="higher",
    )
    yield MeasureSpec(
        name="perplexity",
        summary="Effective number of codebook entries in use",
        build=build_perplexity,
        protocol="exp of the entropy (nats) of the entries' frequencies in all codes of the split",
        needs={"encode", "codebook"},
        better="higher",
    )
