"""Sweeps: train one run for each combination of a grid's values, or for each trial of a search.

`start` starts and resumes a sweep, `grid` and `search_space` define its members, `folder` stores
them, and `runner` and `search` train them.
"""
