"""Brightness, contrast, hue, saturation and stain of patches.

Every function takes and returns pixels in [0, 1], `[B, P, P, C]`, with one parameter a patch; what
would leave the range is clipped after every step, as in images of 8 bits.

The kinds are those of D. Tellez et al., Quantifying the effects of data augmentation and stain
color normalization in convolutional neural networks for computational pathology, Medical Image
Analysis 58, 2019. The formulas of brightness and contrast are Pillow's; those of saturation are
ours.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

# Luminance of ITU-R 601, which Pillow's `ImageEnhance.Contrast` takes.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)

# Optical density of red, green and blue (columns) of haematoxylin, eosin and DAB (rows): A. Ruifrok
# and D. Johnston, Quantification of histochemical staining by color deconvolution, Analytical and
# Quantitative Cytology and Histology 23, 2001; the values are scikit-image's.
RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED_FROM_RGB = np.linalg.inv(RGB_FROM_HED)

# Below one grey level of 255 the optical density is not known; that of 0 would be infinite.
_DARKEST = 1 / 255


def change_brightness(patches: Array, factor: Array) -> Array:
    """Multiplies by `factor` [B]."""
    return _clip(patches * _per_patch(factor))


def change_contrast(patches: Array, factor: Array) -> Array:
    """Multiplies the difference from the patch's mean luminance by `factor` [B]."""
    mean = patches.mean((1, 2), keepdims=True)  # [B, 1, 1, C]
    if patches.shape[-1] == 3:
        mean = (mean * _LUMINANCE).sum(-1, keepdims=True)
    return _clip(mean + (patches - mean) * _per_patch(factor))


def shift_hsv(patches: Array, shift: Array) -> Array:
    """Shifts hue and saturation, in ±1.

    A hue shift of 1 is a whole turn. Saturation S becomes S·(1 + s) for a shift s below 0 (grey at
    −1) and S·(1 + (1 − S)·s) above, so that it stays within [0, 1]; the value V is kept.

    Args:
        patches: [B, P, P, 3].
        shift: [B, 2], hue's and saturation's.
    """
    _require_colour(patches, 'shift_hsv')
    red, green, blue = patches[..., 0], patches[..., 1], patches[..., 2]
    hue_shift, shift = shift[:, 0, None, None], shift[:, 1, None, None]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    inverse = 1 / jnp.where(chroma > 0, chroma, 1)
    # In sixths of a turn. Not `value == blue`: the compiler may compute either anew, rounded
    # otherwise. Where two channels are equally bright, the formulas of both give the same hue.
    hue = jnp.where(
        (blue >= red) & (blue >= green),
        4 + (red - green) * inverse,
        jnp.where(green >= red, 2 + (blue - red) * inverse, (green - blue) * inverse),
    )
    hue = hue + 6 * hue_shift
    saturation = chroma / jnp.where(value > 0, value, 1)
    chroma = chroma * (1 + shift * jnp.where(shift < 0, 1, 1 - saturation))

    def channel(offset):
        # How far the channel lies below the value, as a share of the chroma: 0 over a third of the
        # circle, 1 over the opposite third, linear between them.
        place = hue + offset
        place = place - 6 * jnp.floor(place / 6)
        return value - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)

    return _clip(jnp.stack([channel(5), channel(3), channel(1)], axis=-1))


def scale_hed(patches: Array, gain: Array, shift: Array) -> Array:
    """Multiplies the concentration of every stain and adds to it.

    Concentrations are natural logarithms, −ln(RGB) · M⁻¹, as in Tellez et al. (Whole-slide mitosis
    detection in H&E breast histology, IEEE TMI 2018); scikit-image's are 1 / ln(10⁶) of them, and
    cut at 0.

    Args:
        patches: [B, P, P, 3].
        gain: [B, 3] of haematoxylin, eosin and the third stain; 1 changes nothing.
        shift: [B, 3]; 0 changes nothing.
    """
    _require_colour(patches, 'scale_hed')
    density = -jnp.log(jnp.maximum(patches, _DARKEST))
    # To stains and back is affine, so one 3×3 matrix a patch does it. It gives the change alone,
    # with which pixels are multiplied: black remains black, and no change is none.
    matrix = jnp.einsum('rs,bs,sc->brc', HED_FROM_RGB, gain - 1, RGB_FROM_HED, precision='highest')
    offset = (shift[:, :, None] * RGB_FROM_HED.astype(np.float32)).sum(1)  # [B, 3]
    # Written out: a product with so small a matrix takes several times as long.
    change = offset[:, None, None] + sum(
        density[..., channel, None] * matrix[:, None, None, channel] for channel in range(3)
    )
    return _clip(patches * jnp.exp(-change))


def _require_colour(patches: Array, name: str) -> None:
    if patches.shape[-1] != 3:
        raise ValueError(f'{name} needs 3 channels, red, green and blue; got {patches.shape=}')


def _per_patch(values: Array) -> Array:
    return values[:, None, None, None]


def _clip(patches: Array) -> Array:
    return jnp.clip(patches, 0, 1)
