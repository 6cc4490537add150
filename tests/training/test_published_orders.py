"""APFD as it is computed here is APFD as it was published: RETECS' own orders of iofrol give its own figures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conductor_training.test_failure.metrics import apfd, best_apfd


def test_retecs_own_orders_give_its_published_figures() -> None:
    folder = Path(os.environ.get("CONDUCTOR_DATA_HOME", ".")) / "tcp"
    if not (folder / "iofrol.csv.gz").exists():
        pytest.skip("CONDUCTOR_DATA_HOME holds no iofrol")
    rows = pd.read_csv(folder / "iofrol.csv.gz", sep=";", usecols=["Id", "Verdict", "Cycle"])
    published = pd.read_csv(folder / "PUBLISHED_retecs_per_cycle_iofrol.csv", sep=";").set_index("cycle")
    ours, best, judged = [], [], []
    for cycle, results in rows.groupby("Cycle"):
        failed = results.Verdict.to_numpy(float)
        if len(failed) < 6 or not failed.any():
            continue
        order = pd.Series(np.arange(len(failed)), json.loads(published.predictions[cycle]))
        ours.append(apfd(-order[results.Id].to_numpy(float), failed))
        best.append(best_apfd(failed))
        judged.append(cycle)
    told = published.loc[judged]
    np.testing.assert_allclose(ours, told.apfd, atol=1e-12)
    means = told[["apfd", "heur_sort_apfd", "heur_random_apfd"]].mean()
    assert len(judged) == 205
    assert [round(value, 3) for value in (*means, np.mean(best))] == [0.634, 0.632, 0.494, 0.798]
