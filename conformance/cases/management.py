"""The management API: models from registration to the end."""

from conformance.case import ECHO, JSON, Case, Scenario, infer, manage, register

KEPT_AFTER_FAILURE = "failed-loads-are-gone"


def load_failure(archive: str, is_kept: bool = False, **parameters: object) -> list[Case]:
    """TorchServe keeps the model where a RuntimeError or a lack of memory was the reason."""
    case = register(archive, **parameters)
    name = str(parameters.get("model_name", archive))
    is_kept = is_kept or archive in ("load_runtime_error", "load_cuda", "load_memory_error")
    return [
        Case(f"load {name}", "management", "POST", case.path, comparison="load failure"),
        manage(
            f"unregister {name}",
            "DELETE",
            f"/models/{name}",
            deliberate=KEPT_AFTER_FAILURE if is_kept else None,
            our_status=404 if is_kept else None,
        ),
    ]


LOAD_FAILURES = Scenario(
    "load failures",
    archives=(
        "load_value_error", "load_runtime_error", "load_cuda", "load_memory_error", "load_exit",
        "load_no_handler", "load_two_classes", "load_no_initialize", "load_import_error",
        "load_no_weights", "echo",
    ),
    cases=[
        *load_failure("load_value_error"),
        *load_failure("load_runtime_error"),
        Case(
            "load kept",
            "management",
            "POST",
            register("load_runtime_error", model_name="kept").path,
            comparison="load failure",
        ),
        manage("describe what stayed", "GET", "/models/kept", deliberate=KEPT_AFTER_FAILURE,
               our_status=404),
        manage("register again what stayed", "POST",
               "/models?url=load_runtime_error.mar&model_name=kept",
               deliberate=KEPT_AFTER_FAILURE, our_status=200),
        *load_failure("load_cuda"),
        *load_failure("load_memory_error"),
        *load_failure("load_exit"),
        *load_failure("load_no_handler"),
        *load_failure("load_two_classes"),
        *load_failure("load_no_initialize"),
        *load_failure("load_import_error"),
        *load_failure("load_no_weights"),
        *load_failure("echo", model_name="no_module", handler="no_such_module:handle"),
        *load_failure("echo", model_name="no_function", handler="echo:no_such_function"),
        infer("healthy after load failures", "/ping", method="GET"),
    ],
    needs_torch=True,
)  # fmt: skip

MODELS = Scenario(
    "models",
    archives=("echo", "echo_v2", "echo_config", "word_lengths"),
    cases=[
        manage("list nothing", "GET", "/models"),
        manage("register without url", "POST", "/models"),
        manage("register with empty url", "POST", "/models?url="),
        manage("register what is not there", "POST", "/models?url=unknown.mar"),
        manage("register a relative path", "POST", "/models?url=..%2Fecho.mar"),
        manage("register a path", "POST", "/models?url=%2Fany%2Fdir%2Funknown.mar"),
        manage("register a bad runtime", "POST", "/models?url=echo.mar&runtime=java"),
        manage(
            "register an unknown file url",
            "POST",
            "/models?url=file:///no/such/file.mar",
            comparison="load failure",
        ),
        manage("register without workers", "POST", "/models?url=echo.mar"),
        manage("register twice", "POST", "/models?url=echo.mar"),
        manage("describe without workers", "GET", "/models/echo"),
        infer("infer without workers", ECHO, b"x"),
        infer("infer a version without workers", f"{ECHO}/1.0", b"x"),
        manage("customized without workers", "GET", "/models/echo?customized=true"),
        manage("list one", "GET", "/models"),
        manage("scale", "PUT", "/models/echo?min_worker=1&synchronous=true"),
        manage("describe with a worker", "GET", "/models/echo"),
        manage("customized by a function", "GET", "/models/echo?customized=true"),
        manage("scale without numbers", "PUT", "/models/echo?synchronous=true"),
        manage("scale a version", "PUT", "/models/echo/1.0?min_worker=1&synchronous=true"),
        manage("scale in the background", "PUT", "/models/echo?min_worker=1"),
        manage("scale max below min", "PUT", "/models/echo?min_worker=2&max_worker=1"),
        manage("scale unknown model", "PUT", "/models/unknown?min_worker=1"),
        manage("scale unknown version", "PUT", "/models/echo/9.9?min_worker=1"),
        manage("second version", "POST", "/models?url=echo_v2.mar&initial_workers=1"),
        manage("second version twice", "POST", "/models?url=echo_v2.mar&initial_workers=1"),
        manage("describe the default version", "GET", "/models/echo"),
        manage("describe version 2", "GET", "/models/echo/2.0"),
        manage("describe an unknown version", "GET", "/models/echo/9.9"),
        manage("describe an unknown model", "GET", "/models/unknown"),
        manage("describe all of an unknown model", "GET", "/models/unknown/all"),
        infer("infer the default version", f"{ECHO}", headers=[("reply-text", "default")]),
        infer("infer version 2", f"{ECHO}/2.0/context"),
        manage("set default", "PUT", "/models/echo/2.0/set-default"),
        manage("set default unknown version", "PUT", "/models/echo/9.9/set-default"),
        manage("set default unknown model", "PUT", "/models/unknown/1.0/set-default"),
        manage("describe the new default", "GET", "/models/echo"),
        manage("unregister the default", "DELETE", "/models/echo"),
        manage("unregister the default by version", "DELETE", "/models/echo/2.0"),
        manage("unregister unknown version", "DELETE", "/models/echo/9.9"),
        manage("unregister unknown model", "DELETE", "/models/unknown"),
        manage("unregister version 1", "DELETE", "/models/echo/1.0"),
        infer("infer what was unregistered", f"{ECHO}/1.0", b"x"),
        manage("scale to zero", "PUT", "/models/echo?min_worker=0&synchronous=true"),
        infer("infer after scaling to zero", ECHO, b"x"),
        infer("ping after scaling to zero", "/ping", method="GET"),
        manage("unregister the last version", "DELETE", "/models/echo"),
        manage("register from a config", "POST", "/models?url=echo_config.mar&response_timeout=9"),
        manage("describe from a config", "GET", "/models/echo_config"),
        manage(
            "register by json",
            "POST",
            "/models?url=ignored.mar",
            headers=(("Content-Type", JSON),),
            body=b'{"url": "echo.mar", "model_name": "by_json", "batch_size": "3", '
            b'"response_timeout": 9}',
        ),
        manage("describe by json", "GET", "/models/by_json"),
        manage(
            "register by broken json",
            "POST",
            "/models",
            headers=(("Content-Type", JSON),),
            body=b"{",
            deliberate="json-errors",
        ),
        manage(
            "register by json without url",
            "POST",
            "/models",
            headers=(("Content-Type", JSON),),
            body=b"{}",
        ),
        manage(
            "register under a name",
            "POST",
            "/models?url=echo.mar&model_name=named&batch_size=dd&max_batch_delay=0"
            "&response_timeout=7&startup_timeout=8&handler=echo:handle&runtime=python3",
        ),
        manage("describe the named", "GET", "/models/named"),
        manage(
            "register with odd numbers",
            "POST",
            "/models?url=echo.mar&model_name=odd&response_timeout=0&startup_timeout=-2"
            "&batch_size=0&max_batch_delay=-7&initial_workers=-5",
        ),
        manage("describe the odd", "GET", "/models/odd"),
        manage(
            "register by json with a number for a flag",
            "POST",
            "/models",
            headers=(("Content-Type", JSON),),
            body=b'{"url": "echo.mar", "model_name": "flag", "synchronous": 1}',
            deliberate="json-errors",
        ),
        manage("describe what a number for a flag registered", "GET", "/models/flag"),
        manage("register by a path", "POST", "/models?url=%2Fany%2Fecho.mar&model_name=by_path"),
        manage("describe by a path", "GET", "/models/by_path"),
        manage(
            "register in the background",
            "POST",
            "/models?url=echo.mar&model_name=later&synchronous=false",
        ),
        manage("list", "GET", "/models"),
        manage("list two", "GET", "/models?limit=2"),
        manage("list from 2", "GET", "/models?limit=2&next_page_token=2"),
        manage("list beyond", "GET", "/models?limit=2&next_page_token=9"),
        manage("list with odd numbers", "GET", "/models?limit=x&next_page_token=-3"),
        manage("set-default by GET", "GET", "/models/named/1.0/set-default"),
        manage("unregister a version", "DELETE", "/models/named/1.0"),
    ],
)

FORMS = Scenario(
    "archive forms",
    archives=("echo_tgz", "echo_dir"),
    cases=[
        manage("register tar.gz", "POST", "/models?url=echo_tgz.tar.gz&initial_workers=1"),
        infer("infer from tar.gz", "/predictions/echo_tgz/1.0/context"),
        manage("register a directory", "POST", "/models?url=echo_dir&initial_workers=1"),
        infer("infer from a directory", "/predictions/echo_dir/1.0/context"),
        manage("list archive forms", "GET", "/models"),
    ],
)

BROKEN_ARCHIVES = Scenario(
    "broken archives",
    archives=(
        *("no_manifest", "no_zip", "empty_file", "truncated", "manifest_no_json", "no_name"),
        *("bad_runtime", "slip", "echo"),
    ),
    cases=[
        manage(
            "register no_manifest", "POST", "/models?url=no_manifest.mar", comparison="load failure"
        ),
        manage("register no_zip", "POST", "/models?url=no_zip.mar", comparison="load failure"),
        manage(
            "register empty_file", "POST", "/models?url=empty_file.mar", comparison="load failure"
        ),
        manage(
            "register truncated", "POST", "/models?url=truncated.mar", comparison="load failure"
        ),
        manage(
            "register manifest_no_json",
            "POST",
            "/models?url=manifest_no_json.mar",
            comparison="load failure",
        ),
        manage("register no_name", "POST", "/models?url=no_name.mar", comparison="load failure"),
        manage("register no_name with a name", "POST", "/models?url=no_name.mar&model_name=named"),
        manage(
            "register bad_runtime", "POST", "/models?url=bad_runtime.mar", comparison="load failure"
        ),
        manage(
            "register slip",
            "POST",
            "/models?url=slip.mar",
            deliberate="hostile-archives",
            our_status=400,
        ),
        manage("list after broken archives", "GET", "/models"),
    ],
)

NO_MODEL_API = Scenario(
    "no model api",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1", "enable_model_api": "false"},
    args=("--disable-token-auth",),
    cases=[
        manage("register is disabled", "POST", "/models?url=echo.mar"),
        manage("unregister is disabled", "DELETE", "/models/echo"),
        manage("unregister a version is disabled", "DELETE", "/models/echo/1.0"),
        manage("list is not disabled", "GET", "/models"),
        manage("scale is not disabled", "PUT", "/models/echo?min_worker=1&synchronous=true"),
    ],
)


NO_ARCHIVE = "files-that-are-no-archives"
URLS = Scenario(
    "register urls",
    archives=("echo", "echo_dir"),
    elsewhere=(
        "echo_v2", "word_lengths", "replies", "echo_tgz", "echo", "no_zip", "no_name", "entry",
    ),
    config={"allowed_urls": "file://.*,http://127\\\\.0\\\\.0\\\\.1.*"},
    cases=[
        manage("a file", "POST", "/models?url=file://<home>/elsewhere/echo_v2.mar"),
        manage("describe a file", "GET", "/models/echo"),
        manage("a file that the store has", "POST", "/models?url=file://<home>/elsewhere/echo.mar"),
        manage("a file again", "POST", "/models?url=file://<home>/elsewhere/echo_v2.mar"),
        manage("unregister a file", "DELETE", "/models/echo"),
        manage("its copy went", "POST", "/models?url=echo_v2.mar"),
        manage("a file after it went", "POST", "/models?url=file://<home>/elsewhere/echo_v2.mar"),
        manage("no such file", "POST", "/models?url=file://<home>/elsewhere/none.mar",
               comparison="load failure"),
        manage("dots", "POST", "/models?url=file://<home>/elsewhere/../elsewhere/entry.mar"),
        manage("escaped dots", "POST", "/models?url=file://<home>/%252e%252e/entry.mar",
               deliberate="dots-in-urls", our_status=404),
        manage("a download", "POST", "/models?url=<files>/elsewhere/word_lengths.mar"),
        manage("describe a download", "GET", "/models/word_lengths"),
        manage("a download again", "POST", "/models?url=<files>/elsewhere/word_lengths.mar"),
        manage("unregister a download", "DELETE", "/models/word_lengths"),
        manage("a download after it went", "POST",
               "/models?url=<files>/elsewhere/word_lengths.mar"),
        manage("a download with a query", "POST",
               "/models?url=<files>/elsewhere/replies.mar%3Fsigned%3Dyes%26a%3Db"),
        manage("describe a download with a query", "GET", "/models/replies"),
        manage("a tar", "POST", "/models?url=<files>/elsewhere/echo_tgz.tar.gz"),
        manage("nothing to download", "POST", "/models?url=<files>/elsewhere/none.mar",
               comparison="load failure"),
        manage("a download that is no archive", "POST", "/models?url=<files>/elsewhere/no_zip.mar",
               comparison="load failure"),
        manage("its copy", "POST", "/models?url=no_zip.mar", deliberate=NO_ARCHIVE,
               our_status=404),
        manage("a file without a name", "POST", "/models?url=file://<home>/elsewhere/no_name.mar",
               comparison="load failure"),
        manage("a file that is no archive", "POST", "/models?url=file://<home>/config.properties",
               deliberate=NO_ARCHIVE, our_status=400),
        manage("its copy, too", "POST", "/models?url=config.properties", deliberate=NO_ARCHIVE,
               our_status=404),
        manage("no port", "POST", "/models?url=http://127.0.0.1:1/entry.mar",
               comparison="load failure"),
        manage("a url that is not allowed", "POST", "/models?url=http://localhost:1/entry.mar"),
        manage("another scheme that is not allowed", "POST",
               "/models?url=https://127.0.0.1:1/entry.mar"),
        manage("a scheme that is none", "POST", "/models?url=ftp://127.0.0.1/entry.mar"),
        manage("a path to a directory", "POST",
               "/models?url=<home>/store/echo_dir&model_name=in_place"),
        manage("describe in place", "GET", "/models/in_place"),
        manage("a directory of the store", "POST", "/models?url=echo_dir&model_name=by_name"),
        manage("list", "GET", "/models"),
    ],
)  # fmt: skip


SCENARIOS = [LOAD_FAILURES, MODELS, FORMS, BROKEN_ARCHIVES, NO_MODEL_API, URLS]
