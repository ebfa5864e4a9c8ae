"""Makes sure that hold-outs stay unseen by encoders that were fine-tuned with slides' labels."""

from collections.abc import Sequence

import numpy as np

from nic_jax.cohort import CohortError, SlideEntry
from nic_jax.encoders.encoder import Encoder


def check_unseen(
    encoder: Encoder,
    entries: Sequence[SlideEntry],
    sources: Sequence[str],
    tested: Sequence[np.ndarray],
    only_folds: Sequence[int] = (),
) -> None:
    """Makes sure that no case is tested of whose slides the encoder has learned a label, any label.

    Args:
        encoder: What makes the codes.
        entries: The slides, N.
        sources: The fingerprint of each slide's file, as `Encoder.learned_from` has them.
        tested: Indices of the hold-outs of each fold.
        only_folds: The numbers of those that are trained; none for all.

    Raises:
        CohortError: A hold-out that the encoder has learned from.
    """
    known = set(encoder.learned_from)
    cases = {
        entry.case_id for entry, source in zip(entries, sources, strict=True) if source in known
    }
    seen = [
        [entries[index].slide_id for index in indices if entries[index].case_id in cases]
        for indices in tested
    ]
    chosen = only_folds or range(len(tested))
    fold = next((fold for fold in chosen if seen[fold]), None)
    if fold is None:
        return
    remedy = 'score it on other slides, or name the encoder that it was fine-tuned from'
    new = [str(fold) for fold, indices in enumerate(tested) if len(indices) and not seen[fold]]
    if new:
        remedy += ', or keep to the folds that are new to it: '
        remedy += f'--config.cohort.only_folds="({", ".join(new)},)"'
    raise CohortError(
        f'encoder {encoder.name} was fine-tuned with the labels of hold-outs: fold {fold} tests '
        f'{len(tested[fold])} slides, and it knows the cases of {len(seen[fold])} of them, such '
        f'as {seen[fold][0]}; {remedy}'
    )
