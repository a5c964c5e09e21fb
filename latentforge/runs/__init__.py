"""Run folders: the manifest, checkpoints, TensorBoard, and what a run is compatible with."""
