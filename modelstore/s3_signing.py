"""Downloads from S3 in the name of the server: `s3_sse_kms=true` at registration.

What is encrypted by a key of KMS, S3 gives to signed requests only. botocore signs; it is asked
for when the first archive needs it, since most servers have none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from torchkeep.modelstore.errors import SigningImpossible


@dataclass(frozen=True, slots=True, repr=False)
class S3Signer:
    """Makes the headers of a signed GET. The keys are in no repr, and in no message."""

    access_key_id: str
    secret_access_key: str
    region: str
    session_token: str = ""  # of temporary keys

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "S3Signer":
        """TorchServe: from these variables, and from nowhere else."""
        return cls(
            environ.get("AWS_ACCESS_KEY_ID", ""),
            environ.get("AWS_SECRET_ACCESS_KEY", ""),
            environ.get("AWS_DEFAULT_REGION", ""),
            environ.get("AWS_SESSION_TOKEN", ""),
        )

    def headers(self, url: str) -> dict[str, str]:
        """What a GET of `url`, sent to the very host in it, has to carry.

        Raises SigningImpossible.
        """
        self._check_keys()
        try:
            from botocore.auth import S3SigV4Auth
            from botocore.awsrequest import AWSRequest
            from botocore.credentials import Credentials
        except ImportError as error:
            raise SigningImpossible("it needs botocore: pip install 'torchkeep[s3]'") from error
        parts = urlsplit(url)
        # S3 spells the path anew before it compares, however the client spelled it.
        path = quote(unquote(parts.path), safe="/~")
        canonical = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
        # botocore would leave out a port that goes without saying; the request does not.
        request = AWSRequest("GET", canonical, headers={"Host": parts.netloc})
        keys = Credentials(self.access_key_id, self.secret_access_key, self.session_token or None)
        S3SigV4Auth(keys, "s3", self.region).add_auth(request)
        return {name: value for name, value in request.headers.items() if name != "Host"}

    def _check_keys(self) -> None:
        named = {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": self.region,
        }
        missing = [name for name, value in named.items() if not value]
        if missing:
            raise SigningImpossible(f"set {', '.join(missing)} in the environment of the server")
