"""Images: reading, preparing, splitting, keeping in memory or streaming."""
