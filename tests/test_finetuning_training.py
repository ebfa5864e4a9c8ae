"""Encoders and classifiers trained together on real slides: resumed, held, adapted, kept."""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest
from bags import compile_quickly
from slide_files import tissue_image, write_pyramid

import nic_jax.grids
from nic_jax.classifiers.batches import Draw, Examples
from nic_jax.classifiers.losses import validation
from nic_jax.classifiers.prediction import predict
from nic_jax.classifiers.trained import TrainSettings, load_trained
from nic_jax.classifiers.training import train
from nic_jax.cohort import SlideEntry
from nic_jax.compression.compress import compress_cohort, grid_path
from nic_jax.compression.settings import CompressSettings
from nic_jax.encoders.architectures import encoder_network
from nic_jax.encoders.conv import conv_encoder, module
from nic_jax.encoders.storage import load_encoder, read_encoder
from nic_jax.finetuning.encoded import encode_slide
from nic_jax.finetuning.pixels import PixelCache
from nic_jax.finetuning.settings import FinetuneSettings
from nic_jax.finetuning.slide_pixels import OpenSlides, SlidePixels
from nic_jax.finetuning.training import finetune
from nic_jax.grids.versions import turn_back
from nic_jax.slides import stream
from nic_jax.slides.slide import open_slide
from nic_jax.workdir import fingerprint

SIZE = 16  # px of patches
SETTINGS = FinetuneSettings(
    steps=4, slides=2, chunk=8, hold=1, warmup=1, valid_every=2, checkpoint_every=1,
    encoder_rate=1e-3, classifier_rate=1e-3,
)  # fmt: skip


# What it trains on gets better in a few steps.
BETTER = dataclasses.replace(SETTINGS, hold=0, encoder_rate=3e-3, patience=9, steps=6)


@pytest.fixture(scope='module', autouse=True)
def _quickly():
    yield from compile_quickly()


@dataclasses.dataclass
class Cohort:
    encoder: object
    grids: list
    pixels: list
    home: object

    def examples(self, numbers, task='classification'):
        targets = np.array([number % 2 for number in numbers])
        if task == 'survival':
            targets = np.stack([10.0 + np.arange(len(numbers)), np.ones(len(numbers))], axis=1)
        grids = [self.grids[number] for number in numbers]
        return Examples(grids, targets, [f'case_{number}' for number in numbers])


@pytest.fixture(scope='module')
def cohort(tmp_path_factory):
    """Twelve slides, every second one darker, encoded by a network with random weights."""
    home = tmp_path_factory.mktemp('cohort')
    network = encoder_network('vae', family='pyramid', patch_size=SIZE, channels=3, code_size=6)
    network |= {'widths': [4, 8], 'dense': 8}
    variables = module(network).init(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32))
    encoder = conv_encoder('small', network, variables, mpp=1.0)
    entries = []
    for number in range(12):
        image = tissue_image(120, 104 + 16 * (number % 3), seed=number, margin=10)
        if number % 2:
            image = np.where(image == 255, image, (image * 0.6).astype(np.uint8))
        path = home / f's{number}.tif'
        write_pyramid(path, image, mpp=1.0)
        entries.append(SlideEntry(f's{number}', path))
    settings = CompressSettings(SIZE, SIZE, 1.0, tissue_mpp=2.0, versions=1, batch=8, workers=1)
    compress_cohort(entries, encoder, folder=home / 'small', settings=settings)
    opened, cache = OpenSlides(), PixelCache(1 << 20)
    grids, pixels = [], []
    for entry in entries:
        grid = nic_jax.grids.open(grid_path(home / 'small', entry.slide_id), layout_only=True)
        opener = functools.partial(open_slide, entry.path)
        get = functools.partial(opened.get, entry.slide_id, opener)
        pixels.append(SlidePixels(entry.slide_id, get, grid.encoded, grid.attributes, cache))
        grids.append(grid)
    with contextlib.closing(opened):
        yield Cohort(encoder, grids, pixels, home)


@pytest.fixture(scope='module')
def base(cohort, tmp_path_factory):
    """A classifier by task."""

    @functools.cache
    def trained(task):
        return train(
            train=cohort.examples(range(8), task),
            valid=cohort.examples(range(8, 12), task),
            task=task,
            classes=2 if task == 'classification' else 1,
            model='spatial',
            fields={'width': 6, 'units': 5, 'windows': (1, 3)},
            settings=TrainSettings(crop=9, batch=4, epochs=2, versions=(0, 5)),
            seed=0,
            folder=tmp_path_factory.mktemp(task),
        )

    return trained


def tune(
    cohort,
    base,
    folder,
    settings=SETTINGS,
    *,
    task='classification',
    validated=range(8, 12),
    **more,
):
    return finetune(
        cohort.encoder,
        base(task),
        train=cohort.examples(range(8), task),
        valid=cohort.examples(validated, task),
        train_pixels=cohort.pixels[:8],
        valid_pixels=[cohort.pixels[number] for number in validated],
        settings=settings,
        seed=0,
        folder=folder,
        **more,
    )


def changed(before, after):
    """Names of the parameters that differ."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return {jax.tree_util.keystr(path) for (path, a), b in pairs if not np.array_equal(a, b)}


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first.encoder.variables, second.encoder.variables)
    jax.tree.map(
        np.testing.assert_array_equal, first.classifier.variables, second.classifier.variables
    )


@pytest.mark.parametrize('version', [0, 3, 5])
def test_a_crop_is_of_the_patches_that_its_codes_are_of(cohort, version):
    """Each patch and the layout are turned alike; what is encoded lies where the grid has it."""
    grid, pixels = cohort.grids[1], cohort.pixels[1]
    draw = Draw(0, -2, 1, version=version)
    patches = pixels.crop(draw, size=9)
    read = patches.read(0, len(patches.cells))
    upright = np.stack([turn_back(patch, version) for patch in read])
    codes = np.asarray(cohort.encoder.apply(cohort.encoder.variables, upright))
    found = np.zeros((81, 6), np.float32)
    found[patches.cells] = codes
    # float16 on disk
    np.testing.assert_allclose(
        found.reshape(9, 9, 6), grid.crop(-2, 1, 9, version), rtol=2e-3, atol=2e-3
    )


def test_crops_share_the_pixels_that_are_kept_in_memory(cohort, monkeypatch):
    kept = dataclasses.replace(cohort.pixels[1], cache=PixelCache(1 << 20))
    straight = dataclasses.replace(kept, cache=PixelCache(0))
    kept.keep()
    straight.keep()  # there is no room

    def all_of(pixels, top, left, size, start=0):
        patches = pixels.crop(Draw(0, top, left, version=3), size=size)
        return patches.cells[start:], patches.read(start, len(patches.cells))

    inner = [(0, 0, 4), (2, 1, 4), (1, 2, 3)]
    expected = [all_of(straight, *place) for place in inner]
    for start in (2, 0):  # some of it, then all
        for found, theirs in zip(
            all_of(kept, -1, -1, 9, start), all_of(straight, -1, -1, 9, start), strict=True
        ):
            np.testing.assert_array_equal(found, theirs)
    monkeypatch.setattr(stream, 'read_cells', lambda *_: pytest.fail('was read before'))
    for place, theirs in zip(inner, expected, strict=True):
        for found, other in zip(all_of(kept, *place), theirs, strict=True):
            np.testing.assert_array_equal(found, other)
    with pytest.raises(pytest.fail.Exception, match='was read before'):
        all_of(straight, *inner[0])


def test_new_codes_are_those_of_compressing(cohort):
    encode = functools.partial(cohort.encoder.apply, cohort.encoder.variables)
    encoded = encode_slide(cohort.pixels[2], encode, versions=1, chunk=8)
    np.testing.assert_allclose(encoded.codes[0], cohort.grids[2].codes(), rtol=2e-3, atol=2e-3)


def test_the_result_is_an_ordinary_encoder_and_classifier(cohort, base, tmp_path):
    reports = []
    tuned = tune(cohort, base, tmp_path / 'fold_0', report=reports.append)
    assert [record['step'] for record in reports] == [0, 2, 4]
    odd = tune(cohort, base, tmp_path / 'odd', dataclasses.replace(SETTINGS, steps=3))
    history = odd.classifier.history
    assert [record['step'] for record in history] == [0, 2, 3]  # the last one counts
    losses = [record['valid_loss'] for record in reports]
    assert tuned.classifier.best_epoch == int(np.argmin(losses))
    assert load_encoder(str(tmp_path / 'fold_0')).sha256() == tuned.encoder.sha256()
    jax.tree.map(
        np.testing.assert_array_equal,
        load_trained(tmp_path / 'fold_0').variables,
        tuned.classifier.variables,
    )
    seen = load_encoder(str(tmp_path / 'fold_0')).learned_from
    files = [cohort.home / f's{number}.tif' for number in range(12)]  # trains and validates on all
    assert seen == tuple(sorted(fingerprint(path)['fingerprint'] for path in files))
    again = tune(cohort, base, tmp_path / 'fold_0', report=lambda record: pytest.fail('trained'))
    assert_equal(again, tuned)


def learned(tuned):
    """What each step and validation gave; the last weights tell in it, whichever are kept."""
    return [
        (record['step'], record['loss'], record['valid_loss'])
        for record in tuned.classifier.history
    ]


def test_a_training_that_is_broken_off_goes_on_to_the_same_weights(cohort, base, tmp_path):
    whole = tune(cohort, base, tmp_path / 'whole')

    def stop(record):
        if record['step'] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(cohort, base, tmp_path / 'broken', report=stop)
    assert not (tmp_path / 'broken' / 'classifier.json').exists()
    # What is of memory alone may be less then.
    less = dataclasses.replace(SETTINGS, cache_gb=0.0)
    again = tune(cohort, base, tmp_path / 'broken', less)
    assert_equal(again, whole)
    assert learned(again) == learned(whole)


def test_the_form_and_the_chunk_decide_nothing(cohort, base, tmp_path):
    found = [
        tune(
            cohort,
            base,
            tmp_path / f'{form}{chunk}',
            dataclasses.replace(BETTER, form=form, chunk=chunk),
            validated=range(8),
        )
        for form, chunk in (('device', 8), ('streamed', 8), ('device', 24))
    ]
    assert found[0].classifier.best_epoch  # or the weights were those that it began with
    for other in found[1:]:
        for ours, theirs in zip(learned(found[0])[1:], learned(other)[1:], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3)
        # Sums in another order, and Adam, which divides by the size of the gradient.
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=3e-4),
            other.encoder.variables,
            found[0].encoder.variables,
        )


def test_the_encoder_is_kept_still_first_and_batch_norm_always(cohort, base, tmp_path):
    # Still in five steps, and thrown far off in the sixth.
    held = dataclasses.replace(BETTER, hold=4, steps=6, valid_every=1, encoder_rate=1e3)
    tuned = tune(cohort, base, tmp_path / 'held', held, validated=range(8))
    assert 0 < tuned.classifier.best_epoch <= 5
    assert not changed(cohort.encoder.variables, tuned.encoder.variables)
    tuned = tune(cohort, base, tmp_path / 'free', BETTER, validated=range(8))
    assert tuned.classifier.best_epoch  # what it trains on gets better
    names = changed(cohort.encoder.variables, tuned.encoder.variables)
    assert any('conv_0' in name for name in names)
    assert not any('batch_stats' in name for name in names)


def test_last_layers_and_adapters_leave_the_rest(cohort, base, tmp_path):
    for part, allowed in (('last:1', 'code'), ('lora:2', 'kernel')):
        settings = dataclasses.replace(BETTER, encoder_trains=part)
        folder = tmp_path / part.replace(':', '')
        tuned = tune(cohort, base, folder, settings, validated=range(8))
        names = changed(cohort.encoder.variables, tuned.encoder.variables)
        assert names
        assert all(allowed in name for name in names)
        read = read_encoder(tmp_path / part.replace(':', ''))  # adapters are merged
        assert read.network == cohort.encoder.network


def test_it_stops_without_patience_and_keeps_the_best(cohort, base, tmp_path):
    thrown = dataclasses.replace(SETTINGS, classifier_rate=1e3, steps=40, valid_every=1, patience=2)
    tuned = tune(cohort, base, tmp_path / 'fold', thrown)
    losses = [record['valid_loss'] for record in tuned.classifier.history]
    best = int(np.argmin(losses))
    assert tuned.classifier.best_epoch == best < 38
    assert len(losses) == best + 1 + 2  # two without a better one
    encode = functools.partial(tuned.encoder.apply, tuned.encoder.variables)
    valid = cohort.examples(range(8, 12))
    outputs = [
        predict(tuned.classifier, [encode_slide(cohort.pixels[n], encode, versions=1, chunk=8)],
                versions=(0,), crops=tuned.classifier.settings.valid_crops)
        for n in range(8, 12)
    ]  # fmt: skip
    kept, _ = validation(
        np.concatenate(outputs), valid.targets, 'classification', case_ids=valid.case_ids
    )
    assert kept == pytest.approx(losses[best], rel=1e-5)


def test_what_cannot_be_leaves_no_folder_behind(cohort, base, tmp_path):
    few = dataclasses.replace(SETTINGS, slides=9)
    with pytest.raises(ValueError, match=r'8 training cases .*finetune\.slides to 8 at most'):
        tune(cohort, base, tmp_path / 'fold', few, task='survival')
    with pytest.raises(ValueError, match='count=9 must be from 1 to the'):
        tune(
            cohort, base, tmp_path / 'fold', dataclasses.replace(SETTINGS, encoder_trains='last:9')
        )
    assert not (tmp_path / 'fold').exists()


@pytest.mark.slow
def test_half_precision_trains_weights_in_single(cohort, base, tmp_path):
    settings = dataclasses.replace(SETTINGS, precision='bfloat16', hold=0)
    tuned = tune(cohort, base, tmp_path / 'half', settings)
    exact = tune(cohort, base, tmp_path / 'single', dataclasses.replace(SETTINGS, hold=0))
    assert {leaf.dtype for leaf in jax.tree.leaves(tuned.encoder.variables)} == {np.dtype('f4')}
    losses = [
        [record['valid_loss'] for record in each.classifier.history] for each in (tuned, exact)
    ]
    assert losses[0][0] == losses[1][0]  # validation is in single precision
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_survival_is_tuned_over_risk_sets(cohort, base, tmp_path):
    settings = dataclasses.replace(SETTINGS, slides=4)
    tuned = tune(cohort, base, tmp_path / 'risk', settings, task='survival')
    first, *others = (record['loss'] for record in tuned.classifier.history)
    assert first is None  # before any step
    assert np.isfinite(others).all()
    assert others


def test_other_settings_are_refused(cohort, base, tmp_path):
    tune(cohort, base, tmp_path / 'fold')
    other = dataclasses.replace(SETTINGS, encoder_rate=1e-5)
    with pytest.raises(ValueError, match=r'finetuning\.encoder_rate'):
        tune(cohort, base, tmp_path / 'fold', other)
    with pytest.raises(ValueError, match="precision='half' must be one of float32, bfloat16"):
        FinetuneSettings(precision='half')
    with pytest.raises(ValueError, match='must be all, last:N or lora:R'):
        FinetuneSettings(encoder_trains='first:2')
