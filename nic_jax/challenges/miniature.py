"""Slides and annotations of a few kilobytes: textures coloured like tissue, in real file formats.

Nothing can be learned from them about tissue. They are for running every stage, in seconds, on
files that are laid out as those of a challenge.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import numpy as np
import tifffile

from nic_jax import workdir

Colour = tuple[int, int, int]

_TILE = 64  # px


def texture(height: int, width: int, colour: Colour, *, rng: np.random.Generator) -> np.ndarray:
    """A blotchy area of a colour, uint8 `[height, width, 3]`."""
    blotches = rng.normal(size=(height // 8 + 1, width // 8 + 1))
    blotches = np.kron(blotches, np.ones((8, 8)))[:height, :width, None]
    noise = rng.normal(size=(height, width, 1))
    pixels = np.array(colour, float) + blotches * [10.0, 14.0, 6.0] + noise * 4
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def tissue(size: int, colour: Colour, *, margin: int, rng: np.random.Generator) -> np.ndarray:
    """A square of tissue on a white slide, uint8 `[size, size, 3]`, `margin` px of white around."""
    image = np.full((size, size, 3), 245, np.uint8)
    inner = size - 2 * margin
    image[margin : size - margin, margin : size - margin] = texture(inner, inner, colour, rng=rng)
    return image


def ellipse(centre: tuple[float, float], length: float, width: float) -> np.ndarray:
    """The outline of an ellipse that lies along x, vertices (x, y) float64 `[36, 2]`."""
    angle = np.arange(36) * (2 * np.pi / 36)
    return np.array(centre) + np.stack(
        [np.cos(angle) * length / 2, np.sin(angle) * width / 2], axis=1
    )


def in_ellipse(
    shape: tuple[int, int], centre: tuple[float, float], length: float, width: float
) -> np.ndarray:
    """The pixels whose centres lie in such an ellipse, bool `[H, W]`."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return ((x - centre[0]) / (length / 2)) ** 2 + ((y - centre[1]) / (width / 2)) ** 2 <= 1


def write_slide(path: pathlib.Path, image: np.ndarray, *, mpp: float) -> None:
    """Writes a tiled TIFF of two levels, which OpenSlide opens under any suffix.

    Args:
        path: The file to write.
        image: Level 0, uint8 `[H, W, 3]`, H and W multiples of 128 px.
        mpp: µm/px of level 0.
    """
    half = image.reshape(len(image) // 2, 2, -1, 2, 3).mean(axis=(1, 3))
    levels = (image, np.rint(half).astype(np.uint8))
    with workdir.replacing(path) as partial, tifffile.TiffWriter(partial) as writer:
        for number, level in enumerate(levels):
            writer.write(
                level,
                tile=(_TILE, _TILE),
                compression='zlib',
                photometric='rgb',
                subfiletype=1 if number else 0,
                resolution=(1e4 / mpp, 1e4 / mpp),
                resolutionunit='CENTIMETER',
                metadata=None,
                software='nic_jax miniature',
            )


def write_asap(path: pathlib.Path, outlines: Sequence[tuple[str, np.ndarray]]) -> None:
    """Writes polygons as ASAP does: (group, vertices float64 `[n, 2]` in level-0 px) of each."""
    root = ElementTree.Element('ASAP_Annotations')
    annotations = ElementTree.SubElement(root, 'Annotations')
    for number, (group, outline) in enumerate(outlines):
        annotation = ElementTree.SubElement(
            annotations,
            'Annotation',
            Name=f'Annotation {number}',
            Type='Polygon',
            PartOfGroup=group,
            Color='#F4FA58',
        )
        coordinates = ElementTree.SubElement(annotation, 'Coordinates')
        for order, (x, y) in enumerate(outline):
            ElementTree.SubElement(
                coordinates, 'Coordinate', Order=str(order), X=f'{x:.3f}', Y=f'{y:.3f}'
            )
    groups = ElementTree.SubElement(root, 'AnnotationGroups')
    for group in dict.fromkeys(group for group, _ in outlines):
        ElementTree.SubElement(groups, 'Group', Name=group, PartOfGroup='None', Color='#00ff00')
    ElementTree.indent(root)
    workdir.write_atomically(path, ElementTree.tostring(root, encoding='unicode'))


def write_geojson(path: pathlib.Path, outlines: Sequence[tuple[str, np.ndarray]]) -> None:
    """Writes polygons as QuPath does; arguments as for `write_asap`."""
    features = [
        {
            'type': 'Feature',
            'geometry': {
                'type': 'Polygon',
                'coordinates': [[*outline.tolist(), outline[0].tolist()]],
            },
            'properties': {'objectType': 'annotation', 'classification': {'name': name}},
        }
        for name, outline in outlines
    ]
    content: Mapping = {'type': 'FeatureCollection', 'features': features}
    workdir.write_atomically(path, json.dumps(content))
