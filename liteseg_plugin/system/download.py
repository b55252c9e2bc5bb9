"""Downloads that resume, retry and check what servers say."""

from __future__ import annotations

import os
import re
from pathlib import Path
from time import sleep
from typing import Any
from urllib.parse import urljoin, urlparse

import requests
from urllib3.exceptions import NewConnectionError

from liteseg_plugin.errors import LitesegError, printable
from liteseg_plugin.system.progress import progress_bar

ATTEMPTS = 6
"""Requests for a file, until it is complete."""
TIMEOUT = (10.0, 30.0)
"""Seconds to wait for a connection, and for the next bytes."""

_MOST_WAIT = 60.0
_MOST_REDIRECTS = 5
_BLOCK = 1 << 16
_RETRIED = (408, 429, 500, 502, 503, 504)
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_REFUSED = (requests.exceptions.ProxyError, requests.exceptions.SSLError)


class DownloadError(LitesegError):
    """A file that cannot be downloaded."""


class _InterruptedError(Exception):
    """The next attempt may succeed, after this time in seconds."""

    def __init__(self, reason: object, wait: float | None = None) -> None:
        super().__init__(str(reason))
        self.wait = wait


def download(url: str, part: Path, *, is_known: bool, most_bytes: int) -> None:
    """Download a file, from where an earlier call stopped if the server has the same file still.

    Proxies are those of ``http_proxy``, ``https_proxy`` and ``no_proxy``.

    Args:
        url: Of ``http`` or ``https``.
        part: Where the file goes; it stays if the download fails.
        is_known: Whether the caller checks the SHA-256. If not, redirects to another host are
            refused, and a part without the server's mark is not continued.
        most_bytes: Largest size.

    Raises:
        DownloadError: If it cannot be downloaded.
        OSError: If the file cannot be written.
    """
    with requests.Session() as session:
        for attempt in range(ATTEMPTS):
            wait = 2.0**attempt
            try:
                return _attempt(session, url, part, is_known, most_bytes)
            except _BROKEN as error:
                reason = f"{type(error).__name__}: {error}"
                cause = getattr(error.args[0] if error.args else None, "reason", None)
                if isinstance(error, _REFUSED) or isinstance(cause, NewConnectionError):
                    raise DownloadError(f"{url}: no connection ({type(error).__name__})") from error
            except requests.RequestException as error:
                raise DownloadError(f"{url}: {type(error).__name__}: {error}") from error
            except _InterruptedError as error:
                reason, wait = str(error), wait if error.wait is None else error.wait
            if attempt < ATTEMPTS - 1:
                sleep(min(wait, _MOST_WAIT))
    raise DownloadError(f"{url}: {printable(reason)} ({ATTEMPTS} attempts)")


def _attempt(
    session: requests.Session, url: str, part: Path, is_known: bool, most_bytes: int
) -> None:
    mark_file = part.with_name(f"{part.name}.mark")
    mark = mark_file.read_text(encoding="utf-8") if mark_file.is_file() else ""
    have = part.stat().st_size if part.is_file() and (mark or is_known) else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "liteseg_plugin"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if mark:
            headers["If-Range"] = mark  # the whole file, if it has changed
    with _response(session, url, headers, is_known) as response:
        start, total = _extent(response, url, have)
        if start is None:
            part.unlink(missing_ok=True)
            raise _InterruptedError("the server does not have the missing bytes", 0)
        if (total or 0) > most_bytes:
            raise DownloadError(f"{url} has {total} bytes; at most {most_bytes} are expected")
        mark_file.write_text(_mark(response), encoding="utf-8")
        done = start
        bar = progress_bar(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True)
        with part.open("r+b" if start else "wb") as file, bar:
            file.seek(start)
            for block in response.iter_content(_BLOCK):
                done += len(block)
                if done > most_bytes:
                    raise DownloadError(f"{url} has more than the expected {most_bytes} bytes")
                file.write(block)
                bar.update(len(block))
            file.truncate()
    if total is not None and done != total:
        raise _InterruptedError(f"it ended after {done} of {total} bytes")
    mark_file.unlink()


def _response(session: requests.Session, url: str, headers: dict[str, str], is_known: bool) -> Any:
    """Request a file, and follow redirects that are not less safe than the URL."""
    at = url
    for _ in range(_MOST_REDIRECTS + 1):
        response = session.get(
            at, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False
        )
        if not response.is_redirect:
            return response
        response.close()
        target = urljoin(at, response.headers["Location"])
        old, new = urlparse(at), urlparse(target)
        if new.scheme not in ("http", "https") or (old.scheme, new.scheme) == ("https", "http"):
            raise DownloadError(f"{url} redirects to {printable(target)}, which is not followed")
        if new.netloc != old.netloc and not is_known:
            raise DownloadError(
                f"{url} redirects to {printable(target)}, another server, and the SHA-256 of the "
                "file is not known; if you trust that server, give its URL"
            )
        at = target
    raise DownloadError(f"{url} redirects more than {_MOST_REDIRECTS} times")


def _extent(response: requests.Response, url: str, have: int) -> tuple[int | None, int | None]:
    """Return where the answer starts (None: it does not continue the part) and the file's size."""
    status, headers = response.status_code, response.headers
    length = headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    if status == 200:
        return 0, size
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
        if not found or int(found[1]) != have:
            return None, None
        return have, int(found[3]) if found[3].isdecimal() else None
    if status == 416 and have:
        return None, None
    if status in _RETRIED:
        wait = headers.get("Retry-After", "")
        raise _InterruptedError(f"HTTP {status}", float(wait) if wait.isdecimal() else None)
    raise DownloadError(f"{url}: HTTP {status} {printable(response.reason)}")


def _mark(response: requests.Response) -> str:
    """Return what the server calls this version of the file; nothing if it is not exact."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def file_name(url: str) -> str:
    """Return the name of the file that a URL ends with, safe for any system."""
    return re.sub(r"[^\w.-]", "_", os.path.basename(urlparse(url).path)).lstrip(".") or "file"
