import pytest
from made_up_predictions import classification, regression, survival

from nic_jax.evaluation import predictions
from nic_jax.evaluation.predicted import collect


@pytest.mark.parametrize(
    'rows',
    [
        classification(slides=8),
        classification(slides=8, classes=('a', 'b', 'c')),
        classification(slides=8, lesion_area=7),
        classification(slides=8, lesion_area=7.25, group_Test=1, group_Macro=0),
        regression(slides=8, group_Test=1),
        survival(slides=8, lesion_area=''),
    ],
)
def test_what_is_read_is_what_was_written(tmp_path, rows):
    nothing = {'time': '', 'event': ''} if 'time' in rows[0] else {'label': ''}
    rows[1] = {**rows[1], **nothing, 'fold': '', 'subset': 'new'}
    predictions.write(tmp_path / 'predictions.csv', rows)
    assert predictions.read(tmp_path / 'predictions.csv') == rows
    assert [path.name for path in tmp_path.iterdir()] == ['predictions.csv']


def test_columns_are_in_the_order_that_is_documented(tmp_path):
    predictions.write(tmp_path / 'a.csv', survival(slides=2, group_Test=1, lesion_area=2.5))
    assert (tmp_path / 'a.csv').read_text().splitlines()[0] == (
        'slide_id,case_id,label_name,model,seed,fold,subset,time,event,prediction,lesion_area,'
        'group_Test'
    )


def test_rows_that_cannot_be_written(tmp_path):
    with pytest.raises(predictions.PredictionsError, match='no predictions'):
        predictions.write(tmp_path / 'a.csv', [])
    for others in (regression(slides=2), survival(slides=2), classification(group_Test=1)):
        with pytest.raises(predictions.PredictionsError, match='among rows of'):
            predictions.write(tmp_path / 'a.csv', classification(slides=2) + others)


CLASSES = 'slide_id,case_id,label_name,model,seed,fold,subset,label,prediction,score_a,score_b'
TIMES = 'slide_id,case_id,label_name,model,seed,fold,subset,time,event,prediction'


@pytest.mark.parametrize(
    ('header', 'line', 'message'),
    [
        (CLASSES, 's,c,l,cnn,0,1,test,benign,a,.5,.5', "label 'benign' is none of"),
        (CLASSES, 's,c,l,cnn,0,1,test,a,benign,.5,.5', "prediction 'benign' is none of"),
        (CLASSES, 's,c,l,cnn,zero,1,test,a,a,.5,.5', "seed is 'zero', must be an integer"),
        (CLASSES, 's,c,l,cnn,0,1.5,test,a,a,.5,.5', "fold is '1.5', must be an integer"),
        (CLASSES, 's,c,l,cnn,0,1,test,a,a,.5,.6', 'scores do not sum to 1 but to 1.1'),
        (CLASSES, 's,c,l,cnn,0,1,test,a,a,nan,.5', 'score_a is nan, must be finite'),
        (CLASSES, 's,c,l,cnn,0,1,test,a,a,-.5,1.5', 'score_a is -.5, must be 0 or more'),
        (CLASSES, 's,c,l,cnn,0,1,test,a,a,.5', 'not as many fields'),
        (CLASSES, 'first,c,l,cnn,0,1,test,a,a,.5,.5', 'first was predicted in line 2'),
        (CLASSES + ',lesion_area', 's,c,l,cnn,0,1,test,a,a,.5,.5,-1', 'lesion_area is -1'),
        (CLASSES + ',lesion_area', 's,c,l,cnn,0,1,test,a,a,.5,.5,big', "lesion_area is 'big'"),
        (CLASSES + ',group_Test', 's,c,l,cnn,0,1,test,a,a,.5,.5,yes', "group_Test is 'yes'"),
        (TIMES, 's,c,l,cnn,0,1,test,-3,1,.5', 'time is -3, must be 0 or more'),
        (TIMES, 's,c,l,cnn,0,1,test,3,2,.5', "event is '2', must be 0 or 1"),
        (TIMES, 's,c,l,cnn,0,1,test,3,,.5', "time '3' and event '' must both be given"),
        (TIMES, 's,c,l,cnn,0,1,test,3,1,high', "prediction is 'high', must be a number"),
    ],
)
def test_a_broken_line_is_told_with_its_number_and_value(tmp_path, header, line, message):
    good = ['first,c,l,cnn,0,1,test', 'a,a,.5,.5' if header.startswith(CLASSES) else '3,1,.5']
    good += {'lesion_area': ['2.5'], 'group_Test': ['1']}.get(header.split(',')[-1], [])
    path = tmp_path / 'predictions.csv'
    path.write_text('\n'.join([header, ','.join(good), line, '']))
    with pytest.raises(predictions.PredictionsError, match=r'predictions\.csv, line 3: ') as caught:
        predictions.read(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ('header', 'message'),
    [
        (CLASSES.replace('label_name', 'name'), 'no columns label_name'),
        (TIMES.replace('event,', ''), 'no columns event'),
        (TIMES + ',label', 'columns label beside time and event'),
        (TIMES + ',score_a', 'columns score_a beside time and event'),
    ],
)
def test_a_header_that_cannot_be(tmp_path, header, message):
    path = tmp_path / 'predictions.csv'
    path.write_text(header + '\n')
    with pytest.raises(predictions.PredictionsError, match=message):
        predictions.read(path)


def test_arrays_hold_what_rows_said():
    rows = classification(slides=8, seeds=(3, 7), lesion_area='')
    rows[2]['lesion_area'] = rows[10]['lesion_area'] = 2.5
    (found,) = collect(list(reversed(rows)))
    assert found.seeds == (7, 3)
    for number, (slide, fold) in enumerate(found.units):
        for seed, predicted in zip(found.seeds, found.predictions, strict=True):
            (row,) = (r for r in rows if (r['slide_id'], r['seed']) == (slide, seed))
            assert predicted[number].tolist() == pytest.approx(
                [row['score_normal'], row['score_tumour']]
            )
            assert found.class_names[found.targets[number]] == row['label']
            assert (found.case_ids[number], fold) == (row['case_id'], row['fold'])
            area = row['lesion_area']
            assert found.lesion_areas[number] == pytest.approx(area or float('nan'), nan_ok=True)


def test_seeds_must_have_predicted_the_same_slides_once():
    rows = classification(slides=20)
    with pytest.raises(predictions.PredictionsError, match=r'seed 1 .*slide, 19'):
        collect(rows[:-1])
    with pytest.raises(predictions.PredictionsError, match='slide, 0 is predicted twice by seed 0'):
        collect([*rows, rows[0]])


def test_rows_of_one_label_have_the_same_classes():
    rows = classification(slides=4, seeds=(0,))
    others = classification(slides=4, seeds=(1,), classes=('normal', 'benign'))
    with pytest.raises(predictions.PredictionsError, match='has other classes'):
        collect(rows + others)


def test_a_case_is_the_mean_of_its_slides():
    rows = classification(slides=24, slides_a_case=3, lesion_area=2.0)
    (found,) = collect(rows, unit='case')
    assert (len(found.units), found.slides) == (8, 24)
    for number, (case, _) in enumerate(found.units):
        of_case = [row for row in rows if row['case_id'] == case and row['seed'] == 1]
        assert len(of_case) == 3
        expected = sum(row['score_tumour'] for row in of_case) / 3
        assert found.predictions[1, number, 1] == pytest.approx(expected)
        assert found.class_names[found.targets[number]] == of_case[0]['label']
        assert found.lesion_areas[number] == 6


@pytest.mark.parametrize(
    ('rows', 'change'),
    [
        (classification(slides=24, slides_a_case=3), {'label': 'tumour'}),
        (regression(slides=24, slides_a_case=3), {'label': 5.0}),
        ([{**row, 'case_id': 'case 0'} for row in survival(slides=2, seeds=(0,))], {'event': 0}),
    ],
)
def test_the_slides_of_a_case_have_one_label(rows, change):
    for row in rows:
        if row['slide_id'].endswith(', 1'):
            row |= change
    with pytest.raises(predictions.PredictionsError, match='slides of case case 0 have different'):
        collect(rows, unit='case')
    assert collect(rows, unit='slide')


def test_units_are_slides_or_cases():
    with pytest.raises(ValueError, match='must be one of slide, case'):
        collect([], unit='patient')
