"""The stages of experiments on synthetic images: generated, never stored as images."""

import pathlib

import ml_collections
import numpy as np

from nic_jax import encoder_stage, prefetch, progress, workdir
from nic_jax.classifiers.cross_validation import Dataset
from nic_jax.compression.images import attributes, compress_images
from nic_jax.encoders import storage
from nic_jax.encoders.batches import Source
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.folds import Fold
from nic_jax.grids import VERSIONS, GridError, schema, stack
from nic_jax.patches import pairs as pairs_
from nic_jax.patches.store import Parts
from nic_jax.report import pictures as pictures_
from nic_jax.synthetic import patches as patches_
from nic_jax.synthetic import rectangles
from nic_jax.synthetic.digits import DigitSet, load_digits
from nic_jax.synthetic.rectangles import RectangleStudy
from nic_jax.synthetic.study import Split, split_digits, split_images

Config = ml_collections.ConfigDict

ENCODERS = (*encoder_stage.OBJECTIVES, 'mean')
_SUBSETS = ('train', 'valid')


def patches(config: Config, workdir_: pathlib.Path, *, overwrite: bool) -> bool:
    """Draws the encoders' training cells and the oracle's digits."""
    folder = workdir_ / 'patches'
    study, split, digits = RectangleStudy(**config.images), split_of(config), digits_of(config)
    made_with = {
        'images': config.images.to_dict(),
        'digits': digits.fingerprint(),
        'encoder_images': config.data.encoder_images,
        'patches': config.data.patches,
        'seed': config.seed,
    }
    with workdir.alone(workdir_, 'patches'):
        if workdir.begin(folder, made_with, overwrite=overwrite):
            progress.console.print(f'patches: {folder} is complete')
        else:
            _draw_patches(config, study, split, digits, folder)
            workdir.finish(folder)
            progress.console.print(f'patches: {config.data.patches:,} cells and digits → {folder}')
    return True


def _draw_patches(config, study, split, digits, folder) -> None:
    """Writes the arrays of training and validation patches, pairs of them, and a sheet."""
    valid_count = config.data.patches // 4
    counts = (config.data.patches - valid_count, valid_count)
    arrays = {}
    for subset, images, count in zip(
        _SUBSETS, (split.encoder_train, split.encoder_valid), counts, strict=True
    ):
        drawn = patches_.cell_patches(
            study, digits, images, seed=config.seed, count=count, workers=_workers(config)
        )
        arrays[f'cells_{subset}'] = drawn.patches
        arrays[f'neighbours_{subset}'] = drawn.neighbours
        workdir.save_array(folder / f'pairs_{subset}.npy', _cell_pairs(drawn, subset, config.seed))
    for number, (subset, part, count) in enumerate(
        zip(_SUBSETS, split_digits(digits, seed=config.seed), counts, strict=True)
    ):
        arrays[f'digits_{subset}'], labels = patches_.digit_patches(
            part, seed=config.seed + number, count=count, jitter=study.jitter, cell=study.cell
        )
        workdir.save_array(folder / f'labels_{subset}.npy', labels.astype(np.int32))
    for name, values in arrays.items():
        arrays[name] = values[..., None] * np.uint8(255)  # [N, P, P] of 0, 1 -> [N, P, P, 1]
        workdir.save_array(folder / f'{name}.npy', arrays[name])
    pictures_.patch_sheet(
        {name: arrays[name][:200] for name in ('cells_train', 'digits_train')},
        folder / 'patches.png',
    )


def _cell_pairs(drawn: patches_.Cells, subset: str, seed: int) -> np.ndarray:
    """As many pairs as cells, int32 `[N, 3]`, by the shares of `patches.pairs`.

    Indices are of the cells, and from N on of their neighbours.
    """
    N = len(drawn.patches)
    rng = np.random.default_rng((seed, *subset.encode(), *b'pairs'))
    counts = pairs_.count_kinds(N)
    order = rng.permutation(N)
    same, beside = order[: counts.same], order[counts.same : counts.same + counts.adjacent]
    apart = pairs_.different_sources(rng, drawn.images, counts.apart, subset)
    pairs = [
        np.stack([same, same, np.ones_like(same)], axis=1),
        np.stack([beside, beside + N, np.zeros_like(beside)], axis=1),
        np.column_stack([apart, np.zeros(len(apart), int)]),
    ]
    return rng.permutation(np.concatenate(pairs)).astype(np.int32)


def encoder(config: Config, workdir_: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains encoders on 9×9 px.

    Raises:
        ValueError: Their patches are not there.
    """
    if not workdir.is_finished(workdir_ / 'patches'):
        raise ValueError(f'{workdir_ / "patches"} is not finished; run the stage patches first')
    for name in names(config):
        if name != 'mean':
            made_of = workdir.made_with(workdir_ / 'patches')
            encoder_stage.train_encoder(
                name,
                config,
                workdir_,
                sources=lambda kind: source_of(workdir_ / 'patches', kind, config.images.classes),
                mpp=None,
                made_of={'cells': made_of, 'digits': made_of},
                overwrite=overwrite,
            )
    return True


def source_of(folder: pathlib.Path, kind: str, classes: int) -> Source:
    """The patches of one kind, 'cells' (with pairs) or 'digits' (with labels)."""
    arrays = {
        (name, subset): np.load(folder / f'{name}_{subset}.npy', mmap_mode='r')
        for name in ((kind, 'neighbours') if kind == 'cells' else (kind,))
        for subset in _SUBSETS
    }
    count, valid_count = (len(arrays[kind, subset]) for subset in _SUBSETS)
    train, valid = np.arange(count), np.arange(count, count + valid_count)
    if kind == 'digits':
        labels = [np.load(folder / f'labels_{subset}.npy') for subset in _SUBSETS]
        names = tuple(str(digit) for digit in range(classes))
        return Source(Parts(arrays.values()), train, valid, np.concatenate(labels), names)
    pairs = {}
    # The arrays' order is training, validation, and their neighbours in the same order.
    for subset, first in (('train', 0), ('valid', count)):
        found = np.load(folder / f'pairs_{subset}.npy')
        beside = found[:, :2] >= len(arrays[kind, subset])
        other = count + valid_count - len(arrays[kind, subset])  # of the other subset, in between
        found[:, :2] += first + np.where(beside, other, 0).astype(np.int32)
        pairs[subset] = found
    return Source(Parts(arrays.values()), train, valid, pairs=pairs)


def compress(config: Config, workdir_: pathlib.Path, *, overwrite: bool) -> bool:
    """Encodes the training and test images of the CNN."""
    study, split = RectangleStudy(**config.images), split_of(config)
    for name in names(config):
        encoder = load(name, workdir_)
        for subset, indices in (('train', split.train), ('test', split.test)):
            path = stack_path(workdir_, name, subset)
            with workdir.alone(workdir_, f'{name}/grids/{subset}'):
                count = compress_images(
                    encoder,
                    study,
                    digits_of(config, subset),
                    indices=indices,
                    seed=config.seed,
                    path=path,
                    workers=_workers(config),
                    overwrite=overwrite,
                )
            state = f'{count} images encoded' if count else 'complete'
            progress.console.print(f'compress: {name}, {subset}: {state} → {path}')
    return True


def check(config: Config) -> None:
    """Checks the encoders' names and the images' sizes.

    Raises:
        ValueError: One that cannot be.
    """
    encoder_stage.check(config, [name for name in names(config) if name != 'mean'])
    RectangleStudy(**config.images)


def names(config: Config) -> list[str]:
    """The encoders asked for.

    Raises:
        ValueError: One that does not exist.
    """
    asked = [name.strip() for name in config.encoder.split(',')]
    for name in asked:
        if name not in ENCODERS:
            raise ValueError(f'no encoder {name!r} for synthetic images; {", ".join(ENCODERS)}')
    return asked


def load(name: str, workdir_: pathlib.Path) -> Encoder:
    """A trained encoder of this workdir, or the mean of pixels."""
    return mean_rgb(channels=1) if name == 'mean' else storage.read_encoder(workdir_ / name)


def stack_path(workdir_: pathlib.Path, name: str, subset: str) -> pathlib.Path:
    """Where the grids of the training or test images lie."""
    return workdir_ / name / 'grids' / f'{subset}.zarr'


def split_of(config: Config) -> Split:
    """Which images are for what."""
    data = config.data
    return split_images(
        encoder_images=data.encoder_images,
        train_images=data.train_images,
        test_images=data.test_images,
    )


def digits_of(config: Config, subset: str = 'train') -> DigitSet:
    """Training or test digits; no digit is in both."""
    return load_digits(config.data.mnist or config.data.digits, subset=subset)


def _workers(config: Config) -> int:
    return config.workers or prefetch.default_workers()


def dataset(config: Config, workdir_: pathlib.Path, name: str) -> tuple[Dataset, bool]:
    """The training and test images of one encoder, as one fold; none is ever missing."""
    train, test = (_open_stack(config, workdir_, name, subset) for subset in ('train', 'test'))
    grids = [*train.grids(), *test.grids()]
    first_valid = len(train) - split_of(config).valid_count
    fold = Fold(
        train=np.arange(first_valid),
        valid=np.arange(first_valid, len(train)),
        test=np.arange(len(train), len(grids)),
    )
    found = Dataset(
        label_name='digit',
        task='classification',
        grids=grids,
        case_ids=[grid.slide_id for grid in grids],
        targets=np.concatenate([train.labels, test.labels]),
        has_label=np.ones(len(grids), bool),
        class_names=tuple(str(digit) for digit in range(config.images.classes)),
        folds=(fold,),
        lesion_areas=np.concatenate([train.lesion_areas(), test.lesion_areas()]),
        versions=VERSIONS,
        identity={'train': train.fingerprint, 'test': test.fingerprint},
    )
    return found, True


def _open_stack(config: Config, workdir_: pathlib.Path, name: str, subset: str) -> stack.Stack:
    """Opens the grids of a subset, if they are those that the config asks for."""
    path, split = stack_path(workdir_, name, subset), split_of(config)
    opened = stack.open_stack(path)
    asked = attributes(
        load(name, workdir_),
        RectangleStudy(**config.images),
        digits_of(config, subset),
        split.test if subset == 'test' else split.train,
        config.seed,
        path,
    )
    stored = {key: value for key, value in opened.attributes.items() if key != 'complete'}
    if differing := schema.differing_settings(stored, asked):
        raise GridError(schema.other_settings(path, differing))
    return opened


def dry_run(config: Config) -> bool:
    """Says how many images, cells and GB the experiment comes to."""
    split, study, data = split_of(config), RectangleStudy(**config.images), config.data
    images = len(split.train) + len(split.test)
    gigabytes = images * study.cells**2 * config.code_size * 2 / 1e9
    progress.console.print(
        f'{data.encoder_images:,} images for the encoders, {len(split.train):,} for the CNN '
        f'({split.valid_count:,} of them validate), {len(split.test):,} to test; '
        f'{study.cells}×{study.cells} cells each: at most {gigabytes:.3g} GB of codes for each of '
        f'{config.encoder}. Nothing was written.'
    )
    return True


def encoder_folders(config: Config, workdir_: pathlib.Path) -> list[pathlib.Path]:
    """The folder of each encoder asked for."""
    return [workdir_ / name for name in names(config)]


def pictures(config: Config, workdir_: pathlib.Path) -> list[pathlib.Path]:
    """Draws the first test image, its mask, and some of each encoder's grid of it."""
    grids = {}
    for name in names(config):
        test = stack.open_stack(stack_path(workdir_, name, 'test'))
        grids[name] = np.asarray(test.codes[0], np.float32)
    study, index = RectangleStudy(**config.images), split_of(config).test[0]
    image = rectangles.draw(study, digits_of(config, 'test'), seed=config.seed, index=index)
    path = workdir_ / 'report' / 'image.png'
    title = f'a test image of digit {image.label}: the one in the tilted rectangle'
    pictures_.image_and_grid(image.pixels, image.mask, grids, path, title=title)
    return [path]
