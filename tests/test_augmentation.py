import dataclasses
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
import scipy.stats
import skimage.color

from nic_jax.grids import versions
from nic_jax.patches import augmentation, colour, filters, geometry
from nic_jax.patches.augmentation import PRESETS, Augmentation, augment
from nic_jax.report import augmentation_sheet

# Float32 arithmetic on numbers around 1, a few operations long.
CLOSE = {'rtol': 0, 'atol': 2e-6}


def _patches(batch=4, size=16, channels=3, seed=0):
    return np.random.default_rng(seed).random((batch, size, size, channels), np.float32)


def _smooth(batch=4, size=16, seed=0):
    """Patches whose neighbouring pixels differ little: errors of position show as such."""
    noise = _patches(batch, size, seed=seed)
    return scipy.ndimage.gaussian_filter(noise, (0, 1, 1, 0)).astype(np.float32)


# Geometry


def test_turns_are_those_of_grids():
    patches = _patches(8)
    got = geometry.turn(jnp.asarray(patches), jnp.arange(8))
    for version in versions.VERSIONS:
        expected = versions.turn(patches[version], version)
        np.testing.assert_array_equal(got[version], expected)


def test_all_eight_turns_are_equally_likely():
    patches = np.tile(_patches(1, 3), (4000, 1, 1, 1))
    got = np.asarray(augment(jax.random.key(0), patches, Augmentation(turn=True)))
    turned = [versions.turn(patches[0], version) for version in versions.VERSIONS]
    counts = [(got == one).all((1, 2, 3)).sum() for one in turned]
    assert sum(counts) == 4000
    # Five standard deviations of a count of mean 500.
    np.testing.assert_allclose(counts, 500, atol=5 * np.sqrt(4000 / 8 * 7 / 8))


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('size', [9, 16])
def test_zoom_and_bend_against_scipy(size, channels):
    rng = np.random.default_rng(1)
    patches = _patches(5, size, channels)
    # Even a factor and displacements that mirror the patch several times over.
    factor = np.array([0.2, 0.8, 1.0, 1.2, 3.0], np.float32)
    displacement = rng.normal(0, 4, (5, 2, size, size)).astype(np.float32)
    displacement[2] = 0
    got = geometry.zoom_and_bend(jnp.asarray(patches), jnp.asarray(factor), displacement)
    centre = (size - 1) / 2
    for index in range(5):
        places = centre + (np.indices((size, size)) - centre) / factor[index].astype(np.float64)
        places += displacement[index]
        expected = [
            scipy.ndimage.map_coordinates(channel, places, order=1, mode='mirror')
            for channel in np.moveaxis(patches[index].astype(np.float64), -1, 0)
        ]
        # Positions of up to 50 px are rounded to 4e-6 px, and neighbours differ by up to 1.
        np.testing.assert_allclose(got[index], np.moveaxis(expected, 0, -1), rtol=0, atol=3e-5)
    np.testing.assert_array_equal(got[2], patches[2])


def test_turning_while_resampling_is_turning_first():
    rng = np.random.default_rng(4)
    patches, version = jnp.asarray(_patches(8)), jnp.arange(8)
    factor, displacement = jnp.linspace(0.8, 1.2, 8), rng.normal(0, 2, (8, 2, 16, 16))
    displacement = jnp.asarray(displacement, jnp.float32)
    got = geometry.zoom_and_bend(patches, factor, displacement, version=version)
    turned = geometry.turn(patches, version)
    expected = geometry.zoom_and_bend(turned, factor, displacement)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)  # positions rounded otherwise


def test_zoom_magnifies_about_the_centre():
    spot = np.zeros((1, 33, 33, 1), np.float32)
    spot[0, 16, 24] = 1
    got = geometry.zoom_and_bend(jnp.asarray(spot), jnp.array([1.5]))[0, ..., 0]
    assert np.unravel_index(np.argmax(got), got.shape) == (16, 28)


@pytest.mark.parametrize(('sigma', 'sigma_range'), [(9.0, (9, 11)), (11.0, (9, 11)), (2.5, (2, 3))])
def test_displacements_are_filtered_noise(sigma, sigma_range):
    """Variance and correlation are those of SciPy's filter of full-size noise."""
    size, alpha, batch = 24, 100.0, 2000
    got = np.asarray(
        geometry.smooth_displacement(
            jax.random.key(0),
            jnp.full(batch, alpha),
            jnp.full(batch, sigma),
            size=size,
            sigma_range=sigma_range,
        )
    )
    impulse = np.zeros((161, 161))
    impulse[80, 80] = alpha / np.sqrt(3)  # the deviation of uniform noise in ±1
    response = scipy.ndimage.gaussian_filter(impulse, sigma, truncate=6)
    variance = (response**2).sum()
    assert np.sqrt(variance) == pytest.approx(alpha / (sigma * np.sqrt(12 * np.pi)), rel=1e-5)
    assert abs(got.mean()) < 0.1 * np.sqrt(variance)
    # Every pixel's own variance, also at the border: 4000 draws know it to 2.2 %, five deviations.
    np.testing.assert_allclose(got.var((0, 1)), variance, rtol=5 * np.sqrt(2 / 4000))
    for lag in (3, 7):
        expected = (response[:, lag:] * response[:, :-lag]).sum()
        for axis in (2, 3):
            moved = np.moveaxis(got, axis, -1)
            covariance = (moved[..., lag:] * moved[..., :-lag]).mean()
            assert covariance == pytest.approx(expected, abs=0.05 * variance)
    between = np.corrcoef(got[:, 0].ravel(), got[:, 1].ravel())[0, 1]
    assert abs(between) < 0.1, 'rows and columns are displaced independently'


# Colour


@pytest.mark.parametrize('channels', [1, 3])
def test_brightness_and_contrast_against_float64(channels):
    patches, factor = _patches(channels=channels), np.array([0.0, 0.5, 1.0, 1.5])
    exact, by_patch = patches.astype(np.float64), factor[:, None, None, None]
    got = colour.change_brightness(jnp.asarray(patches), jnp.asarray(factor, jnp.float32))
    np.testing.assert_allclose(got, np.clip(exact * by_patch, 0, 1), **CLOSE)
    grey = exact if channels == 1 else exact @ [[0.299], [0.587], [0.114]]
    mean = grey.mean((1, 2, 3), keepdims=True)
    got = colour.change_contrast(jnp.asarray(patches), jnp.asarray(factor, jnp.float32))
    np.testing.assert_allclose(got, np.clip(mean + by_patch * (exact - mean), 0, 1), **CLOSE)


def test_hsv_against_skimage():
    rng = np.random.default_rng(2)
    shift = rng.uniform(-1, 1, (8, 2))
    shift[:3] = [[0, 0], [1, 0], [-1, -1]]
    patches = _patches(8)
    # Greys, black, white, ties of two channels and pure colours, where the hue's formula changes.
    corners = np.stack(np.meshgrid(*[[0, 0.5, 1]] * 3), axis=-1).reshape(-1, 3)
    patches[:, :2, :13] = corners[:26].reshape(2, 13, 3)
    hsv = skimage.color.rgb2hsv(patches.astype(np.float64), channel_axis=-1)
    hue, saturation, value = np.moveaxis(hsv, -1, 0)
    hue_shift, by_patch = (shift[:, axis, None, None] for axis in (0, 1))
    more = saturation * (1 + (1 - saturation) * by_patch)
    saturation = np.where(by_patch < 0, saturation * (1 + by_patch), more)
    shifted = np.stack([(hue + hue_shift) % 1, saturation, value], axis=-1)
    expected = skimage.color.hsv2rgb(shifted, channel_axis=-1)
    got = colour.shift_hsv(jnp.asarray(patches), jnp.asarray(shift, jnp.float32))
    # The hue, in sixths of a turn of up to 12, is rounded to 1e-6.
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6)


def test_stain_matrix_is_skimages():
    np.testing.assert_array_equal(colour.RGB_FROM_HED, skimage.color.rgb_from_hed)
    np.testing.assert_allclose(colour.HED_FROM_RGB, skimage.color.hed_from_rgb, rtol=1e-12)


def test_hed_against_skimage():
    rng = np.random.default_rng(3)
    unit = np.log(1e6)  # scikit-image's concentrations, in natural logarithms
    # Concentrations above 0 and pixels above 1 / 255: neither implementation clips anything.
    patches = skimage.color.hed2rgb(rng.uniform(0.1, 1, (6, 16, 16, 3)) / unit)
    gain, shift = rng.uniform(0.8, 1.2, (6, 3)), rng.uniform(-0.08, 0.2, (6, 3))
    gain[0], shift[0] = 1, 0
    stains = skimage.color.rgb2hed(patches)
    changed = stains * gain[:, None, None] + shift[:, None, None] / unit
    expected = skimage.color.hed2rgb(changed)
    got = colour.scale_hed(*(jnp.asarray(array, jnp.float32) for array in (patches, gain, shift)))
    np.testing.assert_allclose(got, expected, **CLOSE)


def test_black_stays_black_and_no_change_of_stain_is_none():
    patches = _patches()
    patches[:, :4] = 0
    ones, zeros = jnp.ones((4, 3)), jnp.zeros((4, 3))
    np.testing.assert_array_equal(colour.scale_hed(jnp.asarray(patches), ones, zeros), patches)
    got = colour.scale_hed(jnp.asarray(patches), 1.2 * ones, -0.2 + zeros)
    assert not np.asarray(got)[:, :4].any()


@pytest.mark.parametrize('transform', ['shift_hsv', 'scale_hed'])
def test_colour_needs_three_channels(transform):
    parameters = (jnp.zeros((4, 3)),) * (2 if transform == 'scale_hed' else 1)
    with pytest.raises(ValueError, match=f'{transform} needs 3 channels'):
        getattr(colour, transform)(jnp.zeros((4, 9, 9, 1)), *parameters)


# Filters


@pytest.mark.parametrize('channels', [1, 3])
def test_blur_against_scipy(channels):
    patches, sigma = _patches(channels=channels), [0.0, 0.1, 0.4, 1.0]
    radius = filters.blur_radius(1.0)
    got = filters.blur(jnp.asarray(patches), jnp.asarray(sigma), radius=radius)
    for index, width in enumerate(sigma):
        expected = scipy.ndimage.gaussian_filter(
            patches[index].astype(np.float64), width, mode='mirror', radius=radius, axes=(0, 1)
        )
        np.testing.assert_allclose(got[index], expected, **CLOSE)
    np.testing.assert_array_equal(got[0], patches[0])
    with pytest.raises(ValueError, match='radius=16 must be in 1 … 15'):
        filters.blur(jnp.asarray(patches), jnp.asarray(sigma), radius=16)


def test_noise_has_its_deviation():
    sigma = np.array([0.0, 0.02, 0.1], np.float32)
    grey = jnp.full((3, 64, 64, 3), 0.5)
    noise = np.asarray(filters.add_noise(jax.random.key(0), grey, jnp.asarray(sigma))) - 0.5
    np.testing.assert_allclose(noise.std((1, 2, 3)), sigma, rtol=0.03)  # 12,288 draws: ± 0.6 %
    channels = np.corrcoef(noise[2].reshape(-1, 3).T) - np.eye(3)
    assert np.abs(channels).max() < 0.06
    assert scipy.stats.kstest(noise[2].ravel() / 0.1, 'norm').pvalue > 0.01


# All together


@pytest.mark.parametrize('preset', ['light', 'strong', 'cells'])
@pytest.mark.parametrize('content', ['random', 'black', 'white'])
def test_results_are_pixels(preset, content):
    patches = {'random': _patches(32), 'black': np.zeros, 'white': np.ones}[content]
    if callable(patches):
        patches = patches((32, 16, 16, 3), np.float32)
    got = np.asarray(augment(jax.random.key(0), patches, PRESETS[preset]))
    assert got.shape == patches.shape
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    assert got.min() >= 0
    assert got.max() <= 1


def test_none_changes_nothing():
    patches = _patches()
    np.testing.assert_array_equal(augment(jax.random.key(0), patches, PRESETS['none']), patches)


def test_a_key_gives_the_same_and_patches_their_own():
    patches = np.tile(_smooth(1), (4, 1, 1, 1))
    one, again, other = (
        np.asarray(augment(jax.random.key(seed), patches, PRESETS['strong'])) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).mean() > 0.01
    for first in range(4):
        for second in range(first):
            assert np.abs(one[first] - one[second]).mean() > 0.01


@pytest.mark.parametrize('field', [field.name for field in dataclasses.fields(Augmentation)])
def test_each_setting_alone_changes_patches_by_amounts_of_their_own(field):
    strong = dataclasses.asdict(PRESETS['strong'])
    fields = {'elastic_alpha', 'elastic_sigma'} if field.startswith('elastic') else {field}
    if field == 'blur':
        strong['blur'] = (0.5, 1.0)
    settings = Augmentation(**{name: strong[name] for name in fields})
    patches = np.tile(_smooth(1), (16, 1, 1, 1))
    got = np.asarray(augment(jax.random.key(0), patches, settings))
    assert np.abs(got - patches).max() > 0.01
    assert len(np.unique(got.reshape(16, -1), axis=0)) >= (5 if field == 'turn' else 16)


def test_what_is_off_does_not_change_what_others_draw():
    patches = _patches()
    settings = Augmentation(brightness=(0.5, 1.0))
    alone = augment(jax.random.key(0), patches, settings)
    both = augment(jax.random.key(0), patches, dataclasses.replace(settings, turn=True))
    np.testing.assert_allclose(np.mean(alone, (1, 2, 3)), np.mean(both, (1, 2, 3)), **CLOSE)


@pytest.mark.slow
def test_compiled_equals_eager():
    patches = _smooth()
    compiled = augment(jax.random.key(0), patches, PRESETS['strong'])
    with jax.disable_jit():
        eager = augment(jax.random.key(0), jnp.asarray(patches), PRESETS['strong'])
    # Positions rounded otherwise, and contrast on top.
    np.testing.assert_allclose(compiled, eager, rtol=0, atol=2e-5)


def test_a_new_key_compiles_nothing():
    patches, settings = _patches(3, 10), {'zoom': (0.9, 1.1), 'noise': (0, 0.1)}
    augment(jax.random.key(0), patches, Augmentation(**settings))
    before = augment._cache_size()
    augment(jax.random.key(1), patches, Augmentation(**settings))
    assert augment._cache_size() == before


_SPLIT = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from nic_jax.patches.augmentation import PRESETS, augment

jax.config.update('jax_num_cpu_devices', 4)
mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
patches = np.random.default_rng(0).random((8, 16, 16, 3), np.float32)
split = jax.device_put(patches, NamedSharding(mesh, PartitionSpec('data')))
key = jax.random.key(0)
print(augment.lower(key, split, PRESETS['strong']).compile().as_text())
got, expected = (augment(key, one, PRESETS['strong']) for one in (split, patches))
np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)
"""


def test_devices_say_nothing_to_each_other():
    done = subprocess.run(
        [sys.executable, '-c', _SPLIT], check=True, capture_output=True, text=True, timeout=300
    )
    assert 'num_partitions=4' in done.stdout
    pattern = r'all-(gather|reduce|to-all)|collective-permute|reduce-scatter'
    assert not re.search(pattern, done.stdout)


def test_cells_of_one_channel():
    digits = np.zeros((8, 9, 9, 1), np.float32)
    digits[:, 1:8, 4] = 1
    got = np.asarray(augment(jax.random.key(0), digits, PRESETS['cells']))
    assert got.shape == digits.shape
    assert (got != digits).any((1, 2, 3)).all()
    # A vertical stroke still is one: most of its ink lies within a pixel of where it was.
    assert (got[:, :, 3:6].sum((1, 2, 3)) > 0.9 * got.sum((1, 2, 3))).all()


@pytest.mark.parametrize(
    ('patches', 'settings', 'message'),
    [
        (np.zeros((2, 9, 9, 1), np.float32), PRESETS['strong'], 'hsv=1.0 and hed=0.2 need'),
        (np.zeros((2, 9, 9, 3), np.uint8), PRESETS['none'], 'uint8'),
        (np.zeros((2, 9, 9, 2), np.float32), PRESETS['none'], r'\[2, 9, 9, 2\]'),
        (np.zeros((2, 9, 8, 3), np.float32), PRESETS['none'], '9×8 px'),
    ],
)
def test_patches_that_do_not_fit(patches, settings, message):
    with pytest.raises(ValueError, match=message):
        augment(jax.random.key(0), patches, settings)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'zoom': (1.2, 0.8)}, 'zoom'),
        ({'zoom': (0.0, 1.0)}, 'zoom'),
        ({'noise': 0.1}, 'noise=0.1 must be a range'),
        ({'blur': (-1, 1)}, 'blur'),
        ({'contrast': (0, float('nan'))}, 'contrast'),
        ({'hsv': 1.5}, 'hsv=1.5'),
        ({'hed': -0.1}, 'hed=-0.1'),
        ({'elastic_alpha': (80, 120)}, 'elastic_sigma'),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)


@pytest.mark.slow
def test_sheet_has_a_row_for_each_transform(tmp_path):
    assert list(augmentation_sheet.single_transforms(PRESETS['cells'])) == ['zoom', 'elastic']
    strong = augmentation_sheet.single_transforms(PRESETS['strong'])
    assert strong['hed'] == Augmentation(hed=0.2)
    patches = (255 * _smooth(2)).astype(np.uint8)
    augmentation_sheet.augmentation_sheet(patches, tmp_path / 'sheet.png', seed=0)
    with PIL.Image.open(tmp_path / 'sheet.png') as sheet:
        assert sheet.height > 1000


def test_settings_from_a_file_are_the_same():
    lists = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(PRESETS['strong']).items()
    }
    assert Augmentation(**lists) == PRESETS['strong']
    assert hash(Augmentation(**lists)) == hash(PRESETS['strong'])
    assert augmentation.PRESETS['none'] == Augmentation()
