"""What speaks for a prediction, and where: maps of saliency on a slide's cells, and their exports.

from nic_jax.explanation import open_saliency
maps, attributes = open_saliency('runs/mine/ENCODER/explain/LABEL/MODEL/slide_1/saliency.zarr')
maps['grad_cam']  # float32 [H, W]: for the target, below 0 against it, NaN where no code is
"""

from nic_jax.explanation.contact_sheet import top_patches, write_contact_sheet
from nic_jax.explanation.georeference import cell_edges
from nic_jax.explanation.ome_tiff import write_heat_map
from nic_jax.explanation.overlay import draw_overlay, read_thumbnail, write_overlay
from nic_jax.explanation.regions import regions, write_regions
from nic_jax.explanation.stored import open_saliency, write_saliency

__all__ = [
    'cell_edges',
    'draw_overlay',
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
