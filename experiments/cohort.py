"""My slides and my table: from one command to cross-validated figures and a trained model.

    python -m nic_jax.main --config=experiments/cohort.py --workdir=runs/mine \
        --config.slides=slides.csv --config.encoder=nic_multitask4 \
        --config.cohort.label=grade --config.cohort.task=classification

`slides.csv` has the columns `slide_id, path`, the label's, and if you like `case_id` (patients are
never split), `mpp`, `mask`, and your own folds: `split` (train, valid, test), `fold` (0, 1, …), or
`fold_0` … with words. Without them: four folds by case, two to train, one to validate, one to test,
rotating. Slides without a label are predicted by the mean of the folds' models: add rows to the
table and run the same command again to apply the models to new slides.

`--config.model` names the network, or several to compare: `spatial` (the default), `cnn` (the
paper's own), `abmil`, `transformer` and `mean`. Crops are of `--config.classifier.crop` cells (R) a
side; take about the size of the tissue on one slide, at most 400. The depth of `cnn` follows it.

Several labels at once: `--config.cohort.label=grade,survival`, with a task for all of them or one
each: `--config.cohort.task=classification,survival`. A survival is two columns, named by
`--config.cohort.time` and `--config.cohort.event` (1 died, 0 censored).

Where the networks looked is in `ENCODER/explain/LABEL/MODEL/SLIDE_ID/`; a column `annotation`, a
file of outlines a slide, lets it be measured, and `--config.explain.methods=grad_cam,occlusion`
compares methods. `--stages=finetune,evaluate` trains the encoder too, from the slides' labels.

Result: `report/index.html`, `ENCODER/classifier/LABEL/MODEL/predictions.csv` of all hold-outs, a
table with 95 % intervals. Time: compression as in the README; training `cnn` on 100 slides and 4
folds with crops of 100 cells about a quarter of an hour on a GPU's host, longer on two cores.
"""

from nic_jax import config as defaults


def get_config(variant: str = ''):
    """Returns the settings; the variant `debug` trains small networks for two epochs."""
    config = defaults.cohort()
    if variant == 'debug':
        config.compress.versions = 1
        config.cnn.update(widths=(8,) * 8, dense=8)
        config.classifier.update(
            crop=16, epochs=2, steps_per_epoch=2, batch=4, test_crops=2, seeds=(0,)
        )
    elif variant:
        raise ValueError(f'no variant {variant!r} of this experiment; there is debug')
    return config
