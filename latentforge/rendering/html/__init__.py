"""Interactive figures as HTML."""
