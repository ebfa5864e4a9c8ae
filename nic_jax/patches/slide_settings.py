"""How training patches are drawn from slides."""

import dataclasses

from nic_jax.patches.labels import RULES

ORIGINS = ('auto', 'level0', 'bounds')


@dataclasses.dataclass(frozen=True)
class SlidePatches:
    """Settings of a set of patches from slides.

    Attributes:
        patch_size: P, px.
        mpp: µm/px of the patches.
        mpp_tolerance: Relative deviation of a level's µm/px that is let pass.
        default_mpp: µm/px of level 0 for slides that do not tell theirs; None for an error.
        allow_upsampling: Let slides coarser than `mpp` be magnified.
        tissue_mpp: µm/px of the overview in which tissue is sought.
        tissue_threshold: Share of tissue above which a cell may be drawn.
        per_slide: Patches of each slide; with classes, the same number of each.
        classes: Names of annotations to learn, in order; 'tumour=_0+_1' makes one class of several
            names. Empty: all names that the annotations have, sorted.
        annotation_origin: Where annotations count pixels from: the corner of 'level0', or of the
            slide's 'bounds'; 'auto': as the tool that wrote them does, see `Annotations`.
        label_rule: 'share' or 'centre', see `labels.label_positions`.
        label_threshold: Share of a patch that its class must cover, by the rule 'share'.
        background: Class of patches that no annotation touches; '': they have no label.
        unannotated: Class of all patches of slides without a file of annotations; '': none.
        valid_share: Of the cases, where the table has no column `split`.
        train_pairs: Pairs for contrastive training; 0 for none.
        valid_pairs: Pairs for its validation.
    """

    patch_size: int = 128
    mpp: float = 0.5
    mpp_tolerance: float = 0.05
    default_mpp: float | None = None
    allow_upsampling: bool = False
    tissue_mpp: float = 8.0
    tissue_threshold: float = 0.6
    per_slide: int = 1000
    classes: tuple[str, ...] = ()
    annotation_origin: str = 'auto'
    label_rule: str = 'share'
    label_threshold: float = 0.5
    background: str = ''
    unannotated: str = ''
    valid_share: float = 0.2
    train_pairs: int = 0
    valid_pairs: int = 0

    def __post_init__(self):
        if self.per_slide < 1:
            raise ValueError(f'per_slide={self.per_slide} must be 1 or more')
        for name, values in (('label_rule', RULES), ('annotation_origin', ORIGINS)):
            if getattr(self, name) not in values:
                choice = ', '.join(values)
                raise ValueError(f'{name}={getattr(self, name)!r} must be one of {choice}')
        if not 0 < self.label_threshold <= 1:
            raise ValueError(f'label_threshold={self.label_threshold} must be in (0, 1]')
        if not 0 <= self.valid_share < 1:
            raise ValueError(f'valid_share={self.valid_share} must be in [0, 1)')
        for name in ('train_pairs', 'valid_pairs'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}={getattr(self, name)} must not be negative')

    @property
    def pairs(self) -> dict[str, int]:
        """Subset to the number of its pairs."""
        return {'train': self.train_pairs, 'valid': self.valid_pairs}
