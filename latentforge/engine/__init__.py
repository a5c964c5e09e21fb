"""Training and evaluation under Ignite engines. Nothing else in LatentForge imports ignite."""
