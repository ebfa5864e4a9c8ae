"""placeholder"""

from nic_jax import config as defaults


def get_config(variant: str = ''):
    config = defaults.synthetic()
    config.images.size = 360
    config.images.fill = 0.012
    config.images.lesion_min = 90
    config.images.lesion_max = 180
    config.data.digits = 'sklearn'
    config.data.encoder_images = 200
    config.data.train_images = 4000
    config.data.test_images = 500
    config.data.patches = 40000
    config.supervised.steps = 6000
    config.supervised.epoch_steps = 500
    config.vae.steps = 4000
    config.vae_decoder.start = 32
    config.vae_decoder.widths = (32, 16)
    config.vae.epoch_steps = 500
    return config
