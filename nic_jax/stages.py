"""The stages, in order. Each is safe to run again: it resumes what is unfinished.

A stage is a function of (config, workdir) that returns whether all of its units succeeded. What
reads slides (`slide_stages`), what reads tables of tiles (`tile_stages`) and what draws synthetic
images (`synthetic_stages`) differ; from grids and predictions on, the stages are the same.
"""

import dataclasses
import pathlib

import ml_collections

from nic_jax import config as defaults
from nic_jax import progress, slide_stages, synthetic_stages, tile_stages, workdir
from nic_jax.classifiers.cross_validation import cross_validate
from nic_jax.classifiers.trained import TrainSettings, build_network
from nic_jax.evaluation import predictions
from nic_jax.evaluation.tables import table
from nic_jax.networks.grid_cnn import size_chain
from nic_jax.report import tables as report_tables

Config = ml_collections.ConfigDict


def patches(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Draws the patches that encoders are trained on."""
    return _source(config, 'patches')(config, home, overwrite=overwrite)


def encoder(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains encoders on patches."""
    return _source(config, 'encoder')(config, home, overwrite=overwrite)


def compress(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Encodes slides or images into grids."""
    return _source(config, 'compress')(config, home, overwrite=overwrite)


def classify(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains a CNN on grids, or probes on codes of tiles; predicts hold-outs and new slides."""
    if 'tasks' in config:
        return tile_stages.classify(config, home, overwrite=overwrite)
    settings = classifier_settings(config)
    finished = True
    for folder in _source(config, 'encoder_folders')(config, home):
        dataset, complete = _source(config, 'dataset')(config, home, folder.name)
        finished = finished and complete
        label, model = map(workdir.file_name, (dataset.label_name, config.classifier.model))
        place = folder / 'classifier' / label / model
        total = len(config.classifier.seeds) * len(dataset.folds) * settings.epochs
        with progress.bar(f'classify {folder.name}', total=total, unit='epochs') as advance:

            def report(seed, fold, record, folder=folder, advance=advance):
                where = {'encoder': folder.name, 'seed': seed, 'fold': fold}
                workdir.log_metrics(home, {'stage': 'classify', **where, **record})
                title = f'{folder.name} seed {seed} fold {fold}'
                advance(1, description=f'{title} valid loss {record["valid_loss"]:.3f}')

            rows = cross_validate(
                dataset,
                settings=settings,
                model=config.classifier.model,
                seeds=config.classifier.seeds,
                folder=place,
                report=report,
                overwrite=overwrite,
            )
        if rows is None:
            progress.console.print(
                f'classify: {folder.name}: other processes still train some of its folds; '
                'run this stage again when they are done'
            )
            finished = False
            continue
        predictions.write(place / 'predictions.csv', rows)
        progress.console.print(
            f'classify: {folder.name}: {len(rows)} predictions → {place / "predictions.csv"}'
        )
    return finished


def evaluate(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Scores the hold-outs: a table on the terminal and in report/, from predictions.csv alone."""
    del overwrite
    rows = []
    for folder in _source(config, 'encoder_folders')(config, home):
        for path in sorted((folder / 'classifier').glob('*/*/predictions.csv')):
            rows += [{**row, 'encoder': folder.name} for row in predictions.read(path)]
    if not rows:
        raise ValueError(f'{home} holds no predictions.csv of these encoders; classify first')
    records = table(rows, seed=config.seed)
    if not records:
        raise ValueError(
            'no fold tests a slide: with --config.cohort.train_parts one less than folds, the last '
            'part validates; give a part to test'
        )
    for record in records:
        names = ('encoder', 'label_name', 'model', 'slides', 'seeds', 'mean', 'sd')
        interval = {record['primary']: [record['low'], record['high']]}
        told = {name: record[name] for name in names} | {'interval_95': interval}
        workdir.log_metrics(home, {'stage': 'evaluate', **told})
    report_tables.show(records)
    report_tables.write(home / 'report' / 'table.csv', records)
    pictures = _source(config, 'pictures')(config, home)
    made = ', '.join(str(path) for path in [home / 'report' / 'table.csv', *pictures])
    progress.console.print(f'evaluate: {made}')
    return True


STAGES = {
    'patches': patches,
    'encoder': encoder,
    'compress': compress,
    'classify': classify,
    'evaluate': evaluate,
}


def check(config: Config) -> None:
    """Checks a config before anything long starts, and tells the sizes inside the network.

    Raises:
        ValueError: A stage, value or network that cannot be; the message names what can.
    """
    defaults.check(config, tuple(STAGES))
    _source(config, 'check')(config)
    if 'classify' in config.stages and 'classifier' in config:
        settings = classifier_settings(config)
        network = build_network(settings, outputs=1)
        chain = size_chain(settings.crop, network.strides, padding=settings.padding)
        progress.console.print(
            f'network: {len(network.strides)} layers of {", ".join(map(str, network.widths))} '
            f'filters, cells along a side {" → ".join(map(str, chain))}'
        )


def dry_run(config: Config) -> bool:
    """Says what would be done, and does nothing; False where some slides could not be."""
    return _source(config, 'dry_run')(config)


def classifier_settings(config: Config) -> TrainSettings:
    """The settings of network and training that a config holds."""
    names = {field.name for field in dataclasses.fields(TrainSettings)}
    return TrainSettings(**{name: config.classifier[name] for name in names})


def _source(config: Config, name: str):
    """What an experiment on slides, or on synthetic images, does under this name."""
    module = synthetic_stages
    if 'slides' in config or 'tasks' in config:
        module = slide_stages if 'slides' in config else tile_stages
    if not hasattr(module, name):
        raise ValueError(
            f'experiments on slides have no stage {name!r} yet: name a trained encoder'
        )
    return getattr(module, name)
