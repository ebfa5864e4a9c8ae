"""Small compressed slides on disk, for tests."""

import numpy as np

import nic_jax.grids
from nic_jax.grids import schema, writing


def write_grid(path, codes, *, encoded=None, turn_invariant=False, layout_only=False):
    """Writes codes [V, H, W, C] as the grid of a slide named like the file, and opens it."""
    versions, height, width, code_size = codes.shape
    encoded = np.ones((height, width), bool) if encoded is None else encoded
    attributes = {
        'schema_version': schema.SCHEMA_VERSION,
        'slide_id': path.stem,
        'tissue': {'threshold': 0.5},
        'encode_all': False,
        'encoder': {'turn_invariant': turn_invariant},
    }
    writer = writing.open_writer(
        path,
        attributes=attributes,
        tissue=encoded.astype(np.float16),
        versions=versions,
        code_size=code_size,
    )
    stored = np.where(encoded[..., None], codes, np.nan).astype(np.float16)
    side = schema.SHARD_CELLS
    for row, column in writer.missing:
        top, left = row * side, column * side
        writer.write((row, column), stored[:, top : top + side, left : left + side]).result()
    writer.finish()
    return nic_jax.grids.reading.open_grid(path, layout_only=layout_only)
