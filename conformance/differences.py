"""Every place where Torchkeep answers otherwise than TorchServe 0.12 on purpose.

Cases name an entry by its id. What no case can show is shown by a test. `docs/differences.md` is
made from this list: `make conformance-docs`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One difference that a user would thank us for."""

    id: str
    theirs: str
    ours: str
    why: str
    tests: tuple[str, ...] = ()  # file::test, where not only cases show it


@dataclass(frozen=True)
class Group:
    """Differences about one thing."""

    title: str
    differences: tuple[Difference, ...]


WAYS = "tests/system/test_ways_of_running.py::"

GROUPS = (
    Group(
        "Requests and connections",
        (
            Difference(
                "unknown-methods",
                "An HTTP method that nobody ever registered runs inference",
                "400",
                "A client that misspells a method is told so; scanners cost no prediction",
            ),
            Difference(
                "ambiguous-requests",
                "Requests that a proxy in front might read otherwise are answered: a length and"
                " chunks, a negative length, folded headers, bare line feeds, bytes beyond ASCII in"
                " the path, another protocol's name",
                "400",
                "Nobody can smuggle a second request past a proxy inside a first one",
            ),
            Difference(
                "roomy-heads",
                "A path of more than 4 KiB, or headers of more than 8, are refused",
                "The limit is 64 KiB for both together",
                "Long tokens and tracing headers get through",
            ),
            Difference(
                "whole-urls",
                "A request line with a whole URL (`GET http://host/ping`) is not found: 404",
                "Its path counts, as HTTP demands",
                "Clients that speak as if to a proxy are answered",
            ),
            Difference(
                "no-path",
                "`OPTIONS *`, `CONNECT` and paths without a slash show an error of its own:"
                " 500 `ArrayIndexOutOfBoundsException`",
                "400 or 405 with TorchServe's text for it",
                "A mistake of a client does not look like one of the server, and rings no alarm",
            ),
            Difference(
                "expect-and-close",
                "After `Expect: 100-continue` with too long a body (413), or another expectation"
                " with a body (417), the connection stays open",
                "The answer is the same, and the connection closes",
                "Nobody can know whether the body will come: bytes of it would be read as the next"
                " request",
            ),
            Difference(
                "models-of-open-inference",
                "With the Open Inference Protocol on, `/v2/models/NAME` and `/v2/models/NAME/ready`"
                " are not found, `/v2/health/ready` is true whatever the models do, and a process"
                " in front answers KServe's `GET /` and `GET /v1/models/NAME`",
                "All of them are answered on the inference address; ready means that a worker has"
                " loaded the model (of every model, for the server), else it is 503 and `false`",
                "KServe's clients need nothing in front, and a probe says when a pod can serve",
                tests=(
                    "tests/frontend/test_inference.py::"
                    "test_a_model_is_ready_once_a_worker_has_loaded_it",
                ),
            ),
            Difference(
                "predict-on-a-shared-port",
                "With one port for inference and management, `POST /models/predict` is taken for"
                " the legacy way to predict, and a model named `predict` cannot be managed",
                "Paths under `/models` are the management API's",
                "Every model can be managed, whatever its name",
                tests=(
                    "tests/frontend/test_app.py::"
                    "test_whose_paths_are_under_models_on_the_shared_port",
                ),
            ),
            Difference(
                "json-errors",
                "A JSON body that cannot be read is answered in the words of Java's JSON library:"
                " `java.io.EOFException: End of input at ...`",
                "The same status and type; the message says what is wrong with the body",
                "The message is about the request, not about Java",
            ),
            Difference(
                "form-errors",
                "A form that cannot be read is answered in the words of Java's HTTP library:"
                " `java.lang.NullPointerException: Cannot invoke ...`",
                "The same status and type; the message says what is wrong with the form",
                "The message is about the request, not about Java",
                tests=("tests/frontend/test_parsing.py::test_part_without_a_name",),
            ),
            Difference(
                "orderly-ends",
                "Behind an answer of status 400 or more the connection is reset",
                "It is closed in order",
                "A reset may cost a slow client the end of the answer",
                tests=("tests/frontend/test_http_protocol.py::test_close_from_400_on",),
            ),
        ),
    ),
    Group(
        "Waiting requests",
        (
            Difference(
                "no-request-hangs",
                "Unregistering a model, or scaling it to zero, leaves the clients of its queued"
                " requests without an answer",
                "They get 503",
                "No client waits for ever",
                tests=(
                    "tests/frontend/test_served_model.py::"
                    "test_closing_answers_queued_and_stuck_requests",
                ),
            ),
            Difference(
                "drained-workers",
                "Scaling down ends a worker in the middle of a batch: 500 `Worker died.`",
                "The batch in flight finishes first",
                "Scaling costs no request",
                tests=(
                    "tests/frontend/test_served_model.py::"
                    "test_scaling_down_lets_the_batch_in_flight_finish",
                ),
            ),
            Difference(
                "clients-that-left",
                "A queued request whose client has left is run",
                "It is not",
                "Workers compute for those who wait",
                tests=(
                    "tests/system/test_streams.py::"
                    "test_a_queued_request_whose_client_left_never_reaches_a_worker",
                ),
            ),
            Difference(
                "client-timeout",
                "With `clientTimeoutInMills`, whoever waited that long gets no answer at all",
                "503 at that moment; a stream that has begun breaks off",
                "The client knows at once, and can go elsewhere",
                tests=(
                    "tests/system/test_client_timeout.py::"
                    "test_whoever_waited_long_enough_gets_503_and_the_worker_serves_on",
                ),
            ),
            Difference(
                "informational-status",
                "A handler's status 1XX leaves the client waiting for another answer",
                "500 `Worker died.`",
                "No client waits for ever",
            ),
        ),
    ),
    Group(
        "Streams",
        (
            Difference(
                "codes-in-streams",
                "A piece of a stream with a code other than 200 costs the worker, and the next"
                " request fails",
                "Its own request gets the error; the worker lives, and later pieces for that"
                " request are dropped",
                "One request's error is not another's, and no model is loaded again for it",
            ),
            Difference(
                "pieces-of-errors",
                "A stream with a status of 400 or more loses its pieces",
                "They arrive; then the connection closes",
                "The client reads what went wrong",
            ),
            Difference(
                "header-injection",
                "A response header with a line break, sent with a piece, becomes two headers",
                "503",
                "What a client sent cannot become a header of the answer",
            ),
            Difference(
                "pieces-for-nobody",
                "A piece for a request that is not in the batch ends the worker",
                "The handler gets a `ValueError`, the client 503",
                "The log says what is wrong with the handler, and the worker lives",
            ),
            Difference(
                "last-piece-first",
                "A reply with `ts_stream_next` and no piece before it leaves the client hanging",
                "It is a complete response",
                "No client waits for ever",
            ),
            Difference(
                "slow-readers",
                "A client that does not read its stream costs memory without limit",
                "Its connection is cut when 64 MiB wait for it, or when it reads nothing for 60 s"
                " while pieces wait",
                "One client cannot take the server's memory",
                tests=(
                    "tests/system/test_streams.py::"
                    "test_a_client_that_does_not_read_is_cut_from_its_batch",
                ),
            ),
        ),
    ),
    Group(
        "Ways of running",
        (
            Difference(
                "requests-that-fail-alone",
                "What a handler raises fails its whole batch",
                "`context.fail(index, error)` answers one request with an error, the others as"
                " ever",
                "One bad input costs its neighbours nothing",
                tests=(WAYS + "test_a_handler_fails_some_requests_of_a_batch",),
            ),
            Difference(
                "handlers-end-sequences",
                "A handler may end sequences (`ts_request_sequence_end` of an answer) only with"
                " `continuousBatching`, and what waits of one is never answered",
                "It always may, and what waits opens the sequence anew",
                "Room for other sequences without an idle time, and no client waits for ever",
                tests=(
                    "tests/frontend/test_sequences.py::"
                    "test_an_answer_ends_the_sequences_that_it_names",
                ),
            ),
            Difference(
                "sequences-of-workers-that-died",
                "A sequence stays with its worker when that has died, or is lost when it is scaled"
                " away",
                "It is over, and what waits of it opens it anew with a worker that serves",
                "What the handler knew is gone in either case, and nobody waits",
                tests=(
                    "tests/frontend/test_sequences.py::"
                    "test_the_sequences_of_a_worker_that_is_gone_go_on_with_another",
                ),
            ),
            Difference(
                "sequence-keys-in-workers",
                "`ts_header_key_sequence_*` are not told to workers: `context.get_sequence_id`"
                " finds nothing",
                "They are, unless the environment names the keys itself",
                "One place to configure",
                tests=(WAYS + "test_sequences_have_a_worker_each_and_wait_their_turn",),
            ),
            Difference(
                "one-step-streams",
                "With continuous batching, an answer that is finished in its first step leaves the"
                " client hanging",
                "It is a complete response",
                "The client gets its answer",
            ),
            Difference(
                "criteria-that-raise",
                "A stopping criterion that raises ends the worker: 500",
                "503, as for a handler that raises",
                "The model stays loaded",
            ),
            Difference(
                "async-neighbours",
                "What one request to an async handler fails of, all that are under way fail of",
                "It alone",
                "Nobody pays for another client's input",
                tests=(WAYS + "test_coroutines_run_side_by_side_and_fail_alone",),
            ),
            Difference(
                "async-plain-functions",
                "With `asyncCommunication`, a `handle` that is no coroutine answers 503",
                "It is called all the same, and holds up the others meanwhile",
                "A handler may change one step at a time",
            ),
            Difference(
                "async-batches",
                "With `asyncCommunication` and a batch size above 1, requests are never answered",
                "The coroutine gets the rows of a batch",
                "Async handlers may batch",
                tests=(WAYS + "test_coroutines_may_have_batches",),
            ),
            Difference(
                "async-deaths",
                "When an async worker dies, its requests are never answered, nor are later ones",
                "500 or 507 `Worker died.`, and a new worker serves",
                "No client waits for ever",
                tests=(
                    WAYS
                    + "test_coroutines_under_way_are_answered_when_their_worker_dies_or_leaves",
                ),
            ),
            Difference(
                "async-clients-that-left",
                "A coroutine whose client has left goes on",
                "It is cancelled",
                "Nothing is computed for nobody",
                tests=(WAYS + "test_a_client_that_leaves_cancels_its_coroutine",),
            ),
            Difference(
                "micro-batch-errors",
                "What a step of `MicroBatching` raises leaves the client without an answer until"
                " `responseTimeout` ends the worker",
                "503 at once, and the worker lives",
                "A bad input costs one batch",
                tests=(
                    "tests/backend/ts/test_micro_batching.py::"
                    "test_what_a_step_raises_is_raised_and_the_next_batch_is_answered",
                ),
            ),
        ),
    ),
    Group(
        "Models and workers",
        (
            Difference(
                "reasons-of-failed-loads",
                "A failed load says `Failed to start workers for model ...`",
                "The error goes on with the last line of the handler's traceback; all of it is in"
                " the log",
                "The one who registers sees why at once",
                tests=(
                    "tests/frontend/test_management.py::"
                    "test_failed_register_says_what_the_handler_said_last",
                ),
            ),
            Difference(
                "reasons-in-descriptions",
                "The description of a model whose worker crashed says `UNLOADING`",
                "It has a member more, `notReady`: why there is no worker",
                "One need not search the log",
                tests=(
                    "tests/system/test_sandbox.py::"
                    "test_a_model_that_asks_for_network_is_refused_where_the_server_does_not",
                ),
            ),
            Difference(
                "refused-scaling-changes-nothing",
                "Scaling with a negative `max_worker` is refused with 500, after all workers were"
                " ended",
                "It is refused in the same way, and all workers stay",
                "A mistyped command costs no service",
            ),
            Difference(
                "failed-loads-are-gone",
                "After some failed loads the model stays registered, without workers: it must be"
                " unregistered before it can be registered again (409)",
                "A model that failed to load is gone: register the corrected archive again",
                "A failed deployment can simply be repeated",
            ),
            Difference(
                "empty-configs",
                "An archive whose `model-config.yaml` holds comments only, or no mapping, cannot be"
                " registered: 500 with an error of Java's",
                "It counts as absent; where it holds anything, the log says so",
                "A template with everything commented out works",
            ),
            Difference(
                "endless-sequences",
                "A model with `sequenceBatching` and no `sequenceMaxIdleMSec` is registered, and"
                " answers each request with 500",
                "It cannot be registered: 400, and the message names what is missing",
                "One sees the mistake before any client does",
                tests=(WAYS + "test_sequences_without_an_end_are_refused",),
            ),
            Difference(
                "failed-packages-are-gone",
                "A model whose `requirements.txt` could not be installed stays registered",
                "It is gone too; what pip said is in the log",
                "A failed deployment can simply be repeated",
                tests=(
                    "tests/system/test_dependencies.py::"
                    "test_a_failed_installation_fails_the_registration_and_leaves_nothing",
                ),
            ),
            Difference(
                "threads-fit-the-cores",
                "Each worker of a model computes with as many threads as there are cores",
                "All workers together use no more threads than cores: [workers.md](workers.md)",
                "Several workers are faster than one, not slower",
                tests=(
                    "tests/frontend/test_thread_plan.py::"
                    "test_threads_of_all_workers_never_exceed_the_cores",
                ),
            ),
            Difference(
                "shared-weights",
                "Each worker holds a copy of the weights",
                "Workers of Torchkeep's own handlers share one copy",
                "More workers fit into the memory",
                tests=(
                    "tests/backend/test_stages.py::"
                    "test_class_that_keeps_the_loading_of_ours_can_share",
                ),
            ),
            Difference(
                "forked-workers",
                "A worker is a new Python process, seconds to start",
                "A fork of a process that has imported torch already",
                "Scaling up and recovery from a crash take a fraction of the time",
                tests=(
                    "tests/backend/test_stages.py::test_importing_torch_anywhere_asks_for_torch",
                ),
            ),
            Difference(
                "sandboxed-handlers",
                "A handler may read every file of the server's user, and end its processes",
                "It reaches no key, no other model's directory and no other process:"
                " [sandbox.md](sandbox.md); `sandbox=off` is as before",
                "One model's code, or a flaw in it, is no danger to others",
                tests=(
                    "tests/system/test_sandbox.py::"
                    "test_a_hostile_handler_reaches_what_the_matrix_says",
                ),
            ),
            Difference(
                "users-of-workers",
                "Where the server is root, so are its workers",
                "Each has a user of its own, whose `HOME` is a scratch directory",
                "A handler is not root",
                tests=(
                    "tests/frontend/test_confined_workers.py::"
                    "test_a_confined_worker_serves_and_leaves_nothing",
                ),
            ),
            Difference(
                "no-captum",
                "Image handlers do not load without captum",
                "They do; `/explanations` then answers 503 and says what to install",
                "Who explains nothing need not install it",
                tests=(
                    "tests/backend/ts/test_image_classifier.py::"
                    "test_without_captum_an_explanation_says_what_to_install",
                ),
            ),
            Difference(
                "whole-batches",
                "A batch of two requests fails with `text_classifier` and `densenet_handler`, and"
                " one of pictures of two sizes with `object_detector`: 503 for each",
                "Every request of a batch is answered",
                "Batches are for throughput with these handlers, too",
                tests=(
                    "tests/backend/ts/test_default_handlers.py::"
                    "test_pictures_of_two_sizes_are_one_batch",
                ),
            ),
            Difference(
                "more-weights",
                "A state dict as `.safetensors`, and a `.pt2` alone, do not load: 500",
                "They are loaded: `.safetensors` with a model file; a package of AOTInductor and a"
                " program of `torch.export` by themselves",
                "Weights need run no code when they are read, and torch's own newer forms serve",
                tests=(
                    "tests/system/test_weights.py::"
                    "test_safetensors_and_exported_programs_answer_as_the_state_dict",
                    "tests/system/test_weights.py::"
                    "test_a_package_of_aotinductor_answers_as_the_state_dict",
                ),
            ),
            Difference(
                "rows-of-tensors",
                "A handler that answers rows of one tensor sends each client the rows of all"
                " others of the batch, too: torch saves the memory behind a row",
                "Each client gets its own row",
                "What others are answered is nobody's business",
                tests=(
                    "tests/backend/test_service.py::"
                    "test_a_row_of_a_tensor_takes_no_other_row_with_it",
                ),
            ),
            Difference(
                "one-word-explanations",
                "`text_classifier` cannot explain a text of one word: 503",
                "It is explained as any other",
                "A short text is no reason to fail",
            ),
            Difference(
                "no-java",
                "Needs Java",
                "Does not",
                "One thing less to install and to patch",
                tests=(
                    "tests/runtime/test_start_stop.py::"
                    "test_the_foreground_serves_here_and_cleans_up",
                ),
            ),
        ),
    ),
    Group(
        "Archives and URLs",
        (
            Difference(
                "hostile-archives",
                "An archive may hold links, or name files outside itself: 500 without a reason, and"
                " what was unpacked stays",
                "400 and the reason, with nothing left on disk",
                "An archive cannot write where it likes",
                tests=("tests/modelstore/test_store.py::test_a_bad_archive_leaves_nothing_behind",),
            ),
            Difference(
                "unreachable-urls",
                "A register URL may lead wherever `allowed_urls` lets it",
                "Never to the key broker, link-local, multicast or metadata addresses, and with"
                " `sandbox=strict` not to this machine; looked at after resolving the name and at"
                " each redirect: 404",
                "The management API is no way to a cloud's credentials",
                tests=(
                    "tests/system/test_registration_urls.py::"
                    "test_brokers_and_metadata_services_are_never_reached",
                ),
            ),
            Difference(
                "passwords-in-urls",
                "`user:password@` in a register URL is left out of the request, and shown in"
                " descriptions",
                "400, and nothing is fetched",
                "One learns at once that the password is of no use, and it does not stay on show",
                tests=(
                    "tests/modelstore/test_download.py::"
                    "test_a_password_in_the_url_is_refused_and_not_logged",
                ),
            ),
            Difference(
                "files-that-are-no-archives",
                "A `file://` URL copies any file into the model store, where it stays; so does what"
                " a download brought",
                "Only one that begins like an archive (zip, gzip or sealed); otherwise 400 and"
                " nothing is copied",
                "The management API is no way to read the server's files",
                tests=(
                    "tests/modelstore/test_store.py::test_a_file_that_is_no_archive_is_not_copied",
                ),
            ),
            Difference(
                "refused-downloads-are-gone",
                "What was downloaded for a registration that then failed stays in the model store,"
                " and the next attempt gets 500 `Model file already exists ...`",
                "Nothing stays",
                "A failed deployment can simply be repeated",
                tests=(
                    "tests/modelstore/test_store.py::"
                    "test_a_refused_download_does_not_stay_in_the_store",
                ),
            ),
            Difference(
                "unpacked-in-var-tmp",
                "Archives are unpacked in /tmp where `TEMP` is unset",
                "In /var/tmp",
                "/tmp is often memory, and cleaned while a server runs",
                tests=(
                    "tests/modelstore/test_unpack_area.py::"
                    "test_what_a_crashed_server_left_is_swept",
                ),
            ),
            Difference(
                "words-of-refusals",
                "Some refusals speak of Java, or say no more than `Failed to save model`",
                "Status and type are the same; what TorchServe says is followed by what was wrong"
                " and what was expected",
                "Whoever made the mistake can mend it",
                tests=(
                    "tests/system/test_bad_input.py::test_requests",
                    "tests/system/test_bad_input.py::test_archives",
                ),
            ),
            Difference(
                "almost-json",
                "JSON that is not quite JSON, such as single quotes, registers a model",
                "500 `JsonSyntaxException`, as for all other broken JSON",
                "What is accepted does not depend on the mistake",
                tests=("tests/system/test_bad_input.py::test_requests",),
            ),
            Difference(
                "urls-without-a-file",
                "A register URL that names no file: 500 `Model file already exists`",
                "400 or 404, and the message says so",
                "The message is about the URL",
                tests=("tests/system/test_bad_input.py::test_requests",),
            ),
            Difference(
                "handlers-outside",
                "`handler` in a registration may name a file outside of the archive, which is run",
                "400",
                "Whoever registers cannot run other files of the machine",
                tests=("tests/system/test_bad_input.py::test_requests",),
            ),
            Difference(
                "unprintable-names",
                "A model's name with control characters is taken, and breaks lines of the log",
                "400",
                "Nobody forges lines of a log",
                tests=("tests/system/test_bad_input.py::test_requests",),
            ),
            Difference(
                "empty-manifests",
                "A manifest of `null`, an empty one or one whose `model` is `null`: 500",
                "400, as for other broken manifests",
                "The fault is the archive's, and no alarm rings for the server",
                tests=("tests/system/test_bad_input.py::test_archives",),
            ),
            Difference(
                "dots-in-urls",
                "`..` in a register URL is found as it is written",
                "Behind percent signs, too",
                "`allowed_urls` holds whatever the spelling",
                tests=("tests/system/test_cves.py::test_cve_2024_35198_allowed_urls_by_two_dots",),
            ),
            Difference(
                "s3-keys",
                "`s3_sse_kms=true` without keys in the environment is a `NullPointerException`"
                " (500)",
                "500, and the message names what is missing",
                "One sees what to set",
                tests=("tests/modelstore/test_s3_signing.py::test_a_missing_key_is_named",),
            ),
        ),
    ),
    Group(
        "Keys",
        (
            Difference(
                "models-named-token",
                "`/token` anywhere in a request, its headers included, renews a key, so that"
                " `/models/tokenizer` is refused",
                "Only a path that begins with `/token` does",
                "A model may be named tokenizer",
                tests=(
                    "tests/frontend/test_authorization.py::test_a_model_may_be_named_tokenizer",
                ),
            ),
            Difference(
                "keys-of-a-shared-port",
                "With one port for inference and management, no key opens management",
                "The management key opens the whole port, the inference key inference",
                "One port and keys can be had together",
                tests=(
                    "tests/frontend/test_authorization.py::"
                    "test_a_shared_port_can_be_managed_with_the_management_key",
                ),
            ),
            Difference(
                "key-file",
                "`key_file.json` is written in place, and stays when the server ends by a signal;"
                " keys have 8 characters",
                "It is replaced in one step, and goes with its server; keys have 24 characters",
                "No reader finds half a file, no key outlives its server, none can be guessed",
                tests=("tests/system/test_keys.py::test_keys_from_start_to_stop",),
            ),
            Difference(
                "renewals-that-cannot-be-written",
                "A renewed key counts although it could not be written to `key_file.json`",
                "The renewal fails, and the old key goes on",
                "A full disk locks nobody out",
                tests=(
                    "tests/frontend/test_api_keys.py::"
                    "test_a_renewal_that_cannot_be_written_leaves_the_old_key",
                ),
            ),
        ),
    ),
    Group(
        "Logs and metrics",
        (
            Difference(
                "no-queries-in-logs",
                "Access lines hold the query string",
                "They do not",
                "A query may hold what is meant for the server only: keys, names, inputs",
                tests=(
                    "tests/system/test_logs.py::test_no_log_holds_a_payload_a_query_or_a_header",
                ),
            ),
            Difference(
                "lines-once",
                "Metrics are also in `ts_log.log` and on stdout, where all that models print is,"
                " too; lines of the server are twice in `ts_log.log`",
                "Metrics are in their own files only, what models print on their stdout in"
                " `model_log.log` and `ts_log.log`; a logging configuration brings both to stdout:"
                " [logging.md](logging.md)",
                "A quarter of the lines, and each is where one looks for it",
                tests=("tests/system/test_logs.py::test_files_and_stdout_of_a_server",),
            ),
            Difference(
                "private-logs",
                "Log files may be read by everybody",
                "By owner and group",
                "Handlers print what they like, inputs of clients included",
                tests=("tests/system/test_logs.py::test_files_and_stdout_of_a_server",),
            ),
            Difference(
                "second-file-of-a-day",
                "A second log file of a day, rolled at 100 MB, replaces the first",
                "It gets a number: [logging.md](logging.md)",
                "No line of the day is lost",
                tests=(
                    "tests/runtime/test_log_files.py::"
                    "test_the_second_old_file_of_a_day_does_not_replace_the_first",
                ),
            ),
            Difference(
                "log-config",
                "`--log-config` takes a log4j2 file",
                "A Python logging configuration (yaml); a log4j2 file is named in a warning",
                "Any handler and formatter of Python's, and no Java",
                tests=(
                    "tests/system/test_logs.py::test_a_python_logging_configuration_of_a_server",
                    "tests/system/test_logs.py::test_a_log4j2_file_is_said_to_be_javas",
                ),
            ),
            Difference(
                "system-metrics",
                "A script of TorchServe's reads the machine every minute",
                "The server reads the same figures itself, with those of no GPU; a script of the"
                " user's own (`system_metrics_cmd`) is run as ever, but not beside secrets",
                "No process is started every minute, and psutil is not needed",
                tests=(
                    "tests/system/test_logs.py::test_a_script_of_torchserves_is_told_to_be_in_vain",
                ),
            ),
            Difference(
                "more-metrics",
                "`/metrics` holds what TorchServe counts",
                "In Prometheus mode also `torchkeep_queue_length`, `torchkeep_workers` and"
                " `torchkeep_workers_ready`",
                "Autoscalers and alarms need no management API",
            ),
        ),
    ),
    Group(
        "Configuration",
        (
            Difference(
                "numbers-that-are-none",
                "Some keys whose value is no number, `job_queue_size=abc` for one, fail at their"
                " first use, which may be the first registration",
                "The start fails, with file, line, key and what was expected",
                "A slip in a configuration shows before anybody depends on it",
                tests=("tests/runtime/test_config.py::test_the_complaint_in_full",),
            ),
            Difference(
                "modern-tls",
                "`https` speaks TLS 1.2 only, with two RSA cipher suites, one of them CBC",
                "TLS 1.2 and 1.3, RSA and EC keys, authenticated encryption only:"
                " [configuration.md](configuration.md)",
                "What is recorded today stays secret when the key is stolen",
                tests=(
                    "tests/runtime/test_tls.py::"
                    "test_only_authenticated_encryption_with_forward_secrecy_is_offered",
                ),
            ),
            Difference(
                "https-without-files",
                "`https` without keystore and PEM files does not start on Java 17",
                "It makes a certificate for itself, and warns",
                "One can try it",
                tests=(
                    "tests/roof/test_listener_tls.py::"
                    "test_https_without_any_key_makes_its_own_and_says_so",
                ),
            ),
            Difference(
                "java-keystores",
                "Keystores of type JKS",
                "Refused, with the command that converts one to PKCS12",
                "No Java is needed to read them",
                tests=(
                    "tests/runtime/test_tls_files.py::"
                    "test_what_only_java_reads_is_refused_with_the_command_that_converts_it",
                ),
            ),
            Difference(
                "debug",
                "`debug=true` starts no worker, and expects one that listens",
                "Workers as ever, without time limits",
                "One can step through a handler",
                tests=(
                    "tests/frontend/test_registry.py::test_debug_lifts_every_time_limit_of_a_model",
                ),
            ),
            Difference(
                "plugins",
                "Plugins are jars, and one with the path of a built-in route takes its place",
                "Plugins are written in Python: [plugins.md](plugins.md). Only `/ping` can be"
                " replaced, by an endpoint that says so; jars are named in a warning",
                "A plugin is a file of a few lines, and cannot take predictions over unseen",
                tests=(
                    "tests/system/test_plugins.py::"
                    "test_endpoints_of_plugins_beside_the_servers_own",
                ),
            ),
        ),
    ),
    Group(
        "Archivers and the package ts",
        (
            Difference(
                "equal-archives",
                "The archivers date the manifest by the clock, so that no two archives are equal",
                "Equal parts give equal bytes: `createdOn` is 01/01/1980, or the date of"
                " `SOURCE_DATE_EPOCH`",
                "An archive can be checked by packing it again",
                tests=("tests/modelstore/test_archiver.py::test_equal_parts_give_equal_bytes",),
            ),
            Difference(
                "archiver-messages",
                "What cannot be packed ends the archivers by a Python traceback, mostly",
                "One message that starts with `ERROR - `, and the same exit code",
                "The reason is the first line that one reads",
                tests=("tests/modelstore/test_archiver.py::test_a_missing_file",),
            ),
            Difference(
                "launcher-of-a-server-that-ends",
                "`ts.launcher.start` returns when the server has ended instead of starting",
                "RuntimeError with the server's last words",
                "A test fails where it went wrong",
                tests=(
                    "tests/backend/ts/test_launcher.py::"
                    "test_a_server_that_cannot_start_is_an_error_with_its_words",
                ),
            ),
        ),
    ),
)

DIFFERENCES = tuple(difference for group in GROUPS for difference in group.differences)
