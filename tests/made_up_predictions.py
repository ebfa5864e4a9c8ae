"""Made-up rows of predictions.csv, for the tests of evaluation."""

import numpy as np


def classification(
    *,
    slides=60,
    seeds=(0, 1),
    skill=1.5,
    classes=('normal', 'tumour'),
    slides_a_case=1,
    random=0,
    **extra,
):
    """Rows whose scores are right the more the greater the skill."""
    rng = np.random.default_rng(random)
    labels = np.arange(slides) // slides_a_case % len(classes)  # all slides of a case agree
    rows = []
    for seed in seeds:
        for index, label in enumerate(labels):
            logits = rng.normal(size=len(classes)) + skill * np.eye(len(classes))[label]
            scores = np.exp(logits) / np.exp(logits).sum()
            rows.append(
                _known(index, slides_a_case, seed)
                | {'label': classes[label], 'prediction': classes[int(scores.argmax())]}
                | {
                    f'score_{name}': float(score)
                    for name, score in zip(classes, scores, strict=True)
                }
                | extra
            )
    return rows


def regression(*, slides=40, seeds=(0, 1), noise=1.0, slides_a_case=1, random=0, **extra):
    """Rows whose values are the targets with noise."""
    rng = np.random.default_rng(random)
    targets = np.random.default_rng(99).normal(size=slides // slides_a_case).repeat(slides_a_case)
    return [
        _known(index, slides_a_case, seed)
        | {'label': float(target), 'prediction': float(target + noise * rng.normal())}
        | extra
        for seed in seeds
        for index, target in enumerate(targets)
    ]


def survival(*, slides=40, seeds=(0, 1), noise=0.5, random=0, **extra):
    """Rows of times, some censored, and risks that are the higher the shorter the time."""
    rng = np.random.default_rng(random)
    fixed = np.random.default_rng(99)
    times, events = fixed.exponential(900, slides).round(), fixed.random(slides) < 0.6
    return [
        _known(index, 1, seed)
        | {
            'time': float(time),
            'event': int(event),
            'prediction': float(-np.log(time + 1) + noise * rng.normal()),
        }
        | extra
        for seed in seeds
        for index, (time, event) in enumerate(zip(times, events, strict=True))
    ]


def _known(index, slides_a_case, seed):
    case = index // slides_a_case
    return {
        'slide_id': f'folder/slide, {index}',
        'case_id': f'case {case}',
        'label_name': 'label',
        'model': 'cnn',
        'seed': seed,
        'fold': case // 2 % 4,
        'subset': 'test',
    }
