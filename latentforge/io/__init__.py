"""Files: atomic writes, paths, .npz archives, TOML, and removal of passwords from text."""
