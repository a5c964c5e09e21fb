"""Several trainings as one: their weights stacked, their steps vmapped."""
