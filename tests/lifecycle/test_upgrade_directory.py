"""USR2 with a relative --chdir: the second program starts where the first one started."""
import os
import pathlib
import signal
import textwrap

from harness import Running, app_folder, is_gone, until

APP = textwrap.dedent('''
    import os

    def app(environ, start_response):
        body = b"%d %s %s" % (os.getppid(), os.fsencode(os.getcwd()),
                              os.environb.get(b"GUNICORN_FD", b"none"))
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
''')


def test_a_second_program_finds_the_same_relative_directory_and_takes_over():
    with app_folder("", conf_py="") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "shop.py").write_text(APP)
        arguments = ["--no-tracing", "--chdir", "sub", "-p", str(folder / "pid"), "shop:app"]
        with Running(arguments, folder) as server:
            server.ready()
            os.kill(server.process.pid, signal.SIGUSR2)
            until((folder / "pid.2").exists, lambda: server.text)
            second = int((folder / "pid.2").read_text())
            try:
                server.line("Booting worker", count=2)
                os.kill(server.process.pid, signal.SIGTERM)
                assert server.process.wait(60) == 0
                until(lambda: (folder / "pid").exists() and int((folder / "pid").read_text()) == second,
                      lambda: server.text)
                answer = server.get().split()
                assert int(answer[0]) == second
                assert pathlib.Path(os.fsdecode(answer[1])) == (folder / "sub").resolve()
                assert answer[2] == b"none"
                server.line("Master has been promoted")
            finally:
                os.kill(second, signal.SIGTERM)
            until(lambda: is_gone(second), "the second is gone")
