"""The url of a register call, as TorchServe reads it."""

import pytest

from torchkeep.modelstore.model_url import default_model_name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("resnet-18.mar", "resnet_18"),
        ("/a/b.c.mar", "b_c"),
        ("http://h/x.model?y=z.q", "x"),
        ("m.tar.gz", "m_tar_gz"),
        ("dir/", "dir"),
        ("_x", "_x"),
    ],
)
def test_default_model_names(url: str, name: str) -> None:
    assert default_model_name(url) == name
