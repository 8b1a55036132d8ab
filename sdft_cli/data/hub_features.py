"""Label names in the ``features`` that `datasets` and the hub's API write beside rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdft_cli.types import Json


def with_label_names(row: Mapping[str, Any], features: Mapping[str, Json]) -> dict[str, Any]:
    """``row`` with the names of its labels in place of their numbers; -1, which marks no label, as None."""
    return {key: _named(value, features[key]) if key in features else value for key, value in row.items()}


def have_labels(features: Json) -> bool:
    """Whether there is a label anywhere in ``features``."""
    if isinstance(features, dict):
        return features.get("_type") == "ClassLabel" or any(map(have_labels, features.values()))
    return isinstance(features, list) and any(map(have_labels, features))


def _named(value: Any, feature: Json) -> Any:
    if value is None or not have_labels(feature):
        return value
    if isinstance(feature, list) and len(feature) == 1:
        feature = {"_type": "List", "feature": feature[0]}
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature.get("names")
        known = isinstance(names, list) and isinstance(value, int) and not isinstance(value, bool)
        return (names[value] if 0 <= value < len(names) else None) if known else value
    if isinstance(value, list):
        return [_named(item, feature.get("feature")) for item in value]
    fields = feature.get("feature") if kind else feature
    return with_label_names(value, fields) if isinstance(value, dict) and isinstance(fields, dict) else value
