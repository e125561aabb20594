from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from torchkeep.runtime.identity import AttestedKey, HpkeKey


def test_who_has_the_public_key_can_check_a_signature() -> None:
    key = AttestedKey()
    public_key = load_der_public_key(key.public_key)
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert public_key.curve.name == "secp256r1"
    public_key.verify(key.sign(b"data"), b"data", ec.ECDSA(hashes.SHA256()))


def test_every_process_has_keys_of_its_own() -> None:
    assert AttestedKey().public_key != AttestedKey().public_key
    assert HpkeKey().public_key != HpkeKey().public_key
    assert len(HpkeKey().public_key) == 32
