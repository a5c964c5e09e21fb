"""Draws and stores findings as PNG, GIF, HTML, CSV, .npz and TensorBoard files; the report."""
