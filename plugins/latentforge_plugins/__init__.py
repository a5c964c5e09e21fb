"""The components that come with LatentForge: ordinary plugins, found like any other."""
