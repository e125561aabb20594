"""Module-level handler: url_path names the type of the answer."""


def tensor():
    import torch

    return torch.arange(6).reshape(2, 3)


REPLIES = {
    "bytes": lambda: b"\x00\xff raw \n",
    "bytearray": lambda: bytearray(b"bytes that may change"),
    "empty-bytes": lambda: b"",
    "str": lambda: "Grüße",
    "empty-str": lambda: "",
    "dict": lambda: {"b": [1, 2.5, {"c": None}], "a": "ä<>&"},
    "empty-dict": dict,
    "list": lambda: [1, [2, 3], "four"],
    "empty-list": list,
    "tuple": lambda: (1, 2),
    "int": lambda: 7,
    "float": lambda: 0.1,
    "nan": lambda: float("nan"),
    "true": lambda: True,
    "none": lambda: None,
    "int-key": lambda: {1: "one", None: "none"},
    "tensor": tensor,
}


def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "url_path") == "batch-size":
        return [len(data) for _ in data]
    return [
        REPLIES[context.get_request_header(index, "url_path")]() for index in range(len(data))
    ]
