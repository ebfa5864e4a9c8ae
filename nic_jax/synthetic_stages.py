"""The stages of experiments on synthetic images: generated, never stored as images."""

import dataclasses
import pathlib

import ml_collections
import numpy as np

from nic_jax import prefetch, progress, workdir
from nic_jax.classifiers.cross_validation import Dataset
from nic_jax.compression.images import attributes, compress_images
from nic_jax.encoders import storage
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.encoders.supervised import train_supervised
from nic_jax.encoders.training import EncoderSettings
from nic_jax.encoders.vae import train_vae
from nic_jax.folds import Fold
from nic_jax.grids import VERSIONS, GridError, schema, stack
from nic_jax.report import pictures as pictures_
from nic_jax.synthetic import patches as patches_
from nic_jax.synthetic import rectangles
from nic_jax.synthetic.digits import DigitSet, load_digits
from nic_jax.synthetic.rectangles import RectangleStudy
from nic_jax.synthetic.study import Split, split_digits, split_images

Config = ml_collections.ConfigDict

ENCODERS = ('supervised', 'vae', 'mean')

# The networks for 9×9 px of the paper's supplement.
_NETWORK = {
    'kind': 'conv',
    'widths': [32, 64],
    'dense': 64,
    'padding': 'SAME',
    'norm_after': False,
    'slope': 0.2,
    'epsilon': 1e-3,
    'averaged': False,
    'channels': 1,
}


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
    """Writes the arrays of training and validation patches, and a sheet of them."""
    valid_count = config.data.patches // 4
    arrays = {}
    for name, images, count in (
        ('cells_train', split.encoder_train, config.data.patches - valid_count),
        ('cells_valid', split.encoder_valid, valid_count),
    ):
        drawn = patches_.cell_patches(
            study, digits, images, seed=config.seed, count=count, workers=_workers(config)
        )
        arrays[name] = drawn[0]
    for number, (name, part, count) in enumerate(
        zip(
            ('digits_train', 'digits_valid'),
            split_digits(digits, seed=config.seed),
            (config.data.patches - valid_count, valid_count),
            strict=True,
        )
    ):
        arrays[name], arrays[f'{name}_labels'] = patches_.digit_patches(
            part, seed=config.seed + number, count=count, jitter=study.jitter, cell=study.cell
        )
    for name, values in arrays.items():
        workdir.save_array(folder / f'{name}.npy', values)
    pictures_.patch_sheet(
        {name: arrays[name][:200] * 255 for name in ('cells_train', 'digits_train')},
        folder / 'patches.png',
    )


def encoder(config: Config, workdir_: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains the supervised and the unsupervised encoders on 9×9 px.

    Raises:
        ValueError: Their patches are not there.
    """
    if not workdir.is_finished(workdir_ / 'patches'):
        raise ValueError(f'{workdir_ / "patches"} is not finished; run the stage patches first')
    for name in names(config):
        if name == 'mean':
            continue
        folder = workdir_ / name
        settings = EncoderSettings(**config[name])
        made_with = {
            'settings': dataclasses.asdict(settings),
            'code_size': config.code_size,
            'seed': config.seed,
            'decoder': config.vae_decoder.to_dict() if name == 'vae' else None,
            'patches': workdir.made_with(workdir_ / 'patches'),
        }
        with workdir.alone(workdir_, f'{name}/encoder'):
            if workdir.begin(folder / 'encoder', made_with, overwrite=overwrite):
                progress.console.print(f'encoder: {name} is trained')
                continue
            trained = _train(name, config, settings, workdir_, folder)
            storage.write_encoder(folder, trained)
            workdir.finish(folder / 'encoder')
        progress.console.print(f'encoder: {name} trained → {folder / "encoder"}')
    return True


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
    names(config)
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


def _train(name, config, settings, workdir_, folder) -> Encoder:
    network = {**_NETWORK, 'code_size': config.code_size, 'input_size': config.images.cell}
    kind = 'digits' if name == 'supervised' else 'cells'
    data, valid = ({}, {})
    for part, target in (('train', data), ('valid', valid)):
        source = workdir_ / 'patches' / f'{kind}_{part}.npy'
        target['patches'] = np.load(source, mmap_mode='r')[..., None] * np.uint8(255)
        if name == 'supervised':
            target['labels'] = np.load(source.with_stem(f'{source.stem}_labels')).astype(np.int32)

    with progress.bar(f'encoder {name}', total=settings.steps, unit='steps') as advance:

        def report(record):
            workdir.log_metrics(workdir_, {'stage': 'encoder', 'encoder': name, **record})
            parts = {key: value for key, value in record.items() if 'loss' in key or 'valid' in key}
            advance(settings.epoch_steps, description=f'encoder {name} {parts}')

        common = {
            'data': data,
            'valid': valid,
            'settings': settings,
            'seed': config.seed,
            'mpp': None,
            'folder': folder / 'encoder' / 'checkpoint',
            'report': report,
        }
        if name == 'supervised':
            return train_supervised(network, classes=config.images.classes, **common)
        trained, decode = train_vae(network, decoder=config.vae_decoder, **common)
    pictures_.reconstructions(
        valid['patches'][:200],
        np.asarray(decode(trained.apply(trained.variables, valid['patches'][:200]))),
        folder / 'encoder' / 'reconstructions.png',
    )
    return trained


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
