"""Pixels in: opening slides, planning grids of patches on them, finding tissue.

Coordinates are pixels, (x, y) from the top left corner; unless a level is named, of level 0. The
stored pixels are the truth: what cannot be read raises `SlideError`, and is never replaced.
Nothing here knows JAX.
"""

from nic_jax.slides.overview import thumbnail
from nic_jax.slides.slide import Level, Slide, SlideError, open_slide

__all__ = ['Level', 'Slide', 'SlideError', 'open_slide', 'thumbnail']
