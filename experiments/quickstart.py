"""The paper's synthetic study, reduced: from nothing to a table in a few minutes, no download.

    python -m nic_jax.main --config=experiments/quickstart.py --workdir=runs/quickstart

Images of 360×360 px are full of scikit-learn's handwritten digits. One digit fills a tilted
rectangle, which is the image's label; another fills an upright one. Encoders that see 9×9 px at a
time turn each image into a grid of 40×40 codes, and a CNN learns the label from the grids: one
encoder was trained on digits (supervised), one without labels (VAE), one is the mean intensity.

Time: 4 min 59 s on 2 CPU cores, installing not counted. Result, accuracy on 500 images of digits
that no network has seen: supervised .778, VAE .158, mean .192 (chance .100); Jaccard
index of Grad-CAM with the tilted rectangle .659, .104 and .097. Look at
`report/index.html`, `report/table.csv` and `ENCODER/classifier/*/*/predictions.csv`.

With real MNIST: `--config.data.mnist=DIR` (idx files) or `--config.data.digits=openml`. The paper's
own scale is in `experiments/synthetic.py`. The variant `debug` takes seconds and learns nothing.
"""

from nic_jax import config as defaults


def get_config(variant: str = ''):
    """Returns the settings; the variant `debug` runs every stage on a handful of images."""
    config = defaults.synthetic()
    config.images.update(size=360, fill=0.012, lesion_min=90, lesion_max=180)
    config.data.update(
        digits='sklearn',
        encoder_images=200,
        train_images=4000,
        test_images=500,
        patches=40_000,
    )
    config.supervised.update(steps=6000, epoch_steps=500)
    config.vae.update(steps=4000, epoch_steps=500, decoder='small')
    # Not among `config.encoder`; name them to compare.
    config.contrastive.update(steps=4000, epoch_steps=500, schedule='cosine', learning_rate=2e-3)
    config.bigan.update(steps=4000, epoch_steps=500)
    config.classifier.update(
        crop=40,
        epochs=36,
        schedule='cosine',
        weight_decay=1e-3,
        l2=0.0,
        checkpoint_every=5,
        seeds=(0,),
    )
    config.cnn.update(widths=(48,) * 8, dense=64, dropout=0.05, momentum=0.9)
    if variant == 'debug':
        config.data.update(encoder_images=10, train_images=40, test_images=10, patches=2000)
        for name in defaults.PROTOCOLS:
            config[name].update(steps=20, epoch_steps=10)
        config.classifier.epochs = 2
        config.cnn.update(widths=(8,) * 8, dense=8)
    elif variant:
        raise ValueError(f'no variant {variant!r} of this experiment; there is debug')
    return config
