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
        per_class: Instead: patches of each class for training, validation and testing, shared out
            evenly over the slides that have the class; those short of it are not made up for. ():
            `per_slide`.
        classes: Names of annotations to learn, in order; 'tumour=_0+_1' makes one class of several
            names. Empty: all names that the annotations have, sorted.
        annotation_origin: Where annotations count pixels from: the corner of 'level0', or of the
            slide's 'bounds'; 'auto': as the tool that wrote them does, see `Annotations`.
        label_rule: 'share' or 'centre', see `labels.label_positions`.
        label_threshold: Share of a patch that its class must cover, by the rule 'share'.
        background: Class of patches that no annotation touches; '': they have no label.
        unannotated: Class of all patches of slides without a file of annotations; '': none.
        valid_share: Of the cases, where the table has no column `split`.
        test_share: Of the cases, likewise.
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
    per_class: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    annotation_origin: str = 'auto'
    label_rule: str = 'share'
    label_threshold: float = 0.5
    background: str = ''
    unannotated: str = ''
    valid_share: float = 0.2
    test_share: float = 0.0
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
        for name in ('valid_share', 'test_share'):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)} must be in [0, 1)')
        if not self.valid_share + self.test_share < 1:
            raise ValueError(
                f'valid_share={self.valid_share} and test_share={self.test_share} leave nothing to '
                'train on; they must sum to less than 1'
            )
        if self.per_class and (len(self.per_class) != 3 or min(self.per_class) < 1):
            raise ValueError(
                f'per_class={self.per_class} must be three numbers, of training, validation and '
                'test patches, or ()'
            )
        for name in ('train_pairs', 'valid_pairs'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}={getattr(self, name)} must not be negative')

    @property
    def pairs(self) -> dict[str, int]:
        """Subset to the number of its pairs."""
        return {'train': self.train_pairs, 'valid': self.valid_pairs}


@dataclasses.dataclass(frozen=True)
class SlideTask(SlidePatches):
    """A task whose patches are drawn from annotated slides.

    Attributes:
        tiles: The table of slides, with a column `annotation`; or a folder, as the layout has it.
        layout: 'table', or one of `challenges.LAYOUTS`.
    """

    tiles: str | None = None
    layout: str = 'table'

    @property
    def patches(self) -> SlidePatches:
        """How patches are drawn, wherever the slides lie."""
        names = {field.name for field in dataclasses.fields(SlidePatches)}
        return SlidePatches(**{name: getattr(self, name) for name in names})
