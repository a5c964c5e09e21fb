"""Training, evaluation and latent search under Ignite engines."""
