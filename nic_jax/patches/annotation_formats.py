"""What is drawn in annotation files of each format, as written; `annotations` checks it."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

UNNAMED = 'unnamed'
_ASAP_AREAS = ('Polygon', 'Spline', 'Rectangle')


class FormatError(ValueError):
    """What is wrong, without the file's name."""


class Drawn(NamedTuple):
    """One annotation.

    Attributes:
        place: What it is called in messages.
        name: Of its class.
        kind: What the file calls such a shape.
        rings: Its outline and those of its holes, each a sequence of (x, y); empty where it is of a
            kind without area.
    """

    place: str
    name: str
    kind: str
    rings: Sequence[Sequence]


def asap(data: bytes) -> list[Drawn]:
    """The XML of ASAP (https://computationalpathologygroup.github.io/ASAP/)."""
    root = _parse(data)
    if root.tag != 'ASAP_Annotations':
        raise FormatError(f'XML of <{root.tag}>, expected <ASAP_Annotations>')
    found = []
    for number, element in enumerate(root.iter('Annotation')):
        own, group = (element.get(key, '').strip() for key in ('Name', 'PartOfGroup'))
        name = (own if group in ('', 'None') else group) or UNNAMED
        place, kind = f'annotation {number} ({own or UNNAMED!r})', element.get('Type', '')
        rings = [_asap_ring(element, place)] if kind in _ASAP_AREAS else []
        found.append(Drawn(place, name, kind or 'annotations without a type', rings))
    return found


def geojson(content: Any) -> list[Drawn]:
    """GeoJSON as QuPath exports it: a FeatureCollection, a list of features, or one feature."""
    if isinstance(content, dict) and content.get('type') == 'FeatureCollection':
        features = content.get('features')
    else:
        features = [content] if isinstance(content, dict) else content
    if not isinstance(features, list) or not all(
        isinstance(feature, dict) and feature.get('type') == 'Feature' for feature in features
    ):
        raise FormatError(
            "JSON that is neither GeoJSON features nor polygons under 'positive' and 'negative'"
        )
    found = []
    for number, feature in enumerate(features):
        name = _geojson_class(feature.get('properties'))
        place = f'feature {number} ({name!r})'
        geometry = feature.get('geometry') or {}
        try:
            kind = geometry.get('type') or 'features without geometry'
            polygons = {
                'Polygon': lambda shape: [shape['coordinates']],
                'MultiPolygon': lambda shape: shape['coordinates'],
            }.get(kind, lambda shape: [()])(geometry)
            found += [Drawn(place, name, kind, [*rings]) for rings in polygons]
        except (AttributeError, KeyError, TypeError) as error:
            raise FormatError(f'{place}: its geometry has no coordinates') from error
    return found


def ncrf(content: dict[str, Any]) -> list[Drawn]:
    """The polygons of https://github.com/baidu-research/NCRF: CAMELYON16's, as JSON."""
    found = []
    for name in ('positive', 'negative'):
        for number, polygon in enumerate(content.get(name) or ()):
            place = f'{name} polygon {number}'
            if not isinstance(polygon, dict) or 'vertices' not in polygon:
                raise FormatError(f'{place}: no vertices')
            found.append(Drawn(place, name, 'polygon', [polygon['vertices']]))
    return found


def _parse(data: bytes) -> ElementTree.Element:
    """Parses XML that declares no entities: a few lines of those can fill the memory."""

    def refuse(*_):
        raise FormatError('XML with a DOCTYPE, which annotations do not need; delete it')

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise FormatError(f'broken XML: {error}') from error


def _asap_ring(element: ElementTree.Element, place: str) -> list[tuple[float, float]]:
    """Its coordinates, in the order that they tell, which need not be the file's."""
    try:
        points = [
            (int(point.get('Order', index)), _decimal(point.get('X')), _decimal(point.get('Y')))
            for index, point in enumerate(element.iter('Coordinate'))
        ]
    except ValueError as error:
        raise FormatError(f'{place}: {error}') from error
    return [(x, y) for _, x, y in sorted(points, key=lambda point: point[0])]


def _decimal(text: str | None) -> float:
    """A number with a decimal point or, as some computers' language has it, a comma."""
    if text is None:
        raise ValueError('a coordinate without X or Y')
    return float(text.replace(',', '.'))


def _geojson_class(properties: Any) -> str:
    properties = properties if isinstance(properties, dict) else {}
    classification = properties.get('classification')
    if isinstance(classification, dict):
        # Derived classes are written as the list of what they are made of.
        names = [classification.get('name'), ': '.join(classification.get('names') or ())]
    else:
        names = [classification]
    return next((str(name) for name in [*names, properties.get('name')] if name), UNNAMED)
