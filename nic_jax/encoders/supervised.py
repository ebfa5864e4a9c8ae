"""The supervised encoder: trained to classify patches (Tellez et al. 2019, supplement).

The classifier's head is thrown away; what stays is the encoder that had to tell the classes apart.
"""

from collections.abc import Mapping
from typing import Any

from nic_jax.encoders.multitask import multitask
from nic_jax.encoders.objective import Augment, Objective
from nic_jax.networks.heads import NormHead


def supervised(
    network: Mapping[str, Any], classes: int, *, augment: Augment, weight_decay: float = 0.0
) -> Objective:
    """Cross-entropy over the classes of one task.

    Batches: `patches` uint8 `[B, 1, P, P, channels]` and `labels` int32 `[B, 1]`.
    """
    return multitask(
        network,
        {'label': classes},
        augment=augment,
        weight_decay=weight_decay,
        name='supervised',
        head=NormHead,
    )
