"""The shortest way through the whole house, run on every Python found."""
import os
import signal

from harness import Running, app_folder, until

APP = '''
import os, sys
def app(environ, start_response):
    body = f"{os.getpid()} {sys.version_info[0]}.{sys.version_info[1]}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''
CONF = '''
def post_fork(server, worker):
    worker.log.info("hook post_fork %s", worker.age)
def child_exit(server, worker):
    server.log.info("hook child_exit %s", worker.age)
'''


def test_four_workers_serve_say_their_hooks_survive_a_kill_and_leave_with_0():
    with app_folder(APP, gunicorn_conf_py=CONF) as folder, \
            Running(["app:app", "--workers", "4", "--trace-api", "127.0.0.1:0"], folder) as server:
        server.ready()
        server.line("hook post_fork", count=4)
        until(lambda: len(server.workers()) == 4, lambda: f"four workers, not {server.workers()}")
        pid = int(server.get().split()[0])
        assert pid in server.workers()
        os.kill(pid, signal.SIGKILL)
        server.line("hook child_exit")
        server.line("hook post_fork", count=5)
        until(lambda: len(server.workers()) == 4 and pid not in server.workers(), "a replacement")
        assert server.get()
        until(lambda: any(w["pid"] == pid for w in server.api("status")["workers"])
              or server.api("traces?limit=5"), "traces")
        assert server.stop() == 0


def test_gthread_serves_with_threads():
    with app_folder(APP) as folder, Running(["app:app", "--threads", "4"], folder) as server:
        server.ready()
        assert server.get()
        assert server.stop() == 0
