"""The paper's synthetic study at its own scale: 25,000 images of 3600×3600 px to train on.

    python -m nic_jax.main --config=experiments/synthetic.py --workdir=runs/synthetic

MNIST is fetched once through OpenML, or read with `--config.data.mnist=DIR` from its idx files.
Every image holds 25,920 digits; the one in the tilted rectangle is its label, another fills an
upright one. 2,500 images train the encoders, 22,500 the CNN (a quarter of them validate), 25,000
of MNIST's test digits are scored, with two random initialisations (supplement of Tellez et al.
2019). Images are drawn as they are encoded and never stored.

Size: the 400×400×16 codes of 25,000 images are 128 GB of float16, those of the 22,500 another
115 GB, for each of `supervised` and `vae` (`mean`, one number a cell: 8 and 7 GB). On disk they are
compressed: 1.2 MB an image with a `supervised` of 20 steps of training, 57 GB for all 47,500. They
are read a crop at a time, so that memory is no limit; a disk of 60 GB an encoder is.

Time, measured on one core of an Intel Xeon, shared with others: 70 images a second are drawn. To
draw, encode and write one takes 0.60 s with `supervised`, 7.9 hours for all; 0.11 s with `mean`,
1.5 hours. The CNN's epochs, at most 200 of 1,055 steps on 16 grids of 400×400×16, want a GPU, and
were not timed.

Result: this was not run at full scale yet. The paper reports the supervised encoder above the VAE,
a sharp fall for lesions under a tenth of the image's side, and a Jaccard index of Grad-CAM with the
mask of .612 on average. Here 1,000 of the test images are explained.

Smaller ones, for two cores; but for `encoders` and `baselines` not timed or scored yet:

- `small`: 2,000 images of 900×900 px, the supervised encoder alone.
- `encoders`: supervised, contrastive, VAE, BiGAN and mean on 3,000 images of 360×360 px. With one
  initialisation 14 minutes on one core beside other work; accuracy on 1,000 images: supervised
  .719, contrastive .287, VAE .261, BiGAN .235, the paper's order, and mean .277. Jaccard index of
  saliency with the tilted rectangle on the supervised encoder's codes: Grad-CAM .667, integrated
  gradients .717, occlusion .648, random weights .027; Grad-CAM on the others .17 to .23.
  `--stages=finetune,explain,evaluate` then trains encoders and CNNs together, 400 steps of 16
  images, a quarter of an hour an encoder beside other work: AUC of the VAE .722 to .725, of the
  others as before.
- `baselines`: the CNN beside gated-attention MIL, a set transformer and mean pooling, on the
  supervised encoder's codes of 4,000 images of 360×360 px. With one initialisation and without the
  transformer 6 minutes on two cores; accuracy on 1,000 images: CNN .773, MIL .384, mean .394, where
  two digits stand out and nothing but the tilt of their rectangles tells them apart (.5).
- `train_size`, `code_size`, `stride`, `lesion`: the sweeps of the paper's Fig. 6 on images of
  360×360 px, each meant for about half an hour. Their points share what they can and have the same
  number of training steps; `report/sweep_digit.png` is the curve. A sweep that was interrupted goes
  on when it is run again. Other values: `--config.sweep.values="(250, 16000)"`.

On still smaller machines take fewer images (`--config.data.train_images`,
`--config.data.test_images`); `quickstart.py` needs no download. `debug` takes less than a minute
and learns nothing, nor does `debug_sweep`, two strides.
"""

from nic_jax import config as defaults

# Lesion sizes in px, strides in px, training and validation images, features of a code.
SWEEPS = {
    'train_size': ('classifier.train_slides', (500, 1000, 2000, 4000, 8000)),
    'code_size': ('code_size', (2, 4, 8, 16, 32)),
    'stride': ('images.stride', (4, 6, 9, 18, 27)),  # patches are of 9 px
    'lesion': ('images.lesion_min', (36, 72, 108, 144, 180)),  # the longest are of 180 px
    'debug_sweep': ('images.stride', (9, 18)),
}
VARIANTS = ('debug', 'encoders', 'small', 'baselines', *SWEEPS)


def get_config(variant: str = ''):
    """Returns the paper's settings, or those of one of `VARIANTS`."""
    config = defaults.synthetic()
    for name in defaults.PROTOCOLS:
        # At most ten passes over the 750,000 training patches; the paper does not say how many.
        config[name].update(steps=120_000, epoch_steps=5000)
    if variant not in ('', *VARIANTS):
        raise ValueError(
            f'no variant {variant!r} of this experiment; there are {", ".join(VARIANTS)}'
        )
    config.explain.slides = 1000
    if variant == 'small':
        config.encoder = 'supervised'
        config.images.update(size=900, lesion_max=450)
        config.data.update(encoder_images=200, train_images=2000, test_images=1000, patches=100_000)
        config.supervised.update(steps=10_000, epoch_steps=500)
        # An epoch has 94 steps, too few for the paper's averages and plateaus.
        config.classifier.update(crop=100, epochs=30, schedule='cosine')
        config.cnn.momentum = 0.9
    elif variant in ('debug', 'debug_sweep'):
        _debug(config)
    elif variant:
        _small_images(config)
        if variant == 'encoders':
            config.encoder = 'supervised,contrastive,vae,bigan,mean'
            config.data.update(train_images=3000)
            config.classifier.update(epochs=24)
        else:
            config.encoder = 'supervised'
            config.data.update(train_images=8000 if variant == 'train_size' else 4000)
            config.classifier.update(steps_per_epoch=200, epochs=36)  # whatever the images
    if variant == 'baselines':
        config.model = 'cnn,abmil,transformer,mean'
        for name in ('abmil', 'transformer', 'mean'):
            config[name].learning_rate = 2e-3  # 1e-2 is for batch norm
    if variant in SWEEPS:
        defaults.sweep(config, *SWEEPS[variant])
    return config


def _small_images(config) -> None:
    """Images of 360×360 px from which a few thousand are enough to learn, and a CNN to fit."""
    config.images.update(size=360, fill=0.012, lesion_min=90, lesion_max=180)
    config.data.update(encoder_images=400, test_images=1000, patches=200_000)
    for name in defaults.PROTOCOLS:
        schedule = 'constant' if name == 'bigan' else 'cosine'
        config[name].update(batch=64, steps=5000, epoch_steps=1000, schedule=schedule)
    config.contrastive.learning_rate = 2e-3
    config.vae.decoder = 'small'
    config.classifier.update(
        crop=40, schedule='cosine', weight_decay=1e-3, l2=0.0, checkpoint_every=12
    )
    config.cnn.update(widths=(48,) * 8, dense=64, dropout=0.05, momentum=0.9)
    # All 1,600 patches of an image at once; less than 16 images leave little but noise.
    config.finetune.update(chunk=1600, slides=16, steps=400)


def _debug(config) -> None:
    """A handful of images, and networks that learn nothing from them."""
    config.images.update(size=360, lesion_max=180)
    config.data.update(encoder_images=10, train_images=40, test_images=10, patches=2000)
    for name in defaults.PROTOCOLS:
        config[name].update(steps=20, epoch_steps=10)
    config.vae.decoder = 'small'
    config.classifier.update(crop=40, epochs=2)
    config.cnn.update(widths=(8,) * 8, dense=8)
