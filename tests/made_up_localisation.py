"""Made-up rows of localisation.csv and detections.csv, as evaluation is given them."""

import numpy as np


def localisation(
    *,
    slides=24,
    skill=0.5,
    encoder='vae',
    model='cnn',
    method='grad_cam',
    seeds=(0,),
    subset='test',
    slides_a_case=2,
    random=0,
):
    """Rows with a Jaccard index around the skill; the larger the lesion, the higher."""
    rng = np.random.default_rng(random)
    areas = np.random.default_rng(99).integers(4, 400, slides)
    rows = []
    for seed in seeds:
        for index, area in enumerate(areas.tolist()):
            value = float(np.clip(skill + area / 2000 + rng.normal(0, 0.1), 0, 1))
            rows.append(
                {
                    'slide_id': f'folder/slide, {index}',
                    'case_id': f'case {index // slides_a_case}',
                    'label_name': 'tumour',
                    'model': model,
                    'seed': seed,
                    'fold': index % 4,
                    'subset': subset,
                    'method': method,
                    'target': 'tumour',
                    'lesion_area': area,
                    'jaccard': value,
                    'jaccard_both': '',
                    'average_precision': value**2,
                    'pointing': float(value > 0.5),
                    'encoder': encoder,
                }
            )
    return rows


def detections(
    *,
    slides=20,
    skill=1.0,
    encoder='vae',
    model='cnn',
    method='grad_cam',
    subset='test',
    slides_a_case=1,
    random=0,
):
    """Rows of slides with 0, 1, 2 or 3 lesions, and several false positives each; scores tie."""
    rng = np.random.default_rng(random)
    rows = []
    for index in range(slides):
        known = {
            'slide_id': f'slide {index}',
            'case_id': f'case {index // slides_a_case}',
            'method': method,
            'subset': subset,
            'encoder': encoder,
            'label_name': 'tumour',
            'model': model,
        }
        lesions = index % 4
        found = rng.integers(1, lesions + 1, 2 * lesions).tolist() + [''] * int(rng.integers(9))
        for lesion in found or [None]:
            score = rng.random() + skill * (lesion not in ('', None))
            rows.append(
                {
                    **known,
                    'score': '' if lesion is None else round(score / (1 + skill), 2),
                    'lesion': '' if lesion is None else lesion,
                    'lesions': lesions,
                }
            )
    return rows
