"""The url of a register call, as TorchServe reads it."""

import re
from urllib.parse import unquote

from torchkeep.modelstore.errors import ArchiveNotFound
from torchkeep.modelstore.found import JWE_SUFFIX, SEALED_SUFFIX

MAX_DECODINGS = 4  # of a path with percent signs
# Not urlsplit, which drops some characters and raises on others.
URL = re.compile(
    r"(file|https?)://(?P<place>[^/?#]*)(?P<path>[^?#]*)(?P<query>.*)", re.IGNORECASE | re.DOTALL
)
PORT = re.compile(r".*:0*([0-9]{1,9})", re.DOTALL)


def check_not_relative(url: str) -> None:
    """Raise ArchiveNotFound for two dots, also where only percent signs hide them.

    `https://host/ours/.*` allows `https://host/ours/%2e%2e/theirs` by its letters, and the host
    may read it as `https://host/theirs`, after proxies that decoded once more.
    """
    match = URL.fullmatch(url)
    path = match["path"] if match else ""
    for _ in range(MAX_DECODINGS):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    else:
        path = ".."  # nobody needs that many: something is hidden there
    if ".." in url or ".." in path:
        raise ArchiveNotFound(f"Relative path is not allowed in url: {url}")


def default_model_name(url: str) -> str:
    """The name of a model loaded at startup when neither the user nor the manifest gives one."""
    name = archive_name(url).removesuffix(SEALED_SUFFIX).removesuffix(JWE_SUFFIX)
    if ".mar" in name or ".model" in name:
        name = name[: name.rindex(".")]
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def split_name(item: str) -> tuple[str | None, str]:
    name, equals, url = item.partition("=")
    # the first "=" of a presigned url is no end of a name
    if not equals or "://" in name:
        return None, item
    return name.strip() or None, url.strip()


def archive_name(url: str) -> str:
    """The name in the model store of what a url leads to; a query is no part of it."""
    match = URL.fullmatch(url)
    path = match["path"] if match else url
    return path.rstrip("/").rpartition("/")[2]
