"""RFC 3394 key unwrapping that leaves no copy of the key behind.

The library's own function returns `bytes`, which nobody can overwrite. Wrapping happens on the
owner's machine, in a process that ends at once, and uses the library.
"""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from torchkeep.modelstore.keys import wipe

WRAP_OVERHEAD_BYTES = 8
_BLOCK = 8
_CHECK_VALUE = b"\xa6" * _BLOCK
_ROUNDS = 6


def unwrap_key(kek: bytearray, wrapped: bytes) -> bytearray | None:
    """The key inside `wrapped`, for the caller to wipe; None if `kek` did not wrap it."""
    decryptor = Cipher(algorithms.AES(kek), modes.ECB()).decryptor()
    key = bytearray(wrapped[_BLOCK:])
    block = bytearray(wrapped[:_BLOCK]) + bytearray(_BLOCK)
    opened = bytearray(4 * _BLOCK)  # room for two blocks, as the library demands
    count = len(key) // _BLOCK
    for step in range(_ROUNDS * count, 0, -1):
        start = (step - 1) % count * _BLOCK
        counter = step.to_bytes(_BLOCK, "big")
        block[:_BLOCK] = bytes(a ^ b for a, b in zip(block[:_BLOCK], counter, strict=True))
        block[_BLOCK:] = key[start : start + _BLOCK]
        decryptor.update_into(block, opened)
        block[:_BLOCK] = opened[:_BLOCK]
        key[start : start + _BLOCK] = opened[_BLOCK : 2 * _BLOCK]
    is_right = block[:_BLOCK] == _CHECK_VALUE
    wipe(block)
    wipe(opened)
    if not is_right:
        wipe(key)
        return None
    return key
