import pathlib

from nic_jax.cohort import SlideEntry
from nic_jax.patches.slide_plan import deal_subsets
from nic_jax.patches.slide_settings import SlidePatches


def entries(folds):
    return [
        SlideEntry(f's{k}', pathlib.Path(f's{k}.tif'), case_id=f'c{k // 2}', row={'fold': fold})
        for k, fold in enumerate(folds)
    ]


def test_slides_of_an_external_test_set_train_no_encoder():
    found = deal_subsets(
        entries(['0', '0', 'test', 'test', '1', '1', ' Test', 'TEST']), SETTINGS, seed=0
    )
    assert list(found) == [f's{k}' for k in range(8)]
    assert [slide for slide, subset in found.items() if subset == 'test'] == [
        's2',
        's3',
        's6',
        's7',
    ]
    assert {found[slide] for slide in ('s0', 's1', 's4', 's5')} == {'train', 'valid'}


def test_without_one_all_cases_are_dealt_whole():
    found = deal_subsets(entries(['0', '0', '1', '1', '0', '0', '1', '1']), SETTINGS, seed=0)
    assert set(found.values()) == {'train', 'valid'}
    assert all(found[f's{k}'] == found[f's{k + 1}'] for k in range(0, 8, 2))


SETTINGS = SlidePatches(patch_size=16, mpp=1.0, per_slide=4, valid_share=0.5)
