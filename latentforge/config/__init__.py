"""The configuration of a run: the user's request, its validation and its resolved form."""
