"""The stored compressed slide.

import nic_jax.grids
grid = nic_jax.grids.open('runs/mine/mean_rgb/grids/slide_1.zarr')
grid.codes(version=0)  # float32 [H, W, C]
"""

from nic_jax.grids.reading import Grid, GridLike
from nic_jax.grids.reading import open_grid as open
from nic_jax.grids.schema import GridError
from nic_jax.grids.versions import VERSIONS, turn

__all__ = ['VERSIONS', 'Grid', 'GridError', 'GridLike', 'open', 'turn']
