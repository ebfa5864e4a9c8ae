"""Mosaics for tests: tiles to make them of, and a check of what was made of them."""

import pathlib

import numpy as np
from PIL import Image

from nic_jax import cohort, workdir
from nic_jax.patches.annotations import read_annotations
from nic_jax.patches.coverage import inside, shares
from nic_jax.patches.store import open_set
from nic_jax.patches.tiles import TileTable, make_tile_set
from nic_jax.slides import open_slide, stream, tiling
from nic_jax.slides.tissue import read_mask


def tile_image(label, seed):
    """A smooth tile of 48 px, which JPEG keeps well, unlike any other."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 1, 48), np.linspace(0, 1, 48))
    waves = sum(
        rng.normal(size=3) * np.sin(rng.uniform(0, 12) * x + rng.uniform(0, 12) * y)[..., None]
        for _ in range(3)
    )
    colour = rng.uniform(60, 200, 3) * ((1, 1, 1) if label == '0' else (0.7, 0.5, 0.9))
    return Image.fromarray(np.clip(colour + 12 * waves, 0, 250).astype(np.uint8))


def write_tile_set(home: pathlib.Path) -> pathlib.Path:
    """A finished set of tiles: each class has 24 for training, 8 for validation, 20 for testing."""
    seed = 0
    for subset, count in (('train', 24), ('valid', 8), ('test', 20)):
        for label in '01':
            folder = home / 'images' / subset / label
            folder.mkdir(parents=True)
            for number in range(count):
                tile_image(label, seed := seed + 1).save(folder / f'{number}.png')
    table = TileTable(str(home / 'images'), patch_size=48, mpp=1.0)
    workdir.begin(home / 'set', {'seed': 0})
    make_tile_set(table, home / 'set', home=home, name='tiles', seed=0, workers=1)
    return home / 'set'


def plan_of(slide, study):
    return tiling.plan_grid(
        slide.levels,
        bounds=slide.bounds,
        mpp_level0=slide.mpp,
        mpp=study.mpp,
        patch_size=study.patch_size,
        stride=study.pitch,
    )


def tissue_of(entry, slide, plan):
    """The share of tissue of every patch, by the slide's mask."""
    mask = read_mask(entry.mask, dimensions=slide.dimensions)
    step = tuple(
        side / pixels for side, pixels in zip(slide.dimensions, mask.shape[::-1], strict=True)
    )
    return tiling.tissue_share(plan, mask, origin=(0, 0), step=step)


def check_slides(table, study, tiles, *, tumour, seed=0, error, mean_error):
    """Reads every slide as any other is read, and compares it with tiles, mask and outlines.

    Args:
        error: Grey levels by which JPEG may change a pixel.
        mean_error: Grey levels of the root mean square over a patch.

    Returns:
        The tiles seen in the slides of each fold, as sets of indices.
    """
    tile_set = open_set(tiles)
    border = (study.pitch - study.patch_size) // 2
    centres = tile_set.pixels[:][:, border : border + study.patch_size]
    centres = centres[:, :, border : border + study.patch_size]
    thumbnails = centres.reshape(len(centres), 2, study.patch_size // 2, 2, -1, 3).mean((2, 4))
    is_tumour = tile_set.labels == tile_set.classes.index(tumour)
    seen = {}
    entries, others = cohort.find_slides(table)
    assert not others
    for entry in entries:
        with open_slide(entry.path) as slide:
            assert (slide.mpp, slide.mpp_source) == (study.mpp, 'file')
            assert all(slide._tiles.serves(level.index) for level in slide.levels)  # the fast path
            assert max(slide.levels[-1].width, slide.levels[-1].height) < 512
            plan = plan_of(slide, study)
            assert plan.shape == (study.cells, study.cells)
            assert (plan.level, plan.resampled, plan.origin_level0) == (0, False, (0, 0))
            share = tissue_of(entry, slide, plan)
            assert set(np.unique(share)) == {0, 1}
            tissue = share == 1
            patches = stream.read_cells(slide, plan, np.argwhere(tissue))
            blank = stream.read_cells(slide, plan, np.argwhere(~tissue))
        assert (blank == 255).all()

        # Which tile a patch is: the nearest of all tiles by four coarse pixels; then all pixels.
        coarse = patches.reshape(len(patches), 2, study.patch_size // 2, 2, -1, 3).mean((2, 4))
        distance = np.abs(coarse[:, None] - thumbnails[None]).sum((2, 3, 4))
        chosen = distance.argmin(axis=1)
        difference = patches.astype(float) - centres[chosen]
        assert np.abs(difference).max() <= error
        assert np.sqrt((difference**2).mean(axis=(1, 2, 3))).max() <= mean_error
        seen.setdefault(entry.row['fold'], set()).update(chosen.tolist())

        lesion = np.zeros_like(tissue)
        lesion[tissue] = is_tumour[chosen]
        assert entry.row['lesion_area'] == str(lesion.sum())
        regions = ()
        if entry.row['annotation']:
            found = read_annotations(table.parent / entry.row['annotation'])
            regions = found.regions
            assert not found.notes()
        positions = np.argwhere(np.ones_like(tissue))[:, ::-1] * float(study.pitch)
        covered = shares(regions, positions, (study.patch_size, study.patch_size))
        np.testing.assert_array_equal(covered.reshape(tissue.shape), lesion)
        # The whole of every tile is outlined, but what the slide's border cuts off: so say the
        # pixels in its corners.
        edges = np.clip(np.arange(study.cells + 1) * study.pitch - border, 0, study.side)
        for low, high in ((edges[:-1], edges[1:]), (edges[1:], edges[:-1])):
            corner = np.where(low < high, low + 0.5, low - 0.5)
            points = np.stack(np.meshgrid(corner, corner), axis=-1).reshape(-1, 2)
            np.testing.assert_array_equal(inside(regions, points).reshape(tissue.shape), lesion)
    return seen
