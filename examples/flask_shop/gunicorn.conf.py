"""The configuration of the flask_shop example: every lifecycle hook says a line.

The same file works under gunicorn. What each hook gets, and in which process it runs, is told in
docs/lifecycle.md.
"""
workers = 4
worker_class = "sync"
keepalive = 5


def nworkers_changed(server, new_value, old_value):
    server.log.info("hook nworkers_changed: %s -> %s", old_value, new_value)


def on_starting(server):
    server.log.info("hook on_starting: master %s", server.pid)


def when_ready(server):
    server.log.info("hook when_ready: %s", server.address)


def pre_fork(server, worker):
    server.log.info("hook pre_fork: worker age %s, pid %s", worker.age, worker.pid)


def post_fork(server, worker):
    worker.log.info("hook post_fork: worker age %s", worker.age)


def post_worker_init(worker):
    worker.log.info("hook post_worker_init: worker age %s has its application", worker.age)


def worker_int(worker):
    worker.log.info("hook worker_int: worker age %s", worker.age)


def worker_abort(worker):
    worker.log.info("hook worker_abort: worker age %s took too long", worker.age)


def pre_request(worker, req):
    worker.log.debug("hook pre_request: %s %s", req.method, req.path)


def post_request(worker, req, environ, resp):
    worker.log.debug("hook post_request: %s %s -> %s", req.method, req.path, resp.status)


def worker_exit(server, worker):
    worker.log.info("hook worker_exit: worker age %s", worker.age)


def child_exit(server, worker):
    server.log.info("hook child_exit: worker age %s, pid %s", worker.age, worker.pid)


def on_reload(server):
    server.log.info("hook on_reload")


def on_exit(server):
    server.log.info("hook on_exit")
