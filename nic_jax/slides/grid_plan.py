"""The plan of a grid that was made before, laid again over its slide."""

from collections.abc import Mapping
from typing import Any

from nic_jax.slides import tiling
from nic_jax.slides.slide import Slide


def plan_of_grid(
    slide: Slide, shape: tuple[int, int], attributes: Mapping[str, Any]
) -> tiling.Plan:
    """The plan that a grid was made by.

    Args:
        slide: Open, with the µm/px that it was opened with then.
        shape: Rows and columns of the grid.
        attributes: Of the grid.

    Raises:
        ValueError: The grid is of another slide.
    """
    plan = tiling.plan_grid(
        slide.levels,
        bounds=slide.bounds,
        mpp_level0=attributes['mpp_level0'],
        mpp=attributes['mpp_target'],
        patch_size=attributes['patch_size'],
        stride=attributes['stride'],
        tolerance=attributes['mpp_tolerance'],
        edges=attributes['edges'],
        allow_upsampling=attributes['allow_upsampling'],
    )
    origin = [float(each) for each in plan.origin_level0]
    known = {
        'dimensions': (list(slide.dimensions), list(attributes['level0_dimensions'])),
        'cells': (list(plan.shape), list(shape)),
        'origin': (origin, list(attributes['origin_level0'])),
    }
    for name, (here, told) in known.items():
        if here != told:
            raise ValueError(
                f'{slide.path}: {name} {here}, but those of the grid of {attributes["slide_id"]} '
                f'are {told}; give the slide that it was made of'
            )
    return plan
