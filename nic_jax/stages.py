"""The stages, in order. Each is safe to run again: it resumes what is unfinished.

A stage is a function of (config, workdir) that returns whether all of its units succeeded. What
reads slides, reads tables of tiles or draws synthetic images differs, by `kinds`; from grids and
predictions on, the stages are the same.
"""

import contextlib
import itertools
import pathlib
import time
from collections.abc import Callable

import ml_collections

from nic_jax import (
    challenges,
    evaluate_stage,
    explain_measures,
    explain_stage,
    finetune_stage,
    kinds,
    learned,
    made_slides,
    options,
    progress,
    sweeps,
    tile_stages,
    workdir,
)
from nic_jax.classifiers.cross_validation import Dataset, cross_validate
from nic_jax.evaluation import predictions
from nic_jax.report import localisation
from nic_jax.report.page import nothing_known, write_page

Config = ml_collections.ConfigDict


def patches(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Draws the patches that encoders are trained on."""
    return kinds.stages(config).patches(config, home, overwrite=overwrite)


def encoder(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains encoders on patches."""
    return kinds.stages(config).encoder(config, home, overwrite=overwrite)


def compress(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Encodes slides or images into grids."""
    return kinds.stages(config).compress(config, home, overwrite=overwrite)


def slides(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Makes the slides of an experiment that brings none."""
    if not options.makes_slides(config):
        raise ValueError('the stage slides is for experiments that make their own slides')
    made = made_slides.make(config, home, overwrite=overwrite)
    kinds.stages(config).check(made_slides.located(config, home))
    return made


def classify(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains networks on grids, or probes on codes of tiles; predicts hold-outs and new slides."""
    if 'tasks' in config:
        return tile_stages.classify(config, home, overwrite=overwrite)
    finished = True
    for folder in kinds.stages(config).encoder_folders(config, home):
        datasets, complete = kinds.stages(config).datasets(config, home, folder.name)
        finished = finished and complete
        for dataset in datasets:
            for model in options.models(config):
                finished &= _classify(config, home, folder, dataset, model, overwrite=overwrite)
    return finished


def _classify(
    config: Config,
    home: pathlib.Path,
    folder: pathlib.Path,
    dataset: Dataset,
    model: str,
    *,
    overwrite: bool,
) -> bool:
    """Trains one model on one label; False while other processes still train some folds."""
    fields, settings = options.model_settings(config, model)
    names = (dataset.label_name, model + sweeps.suffix(config, model))
    place = learned.classifier(folder, *names)
    title = f'{folder.name}, {", ".join(names)}'
    only_folds = options.only_folds(config)
    networks = len(config.classifier.seeds) * len(dataset.chosen_folds(only_folds))
    with progress.bar(
        f'classify {title}', total=networks * settings.epochs, unit='epochs'
    ) as advance:

        def report(seed, fold, record):
            where = {'encoder': folder.name, 'label_name': names[0], 'model': names[1]}
            where |= {'seed': seed, 'fold': fold}
            workdir.log_metrics(home, {'stage': 'classify', **where, **record})
            told = f'{title}, seed {seed} fold {fold}: valid loss {record["valid_loss"]:.3f}'
            advance(1, description=told)

        began = time.perf_counter()
        rows = cross_validate(
            dataset,
            model=model,
            fields=fields,
            settings=settings,
            seeds=config.classifier.seeds,
            folder=place,
            report=report,
            train_slides=config.classifier.train_slides,
            only_folds=only_folds,
            predict_unlabelled=options.predict_unlabelled(config),
            overwrite=overwrite,
        )
    if rows is None:
        progress.console.print(
            f'classify: {title}: other processes still train some of its folds; run this stage '
            'again when they are done'
        )
        return False
    predictions.write(place / 'predictions.csv', rows)
    if overwrite:  # what was tuned from other networks is not compared with these
        tuned = learned.classifier(learned.folders(folder)[1], *names)
        (tuned / 'predictions.csv').unlink(missing_ok=True)
    progress.console.print(
        f'classify: {title}: {len(rows)} predictions in {time.perf_counter() - began:.0f} s → '
        f'{place / "predictions.csv"}'
    )
    return True


def evaluate(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Scores the hold-outs: tables and figures in report/, from every predictions.csv alone."""
    del overwrite
    rows = sweeps.read_points(config, home, kinds.stages(config).encoder_folders)
    if not rows:
        raise ValueError(f'{home} holds no predictions.csv of these encoders; classify first')
    submissions = []
    if 'cohort' in config:
        submissions = challenges.write_submissions(config.cohort.layout, rows, home / 'report')
    if submissions and all(row['subset'] == 'new' for row in rows):
        progress.console.print(
            f'evaluate: no fold tests a slide; {", ".join(map(str, submissions))}'
        )
        return True
    records, made = evaluate_stage.evaluate(
        rows,
        home=home,
        seed=config.seed,
        unit=config.evaluate.unit,
        points=config.sweep.key or '',
        times=('cohort' in config and config.cohort.time) or 'time',
    )
    for record in records:
        told = {name: record[name] for name in ('encoder', 'label_name', 'model', 'point')}
        told |= {name: record[name] for name in ('slides', 'seeds', 'mean', 'sd')}
        interval = {record['primary']: [record['low'], record['high']]}
        workdir.log_metrics(home, {'stage': 'evaluate', **told, 'interval_95': interval})
    made += submissions + _localisation(config, home) + kinds.stages(config).pictures(config, home)
    explained = 'explain' in config
    page = write_page(
        home,
        config.to_dict(),
        rows=rows,
        known_of=kinds.explaining(config).known(config, home) if explained else nothing_known,
        viewer_tiles=config.evaluate.viewer_tiles,
    )
    made.append(page)
    progress.console.print(f'evaluate: {", ".join(map(str, made))}')
    return True


def _localisation(config: Config, home: pathlib.Path) -> list[pathlib.Path]:
    """Tables and figures of where saliency looked, where slides were explained."""
    folders = {
        folder: None
        for _, point in sweeps.points(config)
        for folder in kinds.stages(config).encoder_folders(point, home)
    }
    rows, detected = explain_measures.read_measured(list(folders))
    return localisation.write_tables(rows, detected, home / 'report', seed=config.seed)


def explain(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Shows where networks looked on slides they never saw; measures it where lesions are known."""
    if 'explain' not in config:
        raise ValueError('this experiment has no networks on grids to explain')
    finished = True
    for folder in kinds.stages(config).encoder_folders(config, home):
        datasets, _ = kinds.stages(config).datasets(config, home, folder.name)
        references = kinds.explaining(config).references(config, home, folder.name)
        for dataset, model in itertools.product(datasets, options.models(config)):
            for own in learned.folders(folder):
                finished &= _explain(
                    config, home, own, dataset, model, references=references, overwrite=overwrite
                )
    return finished


def _explain(
    config: Config,
    home: pathlib.Path,
    own: pathlib.Path,
    dataset: Dataset,
    model: str,
    *,
    references: Callable[[str], explain_stage.Reference | None],
    overwrite: bool,
) -> bool:
    """Explains one model on one label, as it was trained in one of `learned.folders`."""
    grids = learned.encoder_of(own)
    place = learned.classifier(own, dataset.label_name, model + sweeps.suffix(config, model))
    with contextlib.ExitStack() as opened:
        recode = None
        if own != grids:
            if not (place / 'predictions.csv').exists():
                return True  # not fine-tuned
            pixels = opened.enter_context(
                kinds.finetuning(config).pixels(config, home, grids.name, dataset)
            )
            recode = finetune_stage.recoding(config, place, dataset, pixels)
        explained = explain_stage.prepare(
            config,
            home,
            own,
            dataset,
            model,
            references=references,
            recode=recode,
            overwrite=overwrite,
        )
        return explained is None or kinds.explaining(config).explain_all(config, explained)


def finetune(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains encoders and classifiers together, from the pixels of slides or images."""
    if 'finetune' not in config:
        raise ValueError('this experiment has no networks on grids to train with an encoder')
    tuned, finished = kinds.finetuning(config), True
    for folder in kinds.stages(config).encoder_folders(config, home):
        encoder = tuned.encoder(config, home, folder.name)
        if not encoder.variables.get('params'):
            progress.console.print(f'finetune: {folder.name} has no weights to train')
            continue
        datasets, _ = kinds.stages(config).datasets(config, home, folder.name)
        for dataset, model in itertools.product(datasets, options.models(config)):
            with tuned.pixels(config, home, folder.name, dataset) as pixels:
                finished &= finetune_stage.finetune_all(
                    config, home, folder, encoder, dataset, model, pixels, overwrite=overwrite
                )
    return finished


STAGES = {
    'slides': slides,
    'patches': patches,
    'encoder': encoder,
    'compress': compress,
    'classify': classify,
    'finetune': finetune,
    'explain': explain,
    'evaluate': evaluate,
}


def run(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Runs the stages of a config, at every point of its sweep; evaluates all points together.

    Every stage is run; those after a failed slide do what they can with the others.
    """
    succeeded = True
    for value, point in sweeps.points(config):
        if value is not None:
            progress.console.print(f'sweep: {config.sweep.key} = {value}')
        for name in STAGES:
            if name in config.stages and name != 'evaluate':
                succeeded &= STAGES[name](
                    made_slides.located(point, home), home, overwrite=overwrite
                )
    if 'evaluate' in config.stages:
        succeeded &= evaluate(made_slides.located(config, home), home, overwrite=overwrite)
    return succeeded
