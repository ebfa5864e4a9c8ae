"""Patch encoders: one file an objective, all ending as the same `Encoder`."""
