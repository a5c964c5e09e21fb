"""Interactive charts as HTML that needs no network."""
