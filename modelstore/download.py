"""One file fetched into the model store: whole and under its own name, or not at all.

The bytes go to a hidden temporary file beside the target, so that neither `load_models=all`
nor a register call can meet half an archive.
"""

import http.client
import logging
import os
import stat
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from torchkeep.modelstore.errors import (
    DownloadFailed,
    FileAlreadyExists,
    ModelStoreError,
    UrlNotAllowed,
)

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
SILENCE_S = 30  # a server that sends nothing for this long has failed

CheckUrl = Callable[[str], None]  # raises UrlNotAllowed


def download(
    url: str,
    target: Path,
    max_bytes: int,
    check_allowed: CheckUrl,
    check_abandoned: Callable[[], None] = lambda: None,
) -> None:
    """Copy what `url` names to `target`; redirects are checked like the url itself.

    `check_abandoned` is called now and then and ends the work by raising.
    """
    if target.exists():
        raise FileAlreadyExists(target.name)
    partial = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as file:
            received = 0
            for chunk in _chunks(url, check_allowed):
                check_abandoned()
                received += len(chunk)
                if received > max_bytes:
                    raise ValueError(f"longer than {max_bytes} bytes")
                file.write(chunk)
        _claim(partial, target)
    except ModelStoreError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        # the file name only: urls carry signatures
        log.warning("download of %s failed: %s", target.name, error)
        raise DownloadFailed(url) from error
    finally:
        partial.unlink(missing_ok=True)


def _claim(partial: Path, target: Path) -> None:
    try:
        # unlike a rename, a link never replaces a file that came in the meantime
        os.link(partial, target)
    except FileExistsError as error:
        raise FileAlreadyExists(target.name) from error
    except OSError:
        # network file systems without hard links; the window is the price
        if target.exists():
            raise FileAlreadyExists(target.name) from None
        partial.replace(target)


def _chunks(url: str, check_allowed: CheckUrl) -> Iterator[bytes]:
    if urlsplit(url).scheme.lower() == "file":
        with _open_file(url) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        return
    with _open_http(url, check_allowed) as response:
        received = 0
        # read1, because read waits for a whole chunk however slowly it comes
        while chunk := response.read1(CHUNK_BYTES):
            received += len(chunk)
            yield chunk
        # http.client takes a connection that closes early for the end
        length = response.headers.get("Content-Length")
        if length is not None and received != int(length):
            raise ValueError(f"{received} bytes of {length}")


def _open_http(url: str, check_allowed: CheckUrl) -> http.client.HTTPResponse:
    opener = urllib.request.build_opener(_CheckedRedirects(check_allowed))
    try:
        response: http.client.HTTPResponse = opener.open(url, timeout=SILENCE_S)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    return response


def _open_file(url: str) -> IO[bytes]:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"file on another host: {parts.netloc}")
    path = unquote(parts.path)
    if ".." in path:
        raise ValueError("'..' behind percent signs")  # or allowed_urls could not confine
    # without O_NONBLOCK opening a pipe waits for its writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = open(descriptor, "rb")  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise ValueError("not a plain file")
    return file


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """An allowed host may not send us to one that is not, or to a file of this machine."""

    def __init__(self, check_allowed: CheckUrl) -> None:
        self.check_allowed = check_allowed

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            if urlsplit(newurl).scheme.lower() not in ("http", "https"):
                raise UrlNotAllowed(newurl)
            self.check_allowed(newurl)
        except UrlNotAllowed:
            fp.close()  # nobody else would: it holds the connection
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)
