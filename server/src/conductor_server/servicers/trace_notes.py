"""What a trace tells of answers, for who asks why it was this one, or a slow one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain

from conductor_rpc import names
from conductor_server.prediction.answers import Fallback, Origin

_MOST_TOLD = 8


def fell_back(origin: Origin | None) -> bool:
    """Whether an answer is less than the best that there is for its tenant."""
    return origin is not None and origin.fallback is not Fallback.NONE


def of_answer(origin: Origin, prediction_id: str) -> dict[str, str]:
    """What answered."""
    return {**_of_origin(origin), names.PREDICTION_ID: prediction_id}


@lru_cache(maxsize=256)
def _of_origin(origin: Origin) -> Mapping[str, str]:
    """Most answers come from where the last one came from."""
    attributes = {
        names.PREDICTION_METHOD: origin.method.value,
        names.MODEL_NAME: origin.model.name,
        names.MODEL_VERSION: origin.model.version,
        names.VARIANT: origin.variant.value,
        names.FALLBACK_REASON: origin.fallback.value,
    }
    if origin.missing_features:
        attributes[names.FEATURES_MISSING] = _missing(origin.missing_features)
    return attributes


def of_batch(origins: Sequence[Origin | None]) -> dict[str, str]:
    """How many answers came from where; None stands for an error."""
    found = [origin for origin in origins if origin is not None]
    methods = Counter(origin.method.value for origin in found)
    methods["none"] = len(origins) - len(found)
    attributes = {
        names.ANSWERED_TOGETHER: str(len(origins)),
        names.METHODS: _counts(methods),
        names.MODELS: _counts(Counter(f"{one.model.name}@{one.model.version}" for one in found if one.model.name)),
        names.VARIANT: _counts(Counter(origin.variant.value for origin in found)),
        names.FALLBACK_REASON: _counts(Counter(origin.fallback.value for origin in found)),
    }
    missing = tuple(dict.fromkeys(chain.from_iterable({origin.missing_features for origin in found})))
    if missing:
        attributes[names.FEATURES_MISSING] = _missing(missing)
    return attributes


def _counts(found: Counter[str]) -> str:
    """The most frequent, for a person to read."""
    return ", ".join(f"{name}: {count}" for name, count in found.most_common(_MOST_TOLD) if count)


def _missing(features: Sequence[str]) -> str:
    return f"{len(features)}: {', '.join(features[:_MOST_TOLD])}"
