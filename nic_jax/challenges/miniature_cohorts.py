"""Miniature cohorts in the layouts that the readers of this package read.

What a label is about shows in the colour of the texture, so that even the mean of a patch tells it.
"""

import csv
import functools
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nic_jax import workdir
from nic_jax.challenges import miniature, rectum

SIZE, MARGIN = 256, 16  # px of a slide, and of the white around its tissue
NORMAL, TUMOUR = (222, 150, 195), (135, 80, 160)
MPP = 10.0  # µm/px, so that a macro-metastasis (more than 2 mm) fits in

_VERSION = 1  # of what is written; another one is written anew
_MACRO, _MICRO = (216.0, 140.0), (70.0, 60.0)  # length and width of metastases, px


def write(layout: str, folder: pathlib.Path, *, seed: int) -> None:
    """Writes a cohort, or what is missing of it; see `challenges.write_miniature`."""
    made_with = {'miniature': layout, 'seed': seed, 'version': _VERSION}
    if workdir.begin(folder, made_with):
        return
    _WRITERS[layout](folder, functools.partial(_generator, seed))
    workdir.finish(folder)


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, *name.encode()])


def _camelyon16(folder: pathlib.Path, generator: Callable) -> None:
    """8 normal and 8 tumour slides for training, 7 to test, one of them the withdrawn duplicate."""
    sizes = {f'normal_{number:03d}': 'None' for number in range(1, 9)}
    sizes |= {f'tumor_{number:03d}': ('Macro', 'Micro')[number % 2] for number in range(1, 9)}
    tests = ('Macro', 'None', 'Micro', 'None', 'Macro', 'None')
    sizes |= {f'test_{number:03d}': size for number, size in enumerate(tests, 1)}
    sizes['test_049'] = 'None'
    for name, size in sizes.items():
        rng = generator(name)
        image = miniature.tissue(SIZE, NORMAL, margin=MARGIN, rng=rng)
        kind = name.split('_')[0]
        place = folder / ('testing' if kind == 'test' else 'training')
        if size != 'None':
            length, width = _MACRO if size == 'Macro' else _MICRO
            centre = (SIZE / 2, rng.uniform(0.4, 0.6) * SIZE)
            inside = miniature.in_ellipse(image.shape[:2], centre, length, width)
            image[inside] = miniature.texture(SIZE, SIZE, TUMOUR, rng=rng)[inside]
            group = 'Tumor' if kind == 'test' else '_0'
            outlines = [(group, miniature.ellipse(centre, length, width))]
            miniature.write_asap(place / 'lesion_annotations' / f'{name}.xml', outlines)
        path = place / ('images' if kind == 'test' else kind) / f'{name}.tif'
        miniature.write_slide(path, image, mpp=MPP)
    lines = [
        [name, 'Normal' if size == 'None' else 'Tumor', 'None' if size == 'None' else 'IDC', size]
        for name, size in sizes.items()
        if name.startswith('test_') and name != 'test_049'
    ]
    _write_csv(folder / 'testing' / 'reference.csv', lines)


def _tupac16(folder: pathlib.Path, generator: Callable) -> None:
    """14 training and 4 test cases; the darker a slide, the higher its score."""
    lines = []
    for kind, count in (('TR', 14), ('TE', 4)):
        images = folder / ('training_image_data' if kind == 'TR' else 'testing_image_data')
        for number in range(1, count + 1):
            name = f'TUPAC-{kind}-{number:03d}'
            rng = generator(name)
            score = rng.uniform(-1, 1)
            image = miniature.tissue(SIZE, _between(score / 2 + 0.5), margin=MARGIN, rng=rng)
            miniature.write_slide(images / f'{name}.svs', image, mpp=MPP)
            if kind == 'TR':
                lines.append([int(np.digitize(score, (-0.4, 0.4))) + 1, f'{score:.4f}'])
    _write_csv(folder / 'training_ground_truth.csv', lines)


def _liver(folder: pathlib.Path, generator: Callable) -> None:
    """16 patients of one or two slides; the darker, the sooner dead."""
    lines = [['slide_id', 'path', 'case_id', 'growth_pattern', 'os_days', 'os_event']]
    for number in range(16):
        case = f'patient_{number:02d}'
        rng = generator(case)
        replaced = number % 2
        dark = 0.25 + 0.5 * replaced + rng.uniform(-0.2, 0.2)
        days, event = round(2000 * (1.1 - dark)), int(number % 4 < 3)
        for letter in 'ab'[: 1 + number % 3 % 2]:
            name = f'{case}{letter}'
            image = miniature.tissue(SIZE, _between(dark), margin=MARGIN, rng=generator(name))
            miniature.write_slide(folder / 'images' / f'{name}.tif', image, mpp=MPP)
            pattern = ('desmoplastic', 'replacement')[replaced]
            lines.append([name, f'images/{name}.tif', case, pattern, days, event])
    _write_csv(folder / 'slides.csv', lines)


def _rectum(folder: pathlib.Path, generator: Callable) -> None:
    """11 slides of ten patients, each a patchwork of the nine tissues in an order of its own."""
    lines = [['slide_id', 'path', 'case_id', 'annotation']]
    side = (SIZE - 2 * MARGIN) // 3
    for number in range(11):
        name = f'rectum_{number:02d}'
        rng = generator(name)
        image = miniature.tissue(SIZE, NORMAL, margin=MARGIN, rng=rng)
        outlines = []
        for place, kind in enumerate(rng.permutation(len(rectum.CLASSES)).tolist()):
            top, left = (MARGIN + side * index for index in divmod(place, 3))
            colour = _between(kind / 8, (235, 170, 120), (90, 40, 190))
            image[top : top + side, left : left + side] = miniature.texture(
                side, side, colour, rng=rng
            )
            square = np.array([(0, 0), (side, 0), (side, side), (0, side)], float)
            outlines.append((rectum.CLASSES[kind], square + (left, top)))
        suffix, save = (
            ('geojson', miniature.write_geojson) if number % 2 else ('xml', miniature.write_asap)
        )
        save(folder / 'annotations' / f'{name}.{suffix}', outlines)
        miniature.write_slide(folder / 'images' / f'{name}.tif', image, mpp=MPP)
        case = f'patient_{number % 10:02d}'
        lines.append([name, f'images/{name}.tif', case, f'annotations/{name}.{suffix}'])
    _write_csv(folder / 'slides.csv', lines)


_WRITERS: Mapping[str, Callable[[pathlib.Path, Callable], None]] = {
    'camelyon16': _camelyon16,
    'tupac16': _tupac16,
    'liver': _liver,
    'rectum': _rectum,
}


def _between(share: float, first=NORMAL, last=TUMOUR) -> miniature.Colour:
    """The colour at a share of the way from one to another."""
    return tuple(round(a + share * (b - a)) for a, b in zip(first, last, strict=True))


def _write_csv(path: pathlib.Path, lines: Sequence[Sequence]) -> None:
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator='\n').writerows(lines)
    workdir.write_atomically(path, text.getvalue())
