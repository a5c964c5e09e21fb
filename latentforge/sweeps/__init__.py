"""Sweeps: one training for each combination of a grid's values, or for each trial of a search.

`start` begins and resumes one, `grid` and `search_space` say which members there are, `folder`
keeps them, `runner` and `search` train them.
"""
