"""What is written of an explained slide, for the tools that people have.

METHOD.png            the map over the slide's thumbnail
METHOD.geojson        its regions, for QuPath
METHOD_patches.png    the patches that speak most for the target
METHOD.ome.tiff       the map at the slide's full resolution, where it is asked for
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from nic_jax.explanation.contact_sheet import top_patches, write_contact_sheet
from nic_jax.explanation.ome_tiff import write_heat_map
from nic_jax.explanation.overlay import read_thumbnail, write_overlay
from nic_jax.explanation.regions import write_regions
from nic_jax.grids import Grid
from nic_jax.patches.annotations import Region
from nic_jax.slides.slide import Slide

SANITY = ('grad_cam_random',)  # maps that are measured and not looked at


def export(
    folder: pathlib.Path,
    maps: Mapping[str, np.ndarray],
    grid: Grid,
    *,
    slide: Slide | None,
    outlines: Sequence[Region] = (),
    patches: int = 12,
    signed: bool = False,
    heat_map: bool = False,
    title: str = '',
) -> None:
    """Writes the files of a slide; without its pixels, those that need none.

    Args:
        folder: Of the slide.
        maps: Method to map, float32 `[H, W]`.
        grid: Of the slide.
        slide: Open, or None where its file is not at hand.
        outlines: Of lesions, where they are known, level-0 px.
        patches: The strongest, in the sheet; 0 for no sheet.
        signed: Whether pictures show what speaks against the target too.
        heat_map: Whether to write the map at full resolution.
        title: Over the pictures.
    """
    attributes = grid.attributes
    thumbnail = None if slide is None else read_thumbnail(slide)
    corner = None if slide is None else slide.bounds[:2]
    for method, saliency in maps.items():
        if method in SANITY:
            continue
        told = f'{title}, {method}'
        write_overlay(
            folder / f'{method}.png',
            saliency,
            attributes=attributes,
            thumbnail=thumbnail,
            outlines=outlines,
            signed=signed,
            title=told,
        )
        write_regions(
            folder / f'{method}.geojson',
            saliency,
            attributes=attributes,
            method=method,
            corner=corner,
        )
        if heat_map:
            write_heat_map(
                folder / f'{method}.ome.tiff', saliency, attributes=attributes, method=method
            )
        cells = top_patches(saliency, patches, attributes=attributes)
        if slide is not None and cells:
            write_contact_sheet(
                folder / f'{method}_patches.png',
                slide,
                cells,
                saliency=saliency,
                attributes=attributes,
                title=told,
            )
