"""The paper's synthetic study at its own scale: 25,000 images of 3600×3600 px to train on.

    python -m nic_jax.main --config=experiments/synthetic.py --workdir=runs/synthetic

MNIST is fetched once through OpenML, or read with `--config.data.mnist=DIR` from its idx files.
Every image holds 25,920 digits; the one in the tilted rectangle is its label, another fills an
upright one. 2,500 images train the encoders, 22,500 the CNN (a quarter of them validate), 25,000
of MNIST's test digits are scored, with two random initialisations (supplement of Tellez et al.
2019). Images are drawn as they are encoded and never stored.

Size: the 400×400×16 codes of 25,000 images are 128 GB of float16, those of the 22,500 another
115 GB, for each of `supervised` and `vae` (`mean`, one number a cell: 8 and 7 GB). On disk they are
compressed: 1.2 MB an image with a `supervised` of 20 steps of training, 57 GB for all 47,500.

Time, measured on one core of an Intel Xeon, shared with others: 70 images a second are drawn. To
draw, encode and write one takes 0.60 s with `supervised`, 7.9 hours for all; 0.11 s with `mean`,
1.5 hours. The CNN's epochs, at most 200 of 1,055 steps on 16 grids of 400×400×16, want a GPU, and
were not timed.

Result: this was not run at full scale yet. The paper reports the supervised encoder above the VAE,
and a sharp fall for lesions under a tenth of the image's side. Its Grad-CAM on these images
(Jaccard index with the mask .612 on average) is not here yet.

On a small machine take fewer images (`--config.data.train_images`, `--config.data.test_images`), a
single encoder (`--config.encoder=supervised`), or smaller images with a crop to fit:
`--config.images.size=900 --config.images.lesion_max=450 --config.classifier.crop=100`. The variant
`small` is 2,000 images of 900×900 px with the supervised encoder alone, not timed or scored yet;
`quickstart.py` is smaller still. `encoders` compares supervised, contrastive, VAE, BiGAN and mean
on 3,000 images of 360×360 px with real MNIST and two initialisations, not timed or scored yet.
`debug` takes less than a minute and learns nothing.
"""

from nic_jax import config as defaults


def get_config(variant: str = ''):
    """Returns the paper's settings, or those of the variant `encoders`, `small` or `debug`."""
    config = defaults.synthetic()
    for name in defaults.PROTOCOLS:
        # At most ten passes over the 750,000 training patches; the paper does not say how many.
        config[name].update(steps=120_000, epoch_steps=5000)
    if variant == 'encoders':
        config.encoder = 'supervised,contrastive,vae,bigan,mean'
        config.images.update(size=360, fill=0.012, lesion_min=90, lesion_max=180)
        config.data.update(encoder_images=400, train_images=3000, test_images=1000, patches=200_000)
        for name in defaults.PROTOCOLS:
            schedule = 'constant' if name == 'bigan' else 'cosine'
            config[name].update(batch=64, steps=5000, epoch_steps=1000, schedule=schedule)
        config.contrastive.learning_rate = 2e-3
        config.vae.decoder = 'small'
        config.classifier.update(
            crop=40,
            widths=(48,) * 8,
            dense=64,
            dropout=0.05,
            momentum=0.9,
            epochs=24,
            schedule='cosine',
            weight_decay=1e-3,
            l2=0.0,
            checkpoint_every=12,
        )
    elif variant == 'small':
        config.encoder = 'supervised'
        config.images.update(size=900, lesion_max=450)
        config.data.update(encoder_images=200, train_images=2000, test_images=1000, patches=100_000)
        config.supervised.update(steps=10_000, epoch_steps=500)
        # An epoch has 94 steps, too few for the paper's averages and plateaus.
        config.classifier.update(crop=100, momentum=0.9, epochs=30, schedule='cosine')
    elif variant == 'debug':
        config.images.update(size=360, lesion_max=180)
        config.data.update(encoder_images=10, train_images=40, test_images=10, patches=2000)
        for name in defaults.PROTOCOLS:
            config[name].update(steps=20, epoch_steps=10)
        config.vae.decoder = 'small'
        config.classifier.update(crop=40, widths=(8,) * 8, dense=8, epochs=2)
    elif variant:
        raise ValueError(
            f'no variant {variant!r} of this experiment; there are debug, encoders and small'
        )
    return config
