"""Where the server listens: addresses, unix sockets, descriptors of others."""
import os
import pathlib
import socket
import stat
import subprocess

from harness import CTSERVE, Running, app_folder, until

APP = '''
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
'''


def ask(family, address):
    with socket.socket(family) as client:
        client.settimeout(20)
        client.connect(address)
        client.sendall(b"GET / HTTP/1.0\r\nHost: t\r\n\r\n")
        text = b""
        while piece := client.recv(4096):
            text += piece
        return text


def test_several_addresses_are_served_at_once():
    with app_folder(APP) as folder:
        path = folder / "s.sock"
        arguments = ["--no-tracing", "-b", "127.0.0.1:0", "-b", "[::1]:0", "-b", f"unix:{path}", "app:app"]
        with Running(arguments, folder) as server:
            line = server.line(r"Listening at: (\S+)")[1].split(",")
            assert len(line) == 3
            server.line("Booting worker")
            assert b"200 OK" in ask(socket.AF_INET, ("127.0.0.1", int(line[0].rsplit(":", 1)[1])))
            assert b"200 OK" in ask(socket.AF_INET6, ("::1", int(line[1].rsplit(":", 1)[1])))
            assert b"200 OK" in ask(socket.AF_UNIX, str(path))
            assert server.stop() == 0
        assert not path.exists()


def test_the_umask_decides_about_the_unix_socket():
    with app_folder(APP) as folder:
        path = folder / "s.sock"
        with Running(["--no-tracing", "-m", "0o077", "-b", f"unix:{path}", "app:app"], folder) as server:
            server.line("Listening at: unix:")
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            assert server.stop() == 0


def test_a_stale_socket_is_replaced_and_a_file_is_not():
    with app_folder(APP) as folder:
        path = folder / "s.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        with Running(["--no-tracing", "-b", f"unix:{path}", "app:app"], folder) as server:
            server.line("Booting worker")
            assert b"200 OK" in ask(socket.AF_UNIX, str(path))
            assert server.stop() == 0
        path.write_text("precious")
        server = Running(["--no-tracing", "-b", f"unix:{path}", "app:app"], folder)
        assert server.process.wait(60) == 1
        assert path.read_text() == "precious"
        server.line("is not a socket")


def test_a_descriptor_is_served_as_it_is():
    with app_folder(APP) as folder, socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        given.listen()
        number = given.fileno()
        server = subprocess.Popen([CTSERVE, "--no-tracing", "-b", f"fd://{number}", "app:app"], cwd=folder,
                                  pass_fds=[number], stderr=subprocess.DEVNULL)
        try:
            assert b"200 OK" in ask(socket.AF_INET, given.getsockname())
        finally:
            server.terminate()
            assert server.wait(60) == 0


def test_systemds_sockets_win_over_bind():
    """LISTEN_PID must be the pid of the server itself, so a shell sets it and then becomes it."""
    with app_folder(APP) as folder, socket.socket() as given:
        given.bind(("127.0.0.1", 0))
        given.listen()
        script = f'exec 3<&{given.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        server = subprocess.Popen(
            ["bash", "-c", script, "sh", CTSERVE, "--no-tracing", "-b", "127.0.0.1:1", "app:app"],
            cwd=folder, pass_fds=[given.fileno()], stderr=subprocess.DEVNULL)
        try:
            assert b"200 OK" in ask(socket.AF_INET, given.getsockname())
        finally:
            server.terminate()
            assert server.wait(60) == 0


def test_the_pid_file_holds_the_pid_and_goes_with_the_server():
    with app_folder(APP) as folder:
        path = folder / "pid"
        with Running(["--no-tracing", "-p", str(path), "app:app"], folder) as server:
            server.ready()
            assert path.read_text() == f"{server.process.pid}\n"
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
            second = Running(["--no-tracing", "-p", str(path), "app:app"], folder)
            assert second.process.wait(60) == 1
            second.line("Already running on PID")
            assert server.stop() == 0
        assert not path.exists()


def test_the_master_has_one_thread_and_no_grpc():
    with app_folder(APP) as folder:
        with Running(["-w", "2", "app:app"], folder) as server:
            server.ready()
            processes = [server.process.pid, *server.workers()]
            assert len(os.listdir(f"/proc/{server.process.pid}/task")) == 1
            for pid in processes:
                assert "libgrpc" not in pathlib.Path(f"/proc/{pid}/maps").read_text()
            assert server.stop() == 0


def test_a_worker_inherits_only_what_is_its_own():
    """Besides 0, 1, 2: the listener, its control socket, its dump, its own loop; no slot, no
    descriptor of a sibling, none of the agent's."""
    with app_folder(APP) as folder:
        with Running(["-w", "3", "app:app"], folder) as server:
            server.ready()
            server.line("Booting worker", count=3)

            def kinds(pid):
                folder_of = pathlib.Path(f"/proc/{pid}/fd")
                return [os.readlink(one) for one in folder_of.iterdir() if int(one.name) > 2]

            def settled():
                return all(len([k for k in kinds(pid) if k.startswith("socket:")]) <= 2
                           for pid in server.workers())
            until(settled, lambda: str([kinds(pid) for pid in server.workers()]))
            for pid in server.workers():
                found = kinds(pid)
                assert sum("memfd:ctserve-dump" in kind for kind in found) == 1, found
                assert not any("memfd" in kind and "dump" not in kind for kind in found), found
            assert server.stop() == 0
