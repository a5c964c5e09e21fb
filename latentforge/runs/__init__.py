"""Run folders: manifest, checkpoints, TensorBoard files, compatibility with plugins and data."""
