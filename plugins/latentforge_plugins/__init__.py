"""The built-in components of LatentForge: ordinary plugins, discovered like any other."""
