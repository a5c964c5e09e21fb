"""Trains several runs as one, with stacked weights and vmapped steps."""
