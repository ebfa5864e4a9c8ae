"""Slides × encoder → grids."""
