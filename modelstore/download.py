"""One file fetched into the model store: whole and under its own name, or not at all.

The bytes go to a hidden temporary file beside the target, so that neither `load_models=all`
nor a register call can meet half an archive. `Reach` says where http may lead; a file of this
machine has to begin like an archive before any of it is copied.
"""

import contextlib
import http.client
import logging
import os
import stat
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from torchkeep.modelstore.errors import (
    DownloadFailed,
    FileAlreadyExists,
    InvalidArchive,
    ModelStoreError,
    UrlNotAllowed,
)
from torchkeep.modelstore.found import START_BYTES, looks_like_archive
from torchkeep.modelstore.reach import ForbiddenAddress, Reach

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
SILENCE_S = 30  # a server that sends nothing for this long has failed
KERNEL_FILES = ("/proc", "/sys")  # no archives, and some block or act when they are read

PROGRESS_AFTER_S = 1.0  # less is not worth a line
PROGRESS_EVERY_S = 10.0

CheckUrl = Callable[[str], None]  # raises UrlNotAllowed
SignUrl = Callable[[str], Mapping[str, str]]  # headers of a GET of that url


def download(
    url: str,
    target: Path,
    max_bytes: int,
    check_allowed: CheckUrl,
    check_abandoned: Callable[[], None] = lambda: None,
    *,
    reach: Reach,
    private: Collection[Path] = (),
    sign: SignUrl | None = None,
) -> None:
    """Copy what `url` names to `target`; redirects are checked like the url itself.

    What `sign` makes goes to the host of `url` alone, and with no redirect to another.
    `check_abandoned` is called now and then and ends the work by raising. Files below a
    `private` directory are not copied.
    """
    if target.exists():
        raise FileAlreadyExists(target.name)
    partial = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with _open(url, check_allowed, reach, private, sign) as source, partial.open("xb") as file:
            progress = _Progress(target.name, source.length)
            received = 0
            for chunk in source.chunks:
                check_abandoned()
                received += len(chunk)
                if received > max_bytes:
                    raise ValueError(f"longer than {max_bytes} bytes")
                file.write(chunk)
                progress.report(received)
        _claim(partial, target)
    except ForbiddenAddress as error:
        raise UrlNotAllowed(
            url, f"leads to {error}, where no download goes, whatever allowed_urls says"
        ) from error
    except ModelStoreError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        # The file name only: urls carry signatures, and this one error quotes them.
        is_quoting = isinstance(error, http.client.InvalidURL)
        reason = "http cannot carry such a url" if is_quoting else error
        log.warning("download of %s failed: %s", target.name, reason)
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


@dataclass(frozen=True, slots=True)
class _Source:
    chunks: Iterator[bytes]
    length: int | None  # of all of them, where the server says it


class _Progress:
    """A line now and then about a download that takes a while."""

    def __init__(self, name: str, length: int | None) -> None:
        self.name = name  # of the file only: urls carry signatures
        self.total = "" if length is None else f" of {length / 1e6:.1f}"
        self.started = time.monotonic()
        self.next_s = PROGRESS_AFTER_S

    def report(self, received: int) -> None:
        elapsed_s = time.monotonic() - self.started
        if elapsed_s >= self.next_s:
            self.next_s = elapsed_s + PROGRESS_EVERY_S
            log.info(
                "downloading %s: %.1f%s MB in %.0f s",
                self.name,
                received / 1e6,
                self.total,
                elapsed_s,
            )


@contextlib.contextmanager
def _open(
    url: str,
    check_allowed: CheckUrl,
    reach: Reach,
    private: Collection[Path],
    sign: SignUrl | None,
) -> Iterator[_Source]:
    if urlsplit(url).scheme.lower() == "file":
        with _open_file(url, private) as file:
            yield _Source(_file_chunks(file), os.fstat(file.fileno()).st_size)
    else:
        with _open_http(url, check_allowed, reach, sign) as response:
            length = response.headers.get("Content-Length")
            yield _Source(_http_chunks(response), None if length is None else int(length))


def _file_chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _http_chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    received = 0
    # read1, because read waits for a whole chunk however slowly it comes
    while chunk := response.read1(CHUNK_BYTES):
        received += len(chunk)
        yield chunk
    # http.client takes a connection that closes early for the end
    length = response.headers.get("Content-Length")
    if length is not None and received != int(length):
        raise ValueError(f"{received} bytes of {length}")


def _open_file(url: str, private: Collection[Path]) -> IO[bytes]:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"file on another host: {parts.netloc}")
    path = unquote(parts.path)
    if ".." in path:
        raise ValueError("'..' behind percent signs")  # or allowed_urls could not confine
    # Looked at before it is opened: a device may act when it is, a pipe waits for its writer.
    place = os.open(path, os.O_PATH)
    try:
        _check_place(place, private)
        here = f"/proc/self/fd/{place}"  # the very file that was looked at
        file = open(os.open(here, os.O_RDONLY | os.O_NONBLOCK), "rb")  # noqa: SIM115
    finally:
        os.close(place)
    try:
        _check_start(file, Path(path).name)
    except BaseException:
        file.close()
        raise
    return file


def _check_place(place: int, private: Collection[Path]) -> None:
    status = os.fstat(place)
    kernels = {os.stat(root).st_dev for root in KERNEL_FILES if os.path.exists(root)}
    # A file without a name is a process's own, reached through its descriptors.
    if not stat.S_ISREG(status.st_mode) or status.st_dev in kernels or status.st_nlink == 0:
        raise ValueError("not a plain file")
    real = Path(os.readlink(f"/proc/self/fd/{place}"))
    if any(real.is_relative_to(directory.resolve()) for directory in private):
        raise ValueError("a file of a model that is being served")


def _check_start(file: IO[bytes], name: str) -> None:
    if not looks_like_archive(file.read(START_BYTES)):
        raise InvalidArchive(
            f"{name} does not begin like an archive: expected a zip (.mar), "
            "a tar compressed by gzip (.tar.gz), or a sealed archive (.sealed, .jwe)."
        )
    file.seek(0)


def _open_http(
    url: str, check_allowed: CheckUrl, reach: Reach, sign: SignUrl | None
) -> http.client.HTTPResponse:
    # Not build_opener, which knows more schemes, and proxies: those would resolve for us, and
    # TorchServe does not use them either.
    opener = urllib.request.OpenerDirector()
    for handler in (
        _CheckedConnections(reach),
        _CheckedRedirects(check_allowed),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url)
    for name, value in sign(url).items() if sign is not None else ():
        request.add_unredirected_header(name, value)
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=SILENCE_S)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    return response


class _Connection(http.client.HTTPConnection):
    """Connects by way of `reach`; all else still goes by the host's name."""

    reach: Reach

    def connect(self) -> None:
        self.sock = self.reach.connect(self.host, self.port, self.timeout)


class _TlsConnection(http.client.HTTPSConnection, _Connection):
    """TLS on top of what `_Connection` connects, for the host's name."""


class _CheckedConnections(urllib.request.HTTPHandler):
    """Opens http and https, each connection where `reach` lets it go."""

    def __init__(self, reach: Reach) -> None:
        super().__init__()
        self.reach = reach

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self._open_by(_Connection, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self._open_by(_TlsConnection, req)

    https_request = urllib.request.HTTPHandler.http_request

    def _open_by(
        self, kind: type[_Connection], req: urllib.request.Request
    ) -> http.client.HTTPResponse:
        if "@" in (req.host or ""):
            # urllib does not send it, and would take it for a port that the log then shows
            raise ValueError("a user's name and password in the url are not supported")

        def connection(host: str, /, **options: Any) -> _Connection:
            made = kind(host, **options)
            made.reach = self.reach
            return made

        return self.do_open(connection, req)


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
        # It holds the connection; and what is left of it would be read, however much comes.
        fp.close()
        if urlsplit(newurl).scheme.lower() not in ("http", "https"):
            raise UrlNotAllowed(newurl)
        self.check_allowed(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
