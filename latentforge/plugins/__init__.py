"""Plugins: discovery through entry points, loading one by one, and the registry."""
