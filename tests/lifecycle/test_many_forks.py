"""Many forks: at-fork callbacks run for each, random numbers differ, the master stays one thread."""
import os
import signal

import pytest

from harness import LEAKS_UNKNOWN, SANITIZED, Running, app_folder, sweep, until

APP = '''
import os, random
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
'''
CONF = '''
import os, random
def say(line):
    fd = os.open(os.environ["TEST_FORKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, (line + "\\n").encode())
    os.close(fd)
os.register_at_fork(before=lambda: say("before"), after_in_child=lambda: say("child"),
                    after_in_parent=lambda: say("parent"))
def post_worker_init(worker): say("random %r" % random.random())
def pre_fork(server, worker): say("threads %d" % len(os.listdir("/proc/self/task")))
'''
THREAD = '''
import threading, time
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
'''


FORKING_APP = APP.replace("    start_response(", """    child = os.fork()
    if child == 0:
        fd = os.open(os.environ["TEST_FORKS"], os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"application\\n")
        os._exit(0)
    os.waitpid(child, 0)
    start_response(""")


def forks(count, conf, threads, app=APP):
    """`count` workers one after another, by TTIN and by the death of another; the application is
    asked once for every two."""
    with app_folder(app, gunicorn_conf_py=conf) as folder:
        path = folder / "forks.txt"
        sanitizer = LEAKS_UNKNOWN if threads > 1 else {}
        with Running(["-w", "2", "app:app"], folder, {"TEST_FORKS": str(path), **sanitizer}) as server:
            server.ready()

            def said(word):
                return [line for line in path.read_text().splitlines() if line.split()[0] == word]
            until(lambda: len(said("random")) == 2, "two workers")
            made = 2
            while made < count:
                server.process.send_signal(signal.SIGTTIN)
                made += 1
                until(lambda: len(said("random")) == made, lambda: server.text[-2000:])
                server.process.send_signal(signal.SIGTTOU)
                until(lambda: len(server.workers()) == 2, lambda: server.text[-2000:])
                victim = int(server.get("/"))  # has answered: its place does not have to wait
                os.kill(victim, signal.SIGKILL)
                made += 1
                until(lambda: len(said("random")) == made, lambda: server.text[-2000:])
            forked = made + len(said("application"))
            for word in ("before", "child", "parent"):
                assert len(said(word)) == forked, word
            assert (len(said("application")) > 0) == (app is FORKING_APP)
            assert len(set(said("random"))) == made
            assert set(said("threads")) == {f"threads {threads}"}
            assert server.stop() == 0


@pytest.mark.parametrize("count", sweep([10, 50], quick=[10]))
def test_forks_run_the_callbacks_and_share_no_randomness(count):
    forks(min(count, 20) if SANITIZED else count, CONF, 1)


@pytest.mark.parametrize("count", sweep([6, 20], quick=[6]))
def test_forks_with_a_config_file_that_starts_a_thread(count):
    forks(count, CONF + THREAD, 2)


def test_forks_with_an_application_that_forks():
    forks(10, CONF, 1, FORKING_APP)


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="a sanitizer sees the same in twenty")
@pytest.mark.parametrize("conf, threads, app", [
    (CONF, 1, APP), (CONF + THREAD, 2, APP), (CONF, 1, FORKING_APP)],
    ids=["plain", "a config file that starts a thread", "an application that forks"])
def test_a_thousand_forks(conf, threads, app):
    forks(1000, conf, threads, app)
