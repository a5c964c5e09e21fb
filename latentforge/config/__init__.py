"""The configuration of a run: what the user asks for, checked and resolved."""
