"""Keys: who may ask for what."""

from conformance.case import (
    ECHO,
    INFERRING,
    JSON,
    MANAGING,
    RENEWING,
    Case,
    Scenario,
    infer,
    key,
    manage,
)

KEYS = Scenario(
    "keys",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1", "enable_model_api": "false"},
    args=(),
    cases=[
        *(
            Case(f"{method} {path} of {port} with {label}", port, method, path, headers)
            for port, mine, other in (
                ("inference", INFERRING, MANAGING), ("management", MANAGING, INFERRING),
            )
            for method, path in (
                ("GET", "/ping"), ("GET", "/"), ("GET", "//ping"), ("GET", "/nothing"),
                ("GET", "/%ZZ"), ("GET", "/models"), ("GET", "/models/none"),
                ("POST", "/models?url=echo.mar"), ("DELETE", "/models/echo"),
                ("GET", "/predictions"), ("GET", "/predictions/none"), ("GET", "/TOKEN"),
                ("GET", "/%74oken?type=inference"), ("HEAD", "/models/none"),
            )
            for label, headers in (
                ("no key", ()), ("its key", (mine,)), ("the other key", (other,)),
                ("the API key", (RENEWING,)),
            )
        ),
        *(
            manage(f"header {label}", "GET", "/models", headers=headers)
            for label, headers in (
                ("in lower case", (key("management", "bearer "),)),
                ("without Bearer", (key("management", ""),)),
                ("of another scheme", (key("management", "Basic "),)),
                ("without a blank", (key("management", "Bearer"),)),
                ("with many blanks", (key("management", "Bearer   "),)),
                ("with a tab", (key("management", "Bearer\t"),)),
                ("with blanks around it", (key("management", "  Bearer ", "  "),)),
                ("with more words", (key("management", after=" x"),)),
                ("with a comma", (key("management", after=","),)),
                ("without a key", (("Authorization", "Bearer "),)),
                ("that is empty", (("Authorization", ""),)),
                ("beyond ASCII", (("Authorization", "Bearer \xe9\xff"),)),
                ("twice, the first right", (MANAGING, ("Authorization", "Bearer x"))),
                ("twice, the second right", (("Authorization", "Bearer x"), MANAGING)),
                ("of another spelling", (("aUTHORIZATION", MANAGING[1]),)),
            )
        ),
        manage("key in the query", "GET", "/models?token=<management key>"),
        infer("predict without a key", ECHO, b"text", "text/plain"),
        infer("predict with a wrong key", ECHO, b"text", "text/plain", headers=[MANAGING]),
        Case("/token of inference without a key", "inference", "GET", "/token?type=inference"),
        Case("/token of inference", "inference", "GET", "/token?type=inference", (INFERRING,)),
        Case("/token of inference with the API key", "inference", "GET", "/token", (RENEWING,)),
        *(
            manage(f"{method} /token{rest} with {label}", method, f"/token{rest}", headers=headers)
            for method, rest in (
                ("GET", "?type=management"), ("GET", "?type=inference"), ("GET", ""),
                ("GET", "?type="), ("GET", "?type=API"), ("GET", "?type=Inference"),
                ("GET", "?type=inference&type=x"), ("GET", "?type=x&type=inference"),
                ("GET", "?type=%69nference&x=y"), ("GET", "/?type=inference"),
                ("GET", "/x?type=inference"), ("GET", "s?type=inference"),
                ("POST", "?type=inference"), ("PUT", "?type=inference"),
                ("DELETE", "?type=inference"), ("PATCH", "?type=inference"),
                ("HEAD", "?type=inference"), ("OPTIONS", "?type=inference"),
            )
            for label, headers in (
                ("no key", ()), ("the API key", (RENEWING,)), ("the management key", (MANAGING,)),
            )
        ),
        manage("renewed keys count", "GET", "/models", headers=(MANAGING,)),
        Case("renewed inference key counts", "inference", "GET", "/ping", (INFERRING,)),
        manage(
            "/token in a body", "POST", "/token", headers=(RENEWING, ("Content-Type", JSON)),
            body=b'{"type": "inference"}',
        ),
        *(
            manage(f"/token {label}", "GET", path, headers=headers,
                   deliberate="models-named-token", our_status=status)
            for label, path, headers, status in (
                ("in a model's name", "/models/tokenizer", (MANAGING,), 404),
                ("in the query", "/models?x=/token", (MANAGING,), 200),
                ("in a header", "/models", (MANAGING, ("X", "a/token")), 200),
                ("at the end", "/x/token?type=inference", (RENEWING,), 400),
            )
        ),
    ],
)  # fmt: skip

KEYS_AND_MODEL_API = Scenario(
    "keys and model api",
    archives=("echo",),
    args=("--enable-model-api",),
    cases=[
        manage("register without a key", "POST", "/models?url=echo.mar"),
        manage("register", "POST", "/models?url=echo.mar", headers=(MANAGING,)),
        manage("unregister with a wrong key", "DELETE", "/models/echo", headers=(RENEWING,)),
        manage("unregister", "DELETE", "/models/echo", headers=(MANAGING,)),
    ],
)

KEYS_OF_A_SHARED_PORT = Scenario(
    "keys of one port for both",
    archives=("echo",),
    args=("--enable-model-api",),
    shares_port=True,
    cases=[
        *(Case(f"{path} with {label}", "inference", "GET", path, headers)
          for path in ("/ping", "/nothing")
          for label, headers in (
              ("no key", ()), ("the inference key", (INFERRING,)), ("the API key", (RENEWING,)))),
        *(Case(f"/models with {label}", "inference", "GET", "/models", headers)
          for label, headers in (
              ("no key", ()), ("the inference key", (INFERRING,)), ("the API key", (RENEWING,)))),
        *(Case(f"{path} with the management key", "inference", "GET", path, (MANAGING,),
               deliberate="keys-of-a-shared-port", our_status=status)
          for path, status in (("/models", 200), ("/ping", 200), ("/nothing", 404))),
        Case("the description needs none", "inference", "OPTIONS", "/"),
    ],
)  # fmt: skip

NO_KEYS = Scenario(
    "no keys",
    archives=("echo",),
    cases=[
        manage("/token without keys", "GET", "/token?type=inference"),
        manage("any key will do", "GET", "/models", headers=(("Authorization", "Bearer x"),)),
        Case("any key will do for ping", "inference", "GET", "/ping"),
    ],
)


SCENARIOS = [KEYS, KEYS_AND_MODEL_API, KEYS_OF_A_SHARED_PORT, NO_KEYS]
