"""What speaks for a prediction, and where: maps of saliency on a slide's cells, and their exports.

    from nic_jax.classifiers.trained import load_trained
    from nic_jax.explanation import ExplainSettings, draw_overlay, explain

    trained = load_trained(pathlib.Path('runs/mine/ENCODER/classifier/LABEL/MODEL/seed_0/fold_0'))
    grid = nic_jax.grids.open('runs/mine/ENCODER/grids/slide_1.zarr')
    maps = explain([trained], grid, ExplainSettings(('grad_cam', 'occlusion')), target=1)
    maps['grad_cam']  # float32 [H, W]: evidence for class 1, below 0 against it
    draw_overlay(axis, maps['grad_cam'], attributes=grid.attributes)

`open_saliency` reads what the stage explain has written.
"""

from nic_jax.explanation.contact_sheet import top_patches, write_contact_sheet
from nic_jax.explanation.georeference import cell_edges
from nic_jax.explanation.ome_tiff import write_heat_map
from nic_jax.explanation.overlay import draw_overlay, read_thumbnail, write_overlay
from nic_jax.explanation.regions import regions, write_regions
from nic_jax.explanation.saliency import METHODS, ExplainSettings, explain
from nic_jax.explanation.stored import open_saliency, write_saliency

__all__ = [
    'METHODS',
    'ExplainSettings',
    'cell_edges',
    'draw_overlay',
    'explain',
    'open_saliency',
    'read_thumbnail',
    'regions',
    'top_patches',
    'write_contact_sheet',
    'write_heat_map',
    'write_overlay',
    'write_regions',
    'write_saliency',
]
