"""Training patches for encoders: where they come from, how they lie on disk, how they vary."""
