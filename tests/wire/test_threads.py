"""One gthread worker whose gateway is written in C: the cases of test_connection.py without Python.

It runs in every build; under ThreadSanitizer it is what looks at the pool, the loop and the tracer,
because an interpreter that is not built with it would hide or invent races (see conftest.py).
"""
import concurrent.futures
import os
import pathlib

import pytest

import test_connection
from harness import CTSERVE, Running
from test_connection import Replies, connect, get, post

BUILD = pathlib.Path(os.environ.get("CTSERVE_BUILD", pathlib.Path(CTSERVE).parent))
WORKER = BUILD / "tests" / "unit" / "server" / "worker_hello"
SETTINGS = ["worker_class=gthread", "workers=1", "keepalive=5"]
#: What an option of ctserve is called as a setting.
OPTIONS = {"--keep-alive": "keepalive", "--worker-connections": "worker_connections",
           "--max-requests": "max_requests", "--threads": "threads"}
BORROWED = [
    "test_sixteen_pipelined_requests_in_one_segment_are_answered_in_order",
    "test_sixteen_pipelined_requests_one_byte_per_segment_are_answered_in_order",
    "test_two_thousand_pipelined_requests_are_all_answered",
    "test_a_request_in_two_segments_is_served_like_one",
    "test_a_valid_request_and_then_garbage_give_200_400_and_the_end",
    "test_connection_close_is_obeyed_and_a_request_behind_it_is_not_served",
    "test_clients_that_reset_in_the_middle_of_anything_harm_nobody",
    "test_an_end_of_stream_inside_the_head_closes_silently",
    "test_a_body_of_any_size_arrives_whole_and_the_connection_goes_on",
    "test_a_chunked_body_arrives_whole_and_the_next_request_is_served",
    "test_a_body_that_ends_early_is_never_answered_with_2xx",
    "test_a_bad_chunk_gets_one_400_and_nothing_after_it_is_parsed",
    "test_expect_is_answered_with_100_only_when_the_application_reads",
    "test_a_huge_body_nobody_reads_is_answered_and_closed",
    "test_slow_clients_occupy_no_thread",
    "test_a_client_that_reads_slowly_gets_everything",
    "test_an_idle_connection_is_closed_after_keepalive",
    "test_told_to_stop_it_answers_what_runs_and_what_waits_in_the_backlog",
]
for name in BORROWED:
    globals()[name] = getattr(test_connection, name)


def settings_of(arguments):
    given = list(arguments)
    return [f"{OPTIONS[option]}={value}" for option, value in zip(given[::2], given[1::2])]


def start(threads, *arguments):
    return Running(["0", *SETTINGS, f"threads={threads}", *settings_of(arguments)], BUILD, bind=False,
                   command=[str(WORKER)])


def assert_clean_end(running):
    """ThreadSanitizer's exit code is another one, and it says what it saw."""
    assert running.stop() == 0, running.text
    assert "Sanitizer" not in running.text, running.text


@pytest.fixture(scope="module", params=[4, 1], ids=["4-threads", "1-thread"])
def server(request):
    with start(request.param) as running:
        yield running.ready()
        assert_clean_end(running)


@pytest.fixture
def own_server():
    started = []

    def begin(*arguments):
        running = start(4, *arguments)
        started.append(running)
        return running.ready()

    yield begin
    for running in started:
        assert_clean_end(running)


def test_many_clients_at_once_with_views_that_wait_each_get_their_own_answer(own_server):
    server = own_server()

    def client(number):
        with connect(server) as connection:
            replies = Replies(connection)
            for turn in range(20):
                body = b"%d-%d" % (number, turn)
                connection.sendall(post(body) + get(f"/wait?{turn % 4}") + get("/stream"))
                assert replies.next()[2] == body
                assert [replies.next()[0] for _ in range(2)] == [200, 200]
        return number

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        assert list(pool.map(client, range(48))) == list(range(48))
