"""The command line: one file for each command; `app.py` combines them."""
