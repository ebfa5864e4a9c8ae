"""The stages of experiments on synthetic images: generated, never stored as images."""

import pathlib

import ml_collections
import numpy as np

from nic_jax import encoder_stage, options, prefetch, progress, sweeps, workdir
from nic_jax.classifiers.cross_validation import Dataset
from nic_jax.compression.images import attributes, compress_images
from nic_jax.encoders import storage
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.folds import Fold
from nic_jax.grids import VERSIONS, GridError, schema, stack
from nic_jax.report import pictures as pictures_
from nic_jax.synthetic import patches as patches_
from nic_jax.synthetic import rectangles
from nic_jax.synthetic.digits import DigitSet, load_digits
from nic_jax.synthetic.rectangles import RectangleStudy
from nic_jax.synthetic.study import Split, split_digits, split_images

Config = ml_collections.ConfigDict

ENCODERS = (*encoder_stage.OBJECTIVES, 'mean')


def patches(config: Config, workdir_: pathlib.Path, *, overwrite: bool) -> bool:
    """Draws the encoders' training cells and the oracle's digits."""
    folder = workdir_ / 'patches'
    images = sweeps.base_images(config)
    del images['stride']  # cells of digits do not depend on it
    study, split, digits = RectangleStudy(**images), split_of(config), digits_of(config)
    made_with = {
        'images': images,
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
        patches_.SUBSETS, (split.encoder_train, split.encoder_valid), counts, strict=True
    ):
        drawn = patches_.cell_patches(
            study, digits, images, seed=config.seed, count=count, workers=_workers(config)
        )
        arrays[f'cells_{subset}'] = drawn.patches
        arrays[f'neighbours_{subset}'] = drawn.neighbours
        workdir.save_array(
            folder / f'pairs_{subset}.npy', patches_.cell_pairs(drawn, subset, seed=config.seed)
        )
    for number, (subset, part, count) in enumerate(
        zip(patches_.SUBSETS, split_digits(digits, seed=config.seed), counts, strict=True)
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
                sources=lambda kind: patches_.source_of(
                    workdir_ / 'patches', kind, config.images.classes
                ),
                mpp=None,
                made_of={'cells': made_of, 'digits': made_of},
                overwrite=overwrite,
            )
    return True


def compress(config: Config, workdir_: pathlib.Path, *, overwrite: bool) -> bool:
    """Encodes the training and test images of the CNN."""
    study, split = RectangleStudy(**config.images), split_of(config)
    for folder in encoder_folders(config, workdir_):
        name, encoder = folder.name, load(folder.name, workdir_)
        for subset, indices in (('train', split.train), ('test', split.test)):
            path = stack_path(folder, subset)
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
    asked = options.names(config.encoder)
    for name in asked:
        if name not in ENCODERS:
            raise ValueError(f'no encoder {name!r} for synthetic images; {", ".join(ENCODERS)}')
    return asked


def load(folder_name: str, workdir_: pathlib.Path) -> Encoder:
    """The encoder of a folder of grids: a trained one of this workdir, or the mean of pixels."""
    name = sweeps.without_suffix(folder_name)
    return mean_rgb(channels=1) if name == 'mean' else storage.read_encoder(workdir_ / name)


def stack_path(folder: pathlib.Path, subset: str) -> pathlib.Path:
    """Where an encoder's grids of the training or test images lie."""
    return folder / 'grids' / f'{subset}.zarr'


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


def datasets(config: Config, workdir_: pathlib.Path, name: str) -> tuple[list[Dataset], bool]:
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
        groups={},
        versions=VERSIONS,
        identity={'train': train.fingerprint, 'test': test.fingerprint},
    )
    return [found], True


def _open_stack(config: Config, workdir_: pathlib.Path, name: str, subset: str) -> stack.Stack:
    """Opens the grids of a subset, if they are those that the config asks for."""
    path, split = stack_path(workdir_ / name, subset), split_of(config)
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
    """Says how many images, cells and GB the experiment comes to, at all points of its sweep."""
    split, data = split_of(config), config.data
    progress.console.print(
        f'{data.encoder_images:,} images for the encoders, {len(split.train):,} for the CNN '
        f'({split.valid_count:,} of them validate), {len(split.test):,} to test'
    )
    grids = {
        folder.name: (RectangleStudy(**point.images).grid_cells, point.code_size)
        for _, point in sweeps.points(config)
        for folder in encoder_folders(point, pathlib.Path())
    }
    for name, (cells, code_size) in grids.items():
        code_size = 1 if sweeps.without_suffix(name) == 'mean' else code_size
        gigabytes = (len(split.train) + len(split.test)) * cells**2 * code_size * 2 / 1e9
        progress.console.print(
            f'{name}: {cells}×{cells} cells an image, at most {gigabytes:.3g} GB of codes'
        )
    progress.console.print('Nothing was written.')
    return True


def encoder_folders(config: Config, workdir_: pathlib.Path) -> list[pathlib.Path]:
    """The folder of each encoder's grids; that of its weights is the same but for a sweep's '@'."""
    trained, grids = sweeps.encoder_suffix(config), sweeps.grid_suffix(config)
    return [
        workdir_ / (name + ('' if name == 'mean' else trained) + grids) for name in names(config)
    ]


def pictures(config: Config, workdir_: pathlib.Path) -> list[pathlib.Path]:
    """Draws a test image, its mask, and some of each encoder's grid of it.

    Points of a sweep that have grids of their own have a picture of their own.
    """
    drawn = {}
    for _, point in sweeps.points(config):
        name = f'image{sweeps.encoder_suffix(point)}{sweeps.grid_suffix(point)}.png'
        drawn.setdefault(workdir_ / 'report' / name, point)
    for path, point in drawn.items():
        _draw_image(point, encoder_folders(point, workdir_), path)
    return list(drawn)


def _draw_image(config: Config, folders: list[pathlib.Path], path: pathlib.Path) -> None:
    """Draws the first test image that has a cell of its grid in the tilted rectangle."""
    study, digits = RectangleStudy(**config.images), digits_of(config, 'test')
    images = rectangles.generate(study, digits, seed=config.seed, indices=split_of(config).test)
    number, image = next(each for each in enumerate(images) if each[1].grid_mask.any())
    grids = {}
    for folder in folders:
        codes = stack.open_stack(stack_path(folder, 'test')).codes[number]
        grids[folder.name] = np.asarray(codes, np.float32)
    title = f'a test image of digit {image.label}: the one in the tilted rectangle'
    pictures_.image_and_grid(image.pixels, image.grid_mask, grids, path, title=title)
