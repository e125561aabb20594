"""The certificate of the https listeners."""

import ssl
from datetime import UTC, datetime

from cryptography.hazmat.primitives.hashes import SHA256

from torchkeep.runtime.config import Config
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.tls import self_signed, server_context
from torchkeep.runtime.tls_files import Identity, read_keystore, read_pem


def tls_of_listeners(config: Config) -> ssl.SSLContext | None:
    """What https listeners show of themselves; None where there are none."""
    if not _hosts_of_tls(config):
        return None
    identity = _identity(config)
    config.warnings.extend(identity.warnings(datetime.now(UTC)))
    try:
        return server_context(identity.chain_pem, identity.key)
    except ssl.SSLError as error:
        raise ConfigError(f"{identity.origin}: TLS cannot use this: {error.reason}") from error


def _hosts_of_tls(config: Config) -> set[str]:
    """Of the listeners that show the configured certificate."""
    addresses = (config.inference_address, config.management_address, config.metrics_address)
    served = addresses if config.enable_metrics_api else addresses[:2]
    return {address.host for address in served if address.is_tls}


def _identity(config: Config) -> Identity:
    if config.keystore is not None:  # TorchServe: it comes before PEM files
        return read_keystore(config.keystore, config.keystore_pass, config.keystore_type)
    if config.private_key_file is not None or config.certificate_file is not None:
        return read_pem(config.private_key_file, config.certificate_file)
    hosts = _hosts_of_tls(config) | {"localhost", "127.0.0.1"}
    certificate, key = self_signed(sorted(hosts))
    config.warnings.append(
        "https with a certificate that this start made for itself, since neither keystore nor "
        "private_key_file and certificate_file are set: clients have no reason to trust it. "
        f"Its SHA-256 is {certificate.fingerprint(SHA256()).hex()}"
    )
    return Identity([certificate], key, "self-signed")
