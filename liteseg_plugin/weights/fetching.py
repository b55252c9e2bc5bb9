"""Weights by name or URL: downloaded once, kept with their SHA-256, checked at every use.

A file of ``~/.cache/liteseg/weights/NAME`` has a ``SHA256SUMS`` beside it. Where no SHA-256 is
published, the first download writes it, and any later file must equal that one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from liteseg_plugin.errors import LitesegError, WeightsError, printable
from liteseg_plugin.system.archives import is_archive, unpack
from liteseg_plugin.system.checksums import file_sha256, read_sums, write_sums
from liteseg_plugin.system.files import cache_folder, private_folder, scratch_folder, to_disk
from liteseg_plugin.weights.records import ReleasedWeights, find_record, similar

_FILE = "model.pdparams"
_MOST_BYTES = 4 << 30
_MOST_MEMBERS = 1000


def needs_network(weights: str) -> bool:
    """Tell whether weights are given by URL or by the name of released ones, not as a file."""
    return bool(urlparse(weights).netloc or find_record(weights)) and not os.path.exists(weights)


def find_weights(weights: str) -> str:
    """Return weights that were given by name, URL or path.

    Raises:
        WeightsError: If it is not a file, nor a URL, nor a name of released weights.
    """
    if not os.path.exists(weights) and not needs_network(weights):
        raise WeightsError(f"weights not found: {printable(weights)}{similar(weights)}")
    return weights


def local_path(weights: str) -> str:
    """Return the path of weights; those given by URL or by name are downloaded, once.

    Args:
        weights: A file, which wins over a name; a URL; or the name of released weights.

    Raises:
        WeightsError: If the download fails, or the file is not the one that is known.
    """
    return str(fetch(weights)) if needs_network(weights) else weights


def fetch(weights: str, *, offline: bool | None = None) -> Path:
    """Return released weights, or those of a URL, from the cache or else from the network.

    ``LITESEG_MIRROR`` names servers that are asked first, for the same path of the URL.

    Args:
        weights: A name or a URL.
        offline: Whether to use the cache only; by default, if ``LITESEG_OFFLINE`` is 1.

    Raises:
        WeightsError: If they cannot be had, or are not the file that is known.
    """
    record = find_record(weights)
    url = record.url if record else weights
    # Of any URL, that cache keeps the last two parts: best_model/model.pdparams is of many runs.
    earlier = _of_paddleseg(url) if record else None
    if earlier is not None:
        return earlier
    import requests

    folder = _folder(record, url)
    model = folder / _FILE
    try:
        with _locked(folder):
            known = read_sums(folder)
            if model.is_file() and file_sha256(model) in known.get(_FILE, ()):
                return model
            if os.environ.get("LITESEG_OFFLINE") == "1" if offline is None else offline:
                raise LitesegError(f"offline, and it is not in the cache, as {model}")
            _download(record, url, folder, known)
    except (requests.RequestException, OSError, LitesegError) as error:
        reason = str(error) if isinstance(error, LitesegError) else type(error).__name__
        raise WeightsError(
            f"cannot download {url} ({reason}). To work offline, download it elsewhere and name "
            "the local file: --model_path PATH for full weights, --opts "
            "model.backbone.pretrained=PATH for a backbone. To start from random weights instead: "
            "--opts model.backbone.pretrained=None model.backbone_init=kaiming"
        ) from error
    return model


def _download(
    record: ReleasedWeights | None, url: str, folder: Path, known: dict[str, set[str]]
) -> None:
    from paddleseg.utils import logger

    from liteseg_plugin.system.download import DownloadError, download, file_name

    name = file_name(url)
    part = folder / f"{name}.part"
    published = record.sha256 if record else None
    expected = {published} if published else known.get(name, set())
    most = (record.size_bytes if record else None) or _MOST_BYTES
    mirrors = [
        f"{mirror.rstrip('/')}{urlparse(url).path}"
        for mirror in os.environ.get("LITESEG_MIRROR", "").split()
    ]
    for source in (*mirrors, url):
        try:
            download(source, part, is_known=bool(expected), most_bytes=most)
            break
        except DownloadError as error:
            if source == url:
                raise
            logger.warning(f"{error}; trying the next server")
            part.unlink(missing_ok=True)
    actual = file_sha256(part)
    if expected and actual not in expected:
        part.unlink()
        where = "published"
        if not published:
            where = f"the first download; delete {folder} if you know that the file was replaced"
        raise LitesegError(
            f"the file has the SHA-256 {actual} instead of {' or '.join(expected)}, as {where}"
        )
    _place(part, folder, {name: actual})
    if not expected:
        quoted = record.sha256_quoted if record else None
        if quoted and quoted != actual:
            logger.warning(f"{url} does not have the SHA-256 that a third party quotes: {quoted}")
        logger.info(
            f"No SHA-256 of {url} is published. From now on it is {actual}, as {folder} says"
        )


def _place(part: Path, folder: Path, sums: dict[str, str]) -> None:
    """Check a complete download, and put its weights in place."""
    from liteseg_plugin.weights.loading import read_state_dict

    with scratch_folder(folder, "place") as scratch:
        made = scratch / _FILE
        if is_archive(part):
            bounds = {"most_members": _MOST_MEMBERS, "most_bytes": _MOST_BYTES}
            names = unpack(part, scratch / "archive", **bounds, error=WeightsError)
            found = [name for name in names if name.endswith(".pdparams")]
            if len(found) != 1:
                raise LitesegError(f"the archive holds {len(found)} .pdparams files instead of one")
            os.replace(scratch / "archive" / found[0], made)
        else:
            os.replace(part, made)
        read_state_dict(made)
        to_disk(made)
        write_sums(folder, {**sums, _FILE: file_sha256(made)})
        to_disk(folder)
        os.replace(made, folder / _FILE)
    to_disk(folder)
    part.unlink(missing_ok=True)


def _folder(record: ReleasedWeights | None, url: str) -> Path:
    """Return the folder of a file in the cache, created if missing."""
    parts = urlparse(url).path.split("/")[-2:]
    tag = hashlib.sha256(url.encode()).hexdigest()[:12]
    name = record.name if record else re.sub(r"[^\w.-]", "_", "-".join([*parts, tag])).strip(".")
    try:
        return private_folder(private_folder(cache_folder() / "weights") / name[-100:])
    except OSError as error:
        raise WeightsError(f"{error}; LITESEG_CACHE sets another folder") from error


def _of_paddleseg(url: str) -> Path | None:
    """Return the file that PaddleSeg downloaded earlier into its own cache."""
    from paddleseg.utils import seg_env

    *_, folder, name = ["", *unquote(urlparse(url).path).split("/")]
    if name.endswith(("tgz", "tar.gz", "tar", "zip")):
        folder, name = name.split(".")[0], _FILE
    path = Path(seg_env.PRETRAINED_MODEL_HOME, folder, name)
    return path if path.is_file() else None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time download into a folder; the others then find the file."""
    try:
        import fcntl
    except ImportError:  # Windows: the last one wins
        yield
        return
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
