"""Files: atomic writes, paths, .npz archives, secrets kept out of what is stored."""
