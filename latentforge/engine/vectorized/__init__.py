"""Several trainings run as one, with stacked weights and vmapped steps."""
