"""Plugins: found by entry points, loaded one by one, kept in a registry."""
