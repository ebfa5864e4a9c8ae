"""Random augmentation of patches, on the device: pure, batched, and the same for the same key.

    patches = augment(key, patches, PRESETS['strong'])

The order is turn, zoom and elastic deformation (one resampling), stain (HED), hue and saturation
(HSV), brightness, contrast, blur, noise: tissue first, then stain, then scanner.

Ranges are those of Tellez et al., Quantifying the effects of data augmentation and stain color
normalization in convolutional neural networks for computational pathology, Medical Image Analysis
58, 2019.
"""

import dataclasses
import math
import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from nic_jax.patches import colour, filters, geometry

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """From which ranges a patch's parameters are drawn, uniformly; by default nothing is changed.

    Attributes:
        turn: One of the eight quarter turns and mirror images.
        zoom: Factor; above 1 magnifies.
        elastic_alpha: α of an elastic deformation, px². Displacements are α / (6.1·σ) px on either
            axis, as a root mean square.
        elastic_sigma: Its σ, px: how far displacements resemble each other.
        brightness: Factor.
        contrast: Factor.
        hsv: Hue and saturation are shifted by ± this, at most 1, which is any hue.
        hed: Stains are multiplied by 1 ± this and shifted by ± this, at most 1.
        blur: σ, px.
        noise: σ, where black is 0 and white is 1.
    """

    turn: bool = False
    zoom: Range = (1.0, 1.0)
    elastic_alpha: Range = (0.0, 0.0)
    elastic_sigma: Range = (0.0, 0.0)
    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    hsv: float = 0.0
    hed: float = 0.0
    blur: Range = (0.0, 0.0)
    noise: Range = (0.0, 0.0)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, tuple):
                # From a JSON file it comes as a list, which could not be hashed.
                object.__setattr__(self, field.name, _checked_range(field.name, value))
            elif isinstance(field.default, float) and not 0 <= value <= 1:
                raise ValueError(f'{field.name}={value} must be in [0, 1]')
        if self.zoom[0] <= 0:
            raise ValueError(f'zoom={self.zoom} must be above 0')
        if self.bends and self.elastic_sigma[0] <= 0:
            raise ValueError(
                f'elastic_sigma={self.elastic_sigma} must be above 0 px with '
                f'elastic_alpha={self.elastic_alpha}'
            )

    @property
    def bends(self) -> bool:
        """Whether there is an elastic deformation."""
        return self.elastic_alpha[1] > 0


def _checked_range(name: str, value) -> Range:
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        raise ValueError(f'{name}={value!r} must be a range of two numbers') from None
    if not 0 <= low <= high < math.inf:
        raise ValueError(f'{name}={value!r} must be a range of ascending numbers from 0 on')
    return low, high


# What the study has for every kind of augmentation. It gives α and σ in pixels of patches of 128 px
# at 0.5 µm: displacements of 1.6 px that are similar within some 20 px. They concern neighbouring
# pixels and not the patch's width, so patches of 64 px at the same µm/px are bent just as much.
# (Where one pixel is twice as wide, half of σ and a quarter of α bend tissue the same.)
_LIGHT = Augmentation(
    turn=True,
    zoom=(0.8, 1.2),
    elastic_alpha=(80, 120),
    elastic_sigma=(9, 11),
    brightness=(0.65, 1.35),
    contrast=(0.5, 1.5),
    hsv=0.1,
    hed=0.05,
    blur=(0, 0.1),
    noise=(0, 0.1),
)

PRESETS: Mapping[str, Augmentation] = types.MappingProxyType(
    {
        'none': Augmentation(),
        'light': _LIGHT,
        'strong': dataclasses.replace(_LIGHT, hsv=1.0, hed=0.2),
        # Ours, for short trainings: what differs between good scanners and laboratories.
        'mild': Augmentation(
            turn=True,
            zoom=(0.9, 1.1),
            brightness=(0.85, 1.15),
            contrast=(0.8, 1.2),
            hsv=0.05,
            hed=0.05,
            noise=(0, 0.02),
        ),
        # The synthetic images' digits, 8 px in cells of 9×9×1: displacements of 0.2 to 0.5 px. Not
        # turned, since a 6 is no 9.
        'cells': Augmentation(zoom=(0.9, 1.1), elastic_alpha=(4, 6), elastic_sigma=(2, 3)),
    }
)


@jax.jit(static_argnames='settings')
def augment(key: Array, patches: Array, settings: Augmentation) -> Array:
    """Augments every patch with random parameters of its own.

    What is off is not compiled, and does not change what the others draw. Patches need nothing of
    each other: a batch that is split over devices stays where it is.

    Args:
        key: A `jax.random.key` for the batch.
        patches: float32 [B, P, P, C] in [0, 1], of 3 channels or of 1.
        settings: Static under `jax.jit`.

    Returns:
        float32 [B, P, P, C] in [0, 1].

    Raises:
        ValueError: Pixels are not float32, or the settings change colours that are not there.
    """
    _check(patches, settings)
    batch, size = patches.shape[:2]
    names = [field.name for field in dataclasses.fields(settings)]
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def draw(name, span, shape=()):
        return jax.random.uniform(keys[name], (batch, *shape), minval=span[0], maxval=span[1])

    version = jax.random.randint(keys['turn'], (batch,), 0, 8) if settings.turn else None
    if settings.bends or settings.zoom != (1, 1):
        displacement = None
        if settings.bends:
            displacement = geometry.smooth_displacement(
                jax.random.fold_in(keys['elastic_alpha'], 1),
                draw('elastic_alpha', settings.elastic_alpha),
                draw('elastic_sigma', settings.elastic_sigma),
                size=size,
                sigma_range=settings.elastic_sigma,
            )
        factor = draw('zoom', settings.zoom)
        patches = geometry.zoom_and_bend(patches, factor, displacement, version=version)
    elif settings.turn:
        patches = geometry.turn(patches, version)
    if settings.hed:
        change = draw('hed', (-settings.hed, settings.hed), (2, 3))
        patches = colour.scale_hed(patches, 1 + change[:, 0], change[:, 1])
    if settings.hsv:
        patches = colour.shift_hsv(patches, draw('hsv', (-settings.hsv, settings.hsv), (2,)))
    if settings.brightness != (1, 1):
        patches = colour.change_brightness(patches, draw('brightness', settings.brightness))
    if settings.contrast != (1, 1):
        patches = colour.change_contrast(patches, draw('contrast', settings.contrast))
    if settings.blur != (0, 0):
        radius = filters.blur_radius(settings.blur[1])
        patches = filters.blur(patches, draw('blur', settings.blur), radius=radius)
    if settings.noise != (0, 0):
        noise_key = jax.random.fold_in(keys['noise'], 1)
        patches = filters.add_noise(noise_key, patches, draw('noise', settings.noise))
    return jnp.clip(patches, 0, 1)


def _check(patches: Array, settings: Augmentation) -> None:
    if patches.dtype != jnp.float32 or patches.ndim != 4 or patches.shape[-1] not in (1, 3):
        raise ValueError(
            f'patches are {patches.dtype} {list(patches.shape)}, not float32 [B, P, P, 1 or 3]'
        )
    if patches.shape[1] != patches.shape[2]:
        raise ValueError(f'patches of {patches.shape[1]}×{patches.shape[2]} px are not square')
    if patches.shape[-1] == 1 and (settings.hsv or settings.hed):
        raise ValueError(
            f'hsv={settings.hsv} and hed={settings.hed} need patches of 3 channels, not 1'
        )
