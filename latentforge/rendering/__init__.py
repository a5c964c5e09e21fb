"""Findings drawn and stored: PNG, GIF, HTML, CSV, .npz, TensorBoard; and the report of runs."""
