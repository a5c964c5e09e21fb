"""The built-in components of LatentForge: ordinary plugins, found like any other."""
