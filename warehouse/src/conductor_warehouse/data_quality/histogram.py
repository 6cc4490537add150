"""Histograms with logarithmic buckets: small, mergeable, with quantiles to within 9 %.

Every histogram has the same buckets, four for each doubling, so those of batches add up to those of days and periods,
and two periods can be compared bucket by bucket. What is not above 2^-10 (a millisecond, of seconds) shares one bucket.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

BUCKETS_PER_OCTAVE = 4
_LEAST_OCTAVE, _MOST_OCTAVE = -10, 60
LEAST = _LEAST_OCTAVE * BUCKETS_PER_OCTAVE - 1
"""Bucket of everything up to 2^-10."""
_MOST = _MOST_OCTAVE * BUCKETS_PER_OCTAVE
_FLOOR = 2.0**_LEAST_OCTAVE

Histogram = dict[int, int]
"""How many values are in each bucket."""


def of(values: NDArray[np.float64]) -> Histogram:
    """The histogram of finite values."""
    if not len(values):
        return {}
    buckets = np.floor(np.log2(np.maximum(values, _FLOOR)) * BUCKETS_PER_OCTAVE)
    buckets = np.where(values <= _FLOOR, LEAST, np.minimum(buckets, _MOST)).astype(np.int64)
    counts = np.bincount(buckets - LEAST)
    return {int(bucket) + LEAST: int(counts[bucket]) for bucket in np.flatnonzero(counts)}


def merge(histograms: Iterable[Mapping[int, int]]) -> Histogram:
    """The histogram of all their values."""
    total: Histogram = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def size(histogram: Mapping[int, int]) -> int:
    """How many values it counts."""
    return sum(histogram.values())


def lower_edge(bucket: int) -> float:
    """The least value of a bucket; 0 for the lowest one."""
    return 0.0 if bucket <= LEAST else 2.0 ** (bucket / BUCKETS_PER_OCTAVE)


def quantile(histogram: Mapping[int, int], share: float) -> float:
    """A quantile, to within 9 % (0 up to 2^-10); NaN of nothing."""
    rank = share * (size(histogram) - 1)
    passed = 0
    for bucket in sorted(histogram):
        passed += histogram[bucket]
        if passed > rank:
            return 0.0 if bucket <= LEAST else 2.0 ** ((bucket + 0.5) / BUCKETS_PER_OCTAVE)
    return math.nan


def outlier_count(histogram: Mapping[int, int]) -> int:
    """Values beyond Tukey's outer fences, three interquartile ranges from the quartiles, of the logarithms.

    The interquartile range is taken to be an octave at least: values that hardly vary have no outliers nearby.
    """
    if not histogram:
        return 0
    ordered = sorted(histogram)
    total, passed = size(histogram), 0
    quartiles: list[int] = []
    for bucket in ordered:
        passed += histogram[bucket]
        while len(quartiles) < 2 and passed > (0.25, 0.75)[len(quartiles)] * (total - 1):
            quartiles.append(bucket)
    fence = 3 * max(quartiles[1] - quartiles[0], BUCKETS_PER_OCTAVE)
    low, high = quartiles[0] - fence, quartiles[1] + fence
    return sum(count for bucket, count in histogram.items() if not low <= bucket <= high)


def population_stability_index(before: Mapping[int, int], after: Mapping[int, int]) -> float:
    """PSI of ``after`` against ``before``, over at most ten bins of about equal share before; NaN without values.

    Read as usual: below 0.1 stable, up to 0.25 a moderate change, above it a major one.
    """
    before_size, after_size = size(before), size(after)
    if not before_size or not after_size:
        return math.nan
    bins: list[list[int]] = [[0, 0]]
    for bucket in sorted({*before, *after}):
        if bins[-1][0] >= before_size / 10:
            bins.append([0, 0])
        bins[-1][0] += before.get(bucket, 0)
        bins[-1][1] += after.get(bucket, 0)
    return _stability(bins, before_size, after_size)


def categories_stability_index(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """PSI of categories; NaN without values."""
    before_size, after_size = sum(before.values()), sum(after.values())
    if not before_size or not after_size:
        return math.nan
    names = {*before, *after}
    return _stability([[before.get(name, 0), after.get(name, 0)] for name in names], before_size, after_size)


def _stability(bins: Iterable[list[int]], before_size: int, after_size: int) -> float:
    total = 0.0
    for before, after in bins:
        # Half a value stands for none: the logarithm of an empty bin's share has no end.
        one, other = max(before, 0.5) / before_size, max(after, 0.5) / after_size
        total += (other - one) * math.log(other / one)
    return total


def kolmogorov_smirnov(before: Mapping[int, int], after: Mapping[int, int]) -> float:
    """Largest distance of the two cumulative distributions, from 0 to 1; NaN without values."""
    before_size, after_size = size(before), size(after)
    if not before_size or not after_size:
        return math.nan
    distance, one, other = 0.0, 0, 0
    for bucket in sorted({*before, *after}):
        one += before.get(bucket, 0)
        other += after.get(bucket, 0)
        distance = max(distance, abs(one / before_size - other / after_size))
    return distance
