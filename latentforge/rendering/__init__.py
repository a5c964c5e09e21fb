"""Draws findings, stores them as PNG, GIF, HTML, CSV, .npz and TensorBoard files, and writes
reports."""
