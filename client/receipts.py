"""Whether a receipt is for what was sent and what came back."""

from collections.abc import Collection

from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.receipts import Answered, Asked, Receipt, ReceiptError, read_receipt


def check_receipt(
    text: str | None,
    public_key: bytes,
    *,
    nonce: str,
    asked: Asked,
    answered: Answered,
    models: Collection[ModelClaim] | None,
) -> Receipt:
    """What the server signed, once all of it is as it should be.

    `public_key` is the attested key (SubjectPublicKeyInfo in DER) and `models` what may have
    answered, say those of a policy; None is any. Raises ReceiptError, which says what is wrong.
    """
    if text is None:
        raise ReceiptError("There is no receipt: the server itself answered, or a stream.")
    receipt = read_receipt(text, public_key)
    for what, expected, found in (
        ("nonce", nonce, receipt.nonce),
        ("request", asked, receipt.asked),
        ("answer", answered, receipt.answered),
    ):
        if found != expected:
            raise ReceiptError(f"The receipt is for another {what}.")
    if models is not None and receipt.model not in models:
        raise ReceiptError(
            f"The receipt is of model {receipt.model.name} {receipt.model.version} with digest "
            f"{receipt.model.digest.hex()}, which is none of those that may answer."
        )
    return receipt
