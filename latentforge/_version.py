"""The version of LatentForge."""

__version__ = "0.1.0"
