"""The stage that trains encoders and classifiers together, on the pixels of slides or images.

    ENCODER/finetune/classifier/LABEL/MODEL/seed_S/fold_K/   an encoder and a classifier
    ENCODER/finetune/classifier/LABEL/MODEL/predictions.csv  hold-outs, as those of `classify`

Each fold begins with the encoder and with the classifier that `classify` has trained in that fold,
and sees the same training and validation slides.
"""

import collections
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from nic_jax import learned, progress, sweeps, workdir
from nic_jax.classifiers.cross_validation import Dataset, kept_scores, prediction_rows
from nic_jax.classifiers.prediction import predict
from nic_jax.classifiers.trained import RECORD, load_trained
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.storage import read_encoder
from nic_jax.evaluation import predictions
from nic_jax.finetuning.encoded import EncodedGrid, encode_slide
from nic_jax.finetuning.pixels import Pixels
from nic_jax.finetuning.settings import FinetuneSettings
from nic_jax.finetuning.training import Tuned, finetune
from nic_jax.folds import subset_cases

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
    told = {
        'encoder': folder.name,
        'label_name': dataset.label_name,
        'model': model + sweeps.suffix(config, model),
    }
    title = ', '.join(told.values())
    base, place = (
        learned.classifier(own, told['label_name'], told['model'])
        for own in learned.folders(folder)
    )
    only_folds = config.cohort.only_folds if 'cohort' in config else ()
    folds = tuple(only_folds) or tuple(range(len(dataset.folds)))
    unlabelled = np.flatnonzero(~dataset.has_label)
    if 'cohort' in config and not config.cohort.predict_unlabelled:
        unlabelled = unlabelled[:0]
    rows, waiting = [], 0
    for seed in config.classifier.seeds:
        scores = collections.defaultdict(dict)  # slide -> {fold: scores}
        for number in folds:
            here = f'seed_{seed}/fold_{number}'
            fold = subset_cases(
                dataset.folds[number],
                dataset.case_ids,
                dataset.targets,
                slides=config.classifier.train_slides,
                task=dataset.task,
                seed=number,
            )
            with workdir.lock(place, here) as free:
                if not free:
                    waiting += 1
                    continue
                wanted = np.concatenate([fold.test, unlabelled])
                if not (place / here / RECORD).exists():
                    used = np.concatenate([fold.train, fold.valid, wanted])
                    _check(pixels[index] for index in used)
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
                    report=functools.partial(_report, home, {**told, 'seed': seed, 'fold': number}),
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
                found = kept_scores(
                    place / here / 'scores.json',
                    dataset,
                    wanted,
                    lambda missing, tuned=tuned, encode=encode: (
                        predict(tuned.classifier, [encode(index)])[0] for index in missing
                    ),
                )
            for index, score in zip(wanted.tolist(), found, strict=True):
                scores[index][number] = score
        for index, by_fold in sorted(scores.items()):
            mean = len(by_fold) == len(folds)
            rows += prediction_rows(dataset, index, by_fold, model=model, seed=seed, mean=mean)
    if waiting:
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
        own = place / f'seed_{config.classifier.seeds[0]}' / f'fold_{fold}'
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
