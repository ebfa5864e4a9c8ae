"""The stage that trains encoders and classifiers together, on the pixels of slides or images.

    ENCODER/finetune/classifier/LABEL/MODEL/seed_S/fold_K/   an encoder and a classifier
    ENCODER/finetune/classifier/LABEL/MODEL/predictions.csv  hold-outs, as those of `classify`

Each fold begins with the encoder and with the classifier that `classify` has trained in that fold,
and sees the same training and validation slides.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from nic_jax import learned, options, progress, sweeps, workdir
from nic_jax.classifiers.cross_validation import Dataset, Predict, predict_folds
from nic_jax.classifiers.prediction import predict
from nic_jax.classifiers.trained import RECORD, load_trained
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.storage import read_encoder
from nic_jax.evaluation import predictions
from nic_jax.finetuning.encoded import EncodedGrid, encode_slide
from nic_jax.finetuning.pixels import Pixels
from nic_jax.finetuning.settings import FinetuneSettings
from nic_jax.finetuning.training import Tuned, finetune
from nic_jax.folds import Fold

Config = ml_collections.ConfigDict


def finetune_all(
    config: Config,
    home: pathlib.Path,
    folder: pathlib.Path,
    encoder: Encoder,
    dataset: Dataset,
    model: str,
    pixels: Sequence[Pixels],
    *,
    overwrite: bool,
) -> bool:
    """Trains every seed and fold of a model on a label that is not yet.

    Predicts the hold-outs and, as `classify` does, slides without a label.

    Args:
        config: The experiment's.
        home: The workdir.
        folder: The encoder's grids and classifiers.
        encoder: To begin with.
        dataset: Its grids, and what is known of them.
        model: The classifier's name.
        pixels: Of each grid of the data set.
        overwrite: Replace what other settings have trained.

    Returns:
        False while other processes still train some folds.

    Raises:
        ValueError: Pixels that cannot be read, no trained classifier to begin with, or folders
            made with other settings or from another classifier.
        FloatingPointError: A loss is not finite.
    """
    settings = FinetuneSettings(**config.finetune)
    names = (dataset.label_name, model + sweeps.suffix(config, model))
    base, place = (learned.classifier(own, *names) for own in learned.folders(folder))
    title = ', '.join((folder.name, *names))

    def fit(seed: int, number: int, fold: Fold) -> Predict:
        here = learned.network(seed, number)
        if not (place / here / RECORD).exists():
            used = [fold.train, fold.valid, fold.test]
            if options.predict_unlabelled(config):
                used.append(dataset.unlabelled)
            _check(pixels[index] for index in np.concatenate(used))
        where = dict(zip(('encoder', 'label_name', 'model'), (folder.name, *names), strict=True))
        tuned = finetune(
            encoder,
            load_trained(base / here),
            train=dataset.examples(fold.train),
            valid=dataset.examples(fold.valid),
            train_pixels=[pixels[index] for index in fold.train],
            valid_pixels=[pixels[index] for index in fold.valid],
            settings=settings,
            seed=seed,
            folder=place / here,
            report=functools.partial(_report, home, {**where, 'seed': seed, 'fold': number}),
            tell=lambda text: progress.console.print(f'finetune: {title}: {text}'),
            identity={
                **dataset.identity,
                'label': dataset.label_name,
                'fold': number,
                'began_with': workdir.fingerprint(base / here / RECORD),
            },
            overwrite=overwrite,
        )
        encode = _encoding(tuned, dataset, pixels, chunk=settings.chunk)
        return lambda indices: (predict(tuned.classifier, [encode(index)])[0] for index in indices)

    rows = predict_folds(
        dataset,
        fit,
        model=model,
        seeds=config.classifier.seeds,
        folder=place,
        train_slides=config.classifier.train_slides,
        only_folds=options.only_folds(config),
        predict_unlabelled=options.predict_unlabelled(config),
    )
    if rows is None:
        progress.console.print(f'finetune: {title}: other processes still train some folds')
        return False
    predictions.write(place / 'predictions.csv', rows)
    progress.console.print(f'finetune: {title}: {len(rows)} predictions → {place}')
    return True


def _check(pixels: Iterable[Pixels]) -> None:
    """Names all that cannot be read, before anything long."""
    reasons = []
    for each in pixels:
        try:
            each.check()
        except ValueError as error:
            reasons.append(str(error))
    if reasons:
        raise ValueError('\n'.join(reasons))


def recoding(
    config: Config, place: pathlib.Path, dataset: Dataset, pixels: Sequence[Pixels]
) -> Callable[[int, int], EncodedGrid]:
    """What encodes a slide, by its index in the data set, as a fold's trained encoder does.

    Args:
        config: The experiment's.
        place: The model's folder, of whose first seed the folds are.
        dataset: The grids that the slides were trained from.
        pixels: Of each grid.

    Returns:
        (index, fold) -> the slide's codes.
    """

    @functools.cache
    def encode(fold: int) -> Callable[[int], EncodedGrid]:
        own = place / learned.network(config.classifier.seeds[0], fold)
        tuned = Tuned(read_encoder(own), load_trained(own))
        return _encoding(tuned, dataset, pixels, chunk=config.finetune.chunk)

    return lambda index, fold: encode(fold)(index)


def _encoding(
    tuned: Tuned, dataset: Dataset, pixels: Sequence[Pixels], *, chunk: int
) -> Callable[[int], EncodedGrid]:
    encoder, classifier = tuned
    encode, variables = jax.jit(encoder.apply), jax.device_put(encoder.variables)
    # As many layers of codes as the grids have that the classifier was trained on.
    layout_alone = dataset.identity.get('turn_grids') or not pixels[0].turns_patches
    versions = 1 if layout_alone else max(classifier.settings.versions) + 1
    return lambda index: encode_slide(
        pixels[index], functools.partial(encode, variables), versions=versions, chunk=chunk
    )


def _report(home: pathlib.Path, told: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    workdir.log_metrics(home, {'stage': 'finetune', **told, **record})
    names = ', '.join(str(told[key]) for key in ('encoder', 'label_name', 'model'))
    text = f'finetune: {names}, seed {told["seed"]} fold {told["fold"]}: step {record["step"]}, '
    text += f'valid loss {record["valid_loss"]:.3f}'
    if record['step']:
        share = record['waited'] / record['seconds']
        text += f', loss {record["loss"]:.3f}, {record["seconds"]:.2f} s a step, {share:.0%} of it '
        text += 'for pixels'
    progress.console.print(text)
