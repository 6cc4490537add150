"""Public data sets that Conductor knows: where they are and what they must contain."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote


@dataclass(frozen=True)
class Dataset:
    """Files of a public repository at one commit."""

    name: str
    description: str
    licence: str
    address: str
    """Address of the repository's files at the commit, ending in a slash."""
    files: Mapping[str, str]
    """Path in the repository → SHA-256 of the file."""
    local_patterns: tuple[str, ...] = ("raw__*.csv.gz",)
    """Names of local copies, whoever made them."""

    def local_name(self, path: str) -> str:
        """Name under which a local copy of ``path`` is looked for and kept; a gzipped copy, unless it is Parquet."""
        name = Path(path).name.replace(" ", "_")
        return f"{Path(path).parent.name}__{name}" if name.endswith(".parquet") else f"raw__{name}.gz"


DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="gha-build-duration",
            description="GitHub Actions workflow runs with their jobs, by project",
            licence="MIT",
            address="https://raw.githubusercontent.com/theaymenFRS/github-actions-build-duration-replication/"
            "126de896455641630d212898491c14fe88e7903c/",
            files={
                "data/raw/bmad simbmad ecosystem_wf69576399_fixed.csv": (
                    "8881f8c075fdb2b5c927ec6d68094d99fb637d3a5f0e618c70a242d94f0463cb"
                ),
                "data/raw/ccpay_wf6192976_fixed.csv": (
                    "de7997f59d887a5305c8d44839a53c848bc1d5ca2095135b0c7f7e75afe6a3a0"
                ),
                "data/raw/collinbarrettFilterLists_wf75763098_fixed.csv": (
                    "d3117024d0e77dd74cb21d92bbdb887a9ed3b5895aa3389720af2145e9d89d9f"
                ),
                "data/raw/jod-yksilo-ui_wf83806327_fixed.csv": (
                    "1d080b54ff6f517d9e8c9548ef3262b5db6429bf211a40d00aa2fb90037f75e8"
                ),
                "data/raw/pr3y_Bruce_wf121541665_fixed.csv": (
                    "f46d48202f2859f76029da8e14933f3dc221ff4972ab2910c76de61d21ae490e"
                ),
            },
        ),
        Dataset(
            name="tcp",
            description="Test executions by CI cycle, of studies of test prioritisation",
            licence="MIT",
            address="https://raw.githubusercontent.com/jacksonpradolima/coleman/"
            "6c4a86f2abd876966c557849e5833e82963e5622/",
            files={
                "examples/square@retrofit/features-engineered-contextual.parquet": (
                    "f2dd1ab977ac52fd3eb724c3b4edc5ad728c689a2188338c6175f5ded8b5b59c"
                ),
            },
            # Beside what is pulled: the files of RETECS, which its authors publish elsewhere.
            local_patterns=("[!P]*.parquet", "[!P]*.csv.gz"),
        ),
    )
}


def data_home() -> Path | None:
    """Folder of local copies, from ``CONDUCTOR_DATA_HOME``; None where it is unset or absent."""
    text = os.environ.get("CONDUCTOR_DATA_HOME")
    return Path(text) if text and Path(text).is_dir() else None


def local_files(dataset: Dataset, home: Path | None = None) -> list[Path]:
    """Raw files of ``dataset`` under ``home`` (default: :func:`data_home`), sorted by name."""
    home = home or data_home()
    return (
        sorted(path for pattern in dataset.local_patterns for path in (home / dataset.name).glob(pattern))
        if home
        else []
    )


def pull(dataset: Dataset, home: Path) -> list[Path]:
    """Fetch what is not there yet into ``home``, verified by SHA-256 and gzipped. Returns the local files.

    Raises ValueError when a file's content is not what it must be, OSError when it can't be fetched.
    """
    import pooch  # noqa: PLC0415 - imports its HTTP stack

    folder = home / dataset.name
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for path, digest in dataset.files.items():
        target = folder / dataset.local_name(path)
        if not (target.exists() and _content_digest(target) == digest):
            fetched = Path(
                pooch.retrieve(
                    dataset.address + quote(path), known_hash=f"sha256:{digest}", path=folder, progressbar=False
                )
            )
            partial = target.with_suffix(".part")
            with fetched.open("rb") as source, _kept(partial, compressed=target.suffix == ".gz") as sink:
                shutil.copyfileobj(source, sink)
            partial.replace(target)
            fetched.unlink()
        paths.append(target)
    return paths


def _kept(path: Path, *, compressed: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(path, "wb", mtime=0)) if compressed else path.open("wb")


def _content_digest(path: Path) -> str:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
