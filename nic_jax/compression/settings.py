"""What one asks of a compressed slide, and what its grid will say of itself."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import nic_jax
from nic_jax import workdir
from nic_jax.cohort import SlideEntry
from nic_jax.encoders.encoder import Encoder
from nic_jax.grids import schema
from nic_jax.slides.slide import Slide
from nic_jax.slides.tiling import Plan
from nic_jax.slides.tissue import tissue_mask


@dataclasses.dataclass(frozen=True)
class CompressSettings:
    """How slides are cut and encoded.

    Attributes:
        patch_size: P, px.
        stride: S, px.
        mpp: µm/px of the patches.
        mpp_tolerance: Relative deviation of a level's µm/px that is let pass.
        edges: 'floor' (whole patches) or 'pad'.
        allow_upsampling: Let slides coarser than `mpp` be magnified.
        default_mpp: µm/px of level 0 for slides that do not tell theirs; None for an error.
        tissue_mpp: µm/px of the overview in which tissue is sought.
        tissue_threshold: Share of tissue above which a patch is encoded.
        encode_all: Encode every cell, tissue or not.
        versions: How many of the eight versions are stored, 1 or 8.
        batch: Patches encoded at a time.
        workers: Threads that read.
        precision: Of matrix products, 'default' or 'highest'.
    """

    patch_size: int
    stride: int
    mpp: float
    mpp_tolerance: float = 0.05
    edges: str = 'floor'
    allow_upsampling: bool = False
    default_mpp: float | None = None
    tissue_mpp: float = 8.0
    tissue_threshold: float = 0.6
    encode_all: bool = False
    versions: int = 8
    batch: int = 64
    workers: int = 2
    precision: str = 'default'


def request(entry: SlideEntry, encoder: Encoder, settings: CompressSettings) -> dict[str, Any]:
    """The attributes that are known before the slide is opened: they decide what may be reused.

    Raises:
        ValueError: The slide's file or its mask's does not exist.
    """
    for path, remedy in (
        (entry.path, 'correct its path in the table'),
        (entry.mask, 'correct the column `mask` of the table, or leave it empty'),
    ):
        if path is not None and not path.exists():
            raise ValueError(f'there is no file {path}; {remedy}')
    tissue: dict[str, Any] = {'threshold': settings.tissue_threshold}
    if entry.mask is None:
        # `tissue_mask` and the defaults that it is called with.
        parameters = {'mpp': settings.tissue_mpp, **tissue_mask.__kwdefaults__}
        tissue |= {'method': 'chroma', 'parameters': parameters}
    else:
        tissue |= {'method': 'mask', 'parameters': workdir.fingerprint(entry.mask)}
    return {
        'schema_version': schema.SCHEMA_VERSION,
        'slide_id': entry.slide_id,
        'source': workdir.fingerprint(entry.path),
        'mpp_given': entry.mpp,
        'mpp_default': settings.default_mpp,
        'mpp_target': settings.mpp,
        'mpp_tolerance': settings.mpp_tolerance,
        'patch_size': settings.patch_size,
        'stride': settings.stride,
        'edges': settings.edges,
        'allow_upsampling': settings.allow_upsampling,
        'tissue': tissue,
        'encode_all': settings.encode_all,
        'encoder': encoder_attributes(encoder),
        'versions': stored_versions(encoder, settings),
        'precision': settings.precision,
    }


def encoder_attributes(encoder: Encoder) -> dict[str, Any]:
    """What a grid says of its encoder."""
    return {
        'name': encoder.name,
        'sha256': encoder.sha256(),
        'code_size': encoder.code_size,
        'input': [list(pair) for pair in encoder.inputs],
        'turn_invariant': encoder.turn_invariant,
    }


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """In what a grid that is there differs from what is asked, its slide unopened.

    A remedy that the grid did not need, such as a default for missing µm/px, makes no difference.
    """
    unneeded = {
        'mpp_default': stored.get('mpp_source') != 'default',
        'allow_upsampling': not stored.get('allow_upsampling'),
    }
    keys = [key for key in asked if not unneeded.get(key)]
    return schema.differing_settings(
        {key: stored[key] for key in keys if key in stored}, {key: asked[key] for key in keys}
    )


def stored_versions(encoder: Encoder, settings: CompressSettings) -> int:
    """How many versions are stored; one serves for all where turning leaves codes as they are."""
    return 1 if encoder.turn_invariant else settings.versions


def attributes(asked: Mapping[str, Any], slide: Slide, plan: Plan) -> dict[str, Any]:
    """All attributes of a grid, `complete` aside. Positions are level-0 pixels, (x, y)."""
    return {
        **asked,
        'mpp_default': asked['mpp_default'] if slide.mpp_source == 'default' else None,
        'allow_upsampling': asked['allow_upsampling'] and plan.magnified,
        'mpp_source': slide.mpp_source,
        'level0_dimensions': list(slide.dimensions),
        'mpp_level0': slide.mpp,
        'mpp': plan.mpp,
        'level': plan.level,
        'resampled': plan.resampled,
        'origin_level0': [float(value) for value in plan.origin_level0],
        'patch_level0': [float(value) for value in plan.patch_level0],
        'stride_level0': [float(value) for value in plan.stride_level0],
        # The same numbers without rounding, for grids of many thousands of cells.
        'stride_level0_exact': [str(value) for value in plan.stride_level0],
        'created_with': f'nic_jax {nic_jax.__version__}',
    }
