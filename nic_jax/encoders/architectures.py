"""The papers' encoder networks, by the size of the patches (Tellez et al. 2019, supplement).

Two families take tissue. 'pyramid' is that of the VAE, the contrastive and the supervised encoders:
strided convolutions of 32, 64, 128, … filters down to 4×4, a dense layer, the code. 'published' is
that of the BiGAN's and the multitask encoder's published weights: four strided convolutions of 128
filters on 64×64 px, the code; patches of 128 px are averaged 2×2 first. Synthetic cells of 9×9 px
have small ones of their own.
"""

from typing import Any

FAMILIES = ('paper', 'pyramid', 'published')
DECODERS = ('paper', 'small')
_PUBLISHED = ('bigan', 'multitask')  # the objectives that the papers give the second family
CELL = 9


def encoder_network(
    objective: str, *, family: str, patch_size: int, channels: int, code_size: int
) -> dict[str, Any]:
    """The settings of `conv.module` for an objective.

    Args:
        objective: 'vae', 'contrastive', 'bigan', 'supervised', 'multitask' or 'vicreg'.
        family: One of `FAMILIES`; 'paper' takes what the papers give the objective.
        patch_size: P, px.
        channels: Of the patches.
        code_size: C.

    Raises:
        ValueError: A family or patch size that there is no network for.
    """
    if family not in FAMILIES:
        raise ValueError(f'network={family!r} must be one of {", ".join(FAMILIES)}')
    published = family == 'published' or (family == 'paper' and objective in _PUBLISHED)
    common = {
        'kind': 'conv',
        'code_size': code_size,
        'slope': 0.2,
        'epsilon': 1e-3,
        'channels': channels,
        'input_size': patch_size,
        'averaged': False,
    }
    if patch_size == CELL:
        widths, dense = ([32, 32], 0) if published else ([32, 64], 64)
        return common | {'widths': widths, 'dense': dense, 'padding': 'SAME', 'norm_after': False}
    if published:
        if patch_size not in (64, 128):
            raise ValueError(
                f'the published network takes patches of 64 or 128 px, not {patch_size}'
            )
        layers = {'widths': [128] * 4, 'dense': 0, 'padding': 'VALID', 'norm_after': True}
        return common | layers | {'input_size': 64, 'averaged': patch_size == 128}
    levels = patch_size.bit_length() - 3
    if patch_size != 4 << levels or levels < 2:
        raise ValueError(f'patch_size={patch_size} must be 9, or a power of two from 16 px on')
    widths = [32 << level for level in range(levels)]
    return common | {'widths': widths, 'dense': 512, 'padding': 'SAME', 'norm_after': False}


def decoder_network(objective: str, *, size: int, kind: str) -> dict[str, Any]:
    """`start` and `widths` of `ConvDecoder`, for a VAE's decoder or a BiGAN's generator.

    Args:
        objective: 'vae' or 'bigan'.
        size: Of the patches that come out, px.
        kind: 'paper', or 'small': half the filters of the paper's VAE, on tissue for a BiGAN too,
            whose generator has 128 in every layer.

    Raises:
        ValueError: No such kind.
    """
    if kind not in DECODERS:
        raise ValueError(f'decoder={kind!r} must be one of {", ".join(DECODERS)}')
    if size == CELL:
        if objective == 'bigan':
            return {'start': 32, 'widths': (32, 32)}
        return (
            {'start': 128, 'widths': (64, 32)}
            if kind == 'paper'
            else {'start': 32, 'widths': (32, 16)}
        )
    levels = size.bit_length() - 3
    if objective == 'bigan' and kind == 'paper':
        return {'start': 64, 'widths': (128,) * levels}
    last = 16 if kind == 'paper' else 8  # filters of the last layer
    return {
        'start': last << levels,  # of the paper's 512 at 128 px, as the encoder ends with
        'widths': tuple(last << level for level in reversed(range(levels))),
    }
