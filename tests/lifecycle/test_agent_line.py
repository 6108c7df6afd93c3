"""The master and its agent: started, restarted, told when to stop; and the master's spans."""
import os
import pathlib
import signal
import socket

from harness import SANITIZED, Running, app_folder, is_gone, state_of, until

APP = '''
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
'''


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def api():
    return ["--trace-api", f"127.0.0.1:{free_port()}"]


def span_names(server):
    found = []
    for trace in server.api("traces")["traces"]:
        for span in server.api("traces/" + trace["trace_id"])["spans"]:
            found.append(span["name"])
    return found


def test_the_master_tells_about_boot_config_forks_and_readiness():
    with app_folder(APP) as folder:
        with Running([*api(), "-w", "2", "app:app"], folder) as server:
            server.ready()
            server.line("Traces at:")
            until(lambda: {"ctserve.boot", "ctserve.config"} <= set(span_names(server))
                  and span_names(server).count("ctserve.fork") == 2
                  and span_names(server).count("ctserve.worker.ready") == 2,
                  lambda: str(span_names(server)))
            os.kill(server.workers()[0], signal.SIGKILL)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: {"ctserve.worker.exit", "ctserve.reload"} <= set(span_names(server)),
                  lambda: str(span_names(server)))
            assert server.stop() == 0


def test_an_agent_that_dies_is_started_again_and_told_everything():
    with app_folder(APP) as folder:
        with Running([*api(), "-w", "2", "app:app"], folder) as server:
            server.ready()
            server.line("Traces at:")
            for _ in range(3):
                first = until(server.agent, "an agent")
                os.kill(first, signal.SIGKILL)
                until(lambda: server.agent() not in (None, first), lambda: server.text)
                assert server.get("/") == b"ok\n"

            def knows_all():
                try:
                    status = server.api("status")
                except OSError:
                    return False
                pids = {one["pid"] for one in status["workers"] if one["state"] == "ready"}
                return pids == set(server.workers()) and status["totals"]["balances"]
            until(knows_all, lambda: server.text)
            assert server.stop() == 0


def test_nothing_runs_any_more_after_the_stop():
    with app_folder(APP) as folder:
        with Running([*api(), "-w", "2", "app:app"], folder) as server:
            server.ready()
            family = [server.process.pid, until(server.agent, "an agent"), *server.workers()]
            assert server.stop() == 0
            assert not [pid for pid in family if pathlib.Path(f"/proc/{pid}").exists()]


def test_a_collector_that_is_down_does_not_hold_the_exit():
    with app_folder(APP) as folder:
        endpoint = f"http://127.0.0.1:{free_port()}"
        with Running(["--trace-otlp-endpoint", endpoint, "--trace-otlp-protocol", "http/protobuf",
                      "--log-level", "debug", "app:app"], folder) as server:
            server.ready()
            agent = until(server.agent, "an agent")
            assert server.get("/") == b"ok\n"
            assert server.stop() == 0
            assert is_gone(agent)
            if not SANITIZED:   # it went by itself, in the second that it has
                assert "did not leave in time" not in server.text


def test_no_agent_without_tracing():
    with app_folder(APP) as folder:
        for arguments, environment in ((["--no-tracing"], {}), ([], {"OTEL_SDK_DISABLED": "true"})):
            with Running([*arguments, "app:app"], folder, environment) as server:
                server.ready()
                assert server.agent() is None
                assert server.stop() == 0


def test_a_stopped_agent_holds_nothing_up():
    with app_folder(APP) as folder:
        with Running(["-w", "1", "--log-level", "debug", "app:app"], folder) as server:
            server.ready()
            agent = until(server.agent, "an agent")
            os.kill(agent, signal.SIGSTOP)
            until(lambda: state_of(agent) == "T", "an agent that stands still")
            assert server.get("/") == b"ok\n"
            assert server.stop() == 0
            server.line("ctserve-agent did not leave in time: killed")
            assert is_gone(agent)
