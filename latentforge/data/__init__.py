"""Images: reading, preparation, splits, prefetch, storage in memory or streaming."""
