# Every setting of ctserve with its default, commented out. Made by scripts/make-settings-docs
# from include/ctserve/settings.def.
# Use: ctserve -c full.conf.py MODULE:APP

# -- Config File -------------------------------------------------------------------------------

# Python file with settings: a path, file:PATH or python:MODULE. A file named here must exist;
# the default one may be missing.
# config = './gunicorn.conf.py'

# Application to serve when the command line names none, as MODULE:NAME.
# wsgi_app = None

# -- Server Socket -----------------------------------------------------------------------------

# Address to listen on: HOST:PORT, [V6]:PORT, unix:PATH or fd://N. May be given several times;
# with PORT in the environment the default is 0.0.0.0:$PORT.
# bind = ['127.0.0.1:8000']

# How many connections may wait to be accepted; the kernel cuts it at net.core.somaxconn.
# backlog = 2048

# -- Worker Processes --------------------------------------------------------------------------

# How many worker processes serve requests. Signals TTIN and TTOU add and remove one.
# workers = 1

# Kind of worker: sync or gthread. sync with more than one thread is gthread.
# worker_class = 'sync'

# How many threads of a worker run requests; more than one makes it gthread.
# threads = 1

# How many connections one gthread worker keeps open at most.
# worker_connections = 1000

# Replace a worker after it served so many requests; 0 means never.
# max_requests = 0

# Add a random number up to this one to max_requests, drawn per worker, so that not all leave at
# once.
# max_requests_jitter = 0

# Seconds of silence after which a worker is replaced; 0 means never. In sync that limits one
# request, in gthread the silence of the whole worker.
# timeout = 30

# Seconds that running requests get to finish when a worker is told to leave; then it is killed.
# graceful_timeout = 30

# Seconds that an idle kept connection stays open.
# keepalive = 2

# Event loop of ASGI workers.
# (Does nothing yet; a warning names it when it is set.)
# asgi_loop = 'auto'

# Do ASGI applications get lifespan events.
# (Does nothing yet; a warning names it when it is set.)
# asgi_lifespan = 'auto'

# Seconds an ASGI task may go on after its client left.
# (Does nothing yet; a warning names it when it is set.)
# asgi_disconnect_grace_period = 3

# Largest WebSocket message in bytes; 0 is no limit.
# (Does nothing yet; a warning names it when it is set.)
# websocket_max_message_size = 16777216

# Which HTTP parser gunicorn would use.
# http_parser = 'auto'

# -- Security ----------------------------------------------------------------------------------

# Longest request line in bytes, at most 8190; 0 is no limit of its own. Longer ones get 414.
# limit_request_line = 4094

# How many header fields a request may have, at most 32768; more get 431.
# limit_request_fields = 100

# Longest header field in bytes, name and line end counted; 0 means the default. Longer ones get
# 431.
# limit_request_field_size = 8190

# -- Debugging ---------------------------------------------------------------------------------

# Restart workers when the code of the application changes.
# (Does nothing yet; a warning names it when it is set.)
# reload = False

# How changed code is noticed.
# (Does nothing yet; a warning names it when it is set.)
# reload_engine = 'auto'

# Further files or patterns that reload watches. May be given several times.
# (Does nothing yet; a warning names it when it is set.)
# reload_extra_files = []

# Print every line of Python that runs.
# (Does nothing yet; a warning names it when it is set.)
# spew = False

# Load configuration and application, then exit; 0 when both are fine, 1 when not.
# check_config = False

# Print every setting in force, then do as check_config.
# print_config = False

# -- Server Mechanics --------------------------------------------------------------------------

# Import the application in the master, before workers are forked; memory is shared, and SIGHUP
# does not import it again.
# preload_app = False

# False keeps wsgi.file_wrapper from using sendfile; SENDFILE in the environment says it too.
# sendfile = None

# One listening socket per worker by SO_REUSEPORT, instead of one that all share. Unix sockets
# are shared all the same.
# reuse_port = False

# Directory to stand in when the application is loaded; it goes to the front of sys.path.
# chdir = ...  # the working directory

# Detach from the terminal and run in the background.
# daemon = False

# NAME=VALUE to put into the environment of the application. May be given several times.
# raw_env = []

# File that holds the pid of the master while it runs.
# pidfile = None

# Directory for the heartbeat file of each worker.
# worker_tmp_dir = None

# User, by name or number, that workers run as.
# (Not possible yet; ctserve does not start when it is set.)
# user = ...  # the user that runs ctserve

# Group, by name or number, that workers run as.
# (Not possible yet; ctserve does not start when it is set.)
# group = ...  # the group that runs ctserve

# Bits taken away from the mode of unix sockets when they are made; octal.
# umask = 0

# Give workers all groups of the user they change to.
# (Not possible yet; ctserve does not start when it is set.)
# initgroups = False

# Accepted and used for nothing, as in gunicorn, because old configuration files still have it.
# tmp_upload_dir = None

# Headers and values by which a trusted proxy says that the client used https.
# secure_scheme_headers = {'X-FORWARDED-PROTOCOL': 'ssl', 'X-FORWARDED-PROTO': 'https', 'X-FORWARDED-SSL': 'on'}

# Addresses and networks of proxies whose headers are believed, with commas; * means all.
# forwarded_allow_ips = '127.0.0.1,::1'

# Directories, with commas, to put in front of sys.path once the configuration was read.
# pythonpath = None

# PasteDeploy file to load the application from, with #SECTION if wanted.
# (Does nothing yet; a warning names it when it is set.)
# paste = None

# Which PROXY protocol a proxy in front speaks; the flag alone means auto.
# proxy_protocol = 'off'

# Addresses and networks that may speak the PROXY protocol, with commas; * means all.
# proxy_allow_ips = '127.0.0.1,::1'

# Protocol on the wire: http or uwsgi; any other word means http.
# (Not possible yet; ctserve does not start when it is set.)
# protocol = 'http'

# Addresses that may speak uwsgi, with commas; * means all.
# (Does nothing yet; a warning names it when it is set.)
# uwsgi_allow_ips = '127.0.0.1,::1'

# KEY=VALUE for PasteDeploy's global configuration. May be given several times.
# (Does nothing yet; a warning names it when it is set.)
# raw_paste_global_conf = []

# Accept header fields that are folded over lines.
# permit_obsolete_folding = False

# Accept blanks between a header name and its colon.
# strip_header_spaces = False

# Accept methods in lower case, with # in them, or of odd length.
# permit_unconventional_http_method = False

# Accept HTTP versions other than 1.0 and 1.1.
# permit_unconventional_http_version = False

# Turn methods into upper case.
# casefold_http_method = False

# Headers that a trusted proxy may set although their names look unsafe, with commas.
# forwarder_headers = 'SCRIPT_NAME,PATH_INFO'

# What happens to header names with an underscore: drop them, refuse the request, or map them.
# header_map = 'drop'

# Path under which an ASGI application is mounted.
# (Does nothing yet; a warning names it when it is set.)
# root_path = ''

# -- Logging -----------------------------------------------------------------------------------

# File for one line per answered request; - is standard output.
# accesslog = None

# Keep access lines out of syslog.
# (Does nothing yet; a warning names it when it is set.)
# disable_redirect_access_to_syslog = False

# Shape of an access line, made of gunicorn's %(name)s atoms.
# access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

# File for the log of the server; - is standard error. SIGUSR1 opens it again.
# errorlog = '-'

# Least important kind of line to log; an unknown word means info.
# loglevel = 'info'

# Send what the application prints to the file of errorlog as well.
# (Does nothing yet; a warning names it when it is set.)
# capture_output = False

# Class that makes the log object which hooks and workers see.
# (Does nothing yet; a warning names it when it is set.)
# logger_class = 'gunicorn.glogging.Logger'

# File in ini form that configures Python's logging.
# (Does nothing yet; a warning names it when it is set.)
# logconfig = None

# Dictionary that configures Python's logging.
# (Does nothing yet; a warning names it when it is set.)
# logconfig_dict = {}

# File in JSON that configures Python's logging.
# (Does nothing yet; a warning names it when it is set.)
# logconfig_json = None

# Where syslog listens: unix://PATH, udp://HOST:PORT or tcp://HOST:PORT.
# (Does nothing yet; a warning names it when it is set.)
# syslog_addr = 'udp://localhost:514'

# Send log lines to syslog.
# (Does nothing yet; a warning names it when it is set.)
# syslog = False

# Word that syslog lines carry to tell one service from another.
# (Does nothing yet; a warning names it when it is set.)
# syslog_prefix = None

# Facility that syslog lines are sent under.
# (Does nothing yet; a warning names it when it is set.)
# syslog_facility = 'user'

# Keep standard output and error when running in the background.
# enable_stdio_inheritance = False

# HOST:PORT or unix://PATH of a statsd server for metrics.
# (Does nothing yet; a warning names it when it is set.)
# statsd_host = None

# Tags, with commas, that every statsd metric carries.
# (Does nothing yet; a warning names it when it is set.)
# dogstatsd_tags = ''

# Word in front of the name of every statsd metric.
# (Does nothing yet; a warning names it when it is set.)
# statsd_prefix = ''

# Also report how many connections wait to be accepted.
# (Does nothing yet; a warning names it when it is set.)
# enable_backlog_metric = False

# -- Process Naming ----------------------------------------------------------------------------

# Name in the titles that ps shows; the application when empty.
# proc_name = None

# Name for titles when proc_name is not set; becomes the application.
# default_proc_name = 'gunicorn'

# -- Server Hooks ------------------------------------------------------------------------------

# Called in the master before its sockets and signals are set up: (server).
# def on_starting(server):
#     pass

# Called in the master on SIGHUP, configuration read and new workers not yet forked: (server).
# def on_reload(server):
#     pass

# Called in the master when its sockets listen and no worker exists yet: (server).
# def when_ready(server):
#     pass

# Called in the master right before each fork: (server, worker).
# def pre_fork(server, worker):
#     pass

# Called in a new worker before anything else of the user: (server, worker).
# def post_fork(server, worker):
#     pass

# Called in a worker once the application is loaded: (worker).
# def post_worker_init(worker):
#     pass

# Called in a worker on SIGINT or SIGQUIT: (worker).
# def worker_int(worker):
#     pass

# Called in a worker that was silent for too long, before it dies: (worker).
# def worker_abort(worker):
#     pass

# Called on SIGUSR2 right before the new master is executed: (server).
# def pre_exec(server):
#     pass

# Called before the application gets a request: (worker, req).
# def pre_request(worker, req):
#     pass

# Called after the reply: (worker, req), further arguments environ and resp if it takes them.
# def post_request(worker, req):
#     pass

# Called in the master when a worker was reaped: (server, worker).
# def child_exit(server, worker):
#     pass

# Called in a worker that is about to exit: (server, worker).
# def worker_exit(server, worker):
#     pass

# Called in the master when the number of workers is set: (server, new, old), old is None at
# first.
# def nworkers_changed(server, new, old):
#     pass

# Called last in the master: (server).
# def on_exit(server):
#     pass

# Makes the TLS context: (config, default_factory).
# (Not possible yet; ctserve does not start when it is set.)
# def ssl_context(config, default_factory):
#     pass

# -- SSL ---------------------------------------------------------------------------------------

# Private key for TLS.
# (Not possible yet; ctserve does not start when it is set.)
# keyfile = None

# Certificate for TLS, with its chain.
# (Not possible yet; ctserve does not start when it is set.)
# certfile = None

# Had once to do with TLS versions; without effect, as in gunicorn.
# ssl_version = 'PROTOCOL_SSLv23'

# Does a client need a certificate: 0 no, 1 may have one, 2 must.
# (Not possible yet; ctserve does not start when it is set.)
# cert_reqs = 0

# Authorities whose client certificates are accepted.
# (Not possible yet; ctserve does not start when it is set.)
# ca_certs = None

# Treat a TLS connection that just ends as a regular end.
# (Does nothing yet; a warning names it when it is set.)
# suppress_ragged_eofs = True

# Finish the TLS handshake when a connection is accepted.
# (Does nothing yet; a warning names it when it is set.)
# do_handshake_on_connect = False

# Ciphers that TLS up to 1.2 may use, as OpenSSL writes them.
# (Not possible yet; ctserve does not start when it is set.)
# ciphers = None

# -- HTTP/2 ------------------------------------------------------------------------------------

# HTTP versions to offer, best first, with commas: h1 and h2.
# (Does nothing yet; a warning names it when it is set.)
# http_protocols = 'h1'

# HTTP/2 without TLS, for trusted proxies.
# (Does nothing yet; a warning names it when it is set.)
# http2_cleartext = 'off'

# How many streams one HTTP/2 connection may have open.
# (Does nothing yet; a warning names it when it is set.)
# http2_max_concurrent_streams = 100

# Bytes an HTTP/2 client may send ahead on a stream.
# (Does nothing yet; a warning names it when it is set.)
# http2_initial_window_size = 65535

# Largest HTTP/2 frame in bytes.
# (Does nothing yet; a warning names it when it is set.)
# http2_max_frame_size = 16384

# Largest header list of an HTTP/2 request in bytes; 0 is no limit.
# (Does nothing yet; a warning names it when it is set.)
# http2_max_header_list_size = 65536

# -- Dirty Arbiters ----------------------------------------------------------------------------

# Application classes for long jobs, as MODULE:CLASS. May be given several times.
# (Does nothing yet; a warning names it when it is set.)
# dirty_apps = []

# How many processes do long jobs; 0 means none.
# (Does nothing yet; a warning names it when it is set.)
# dirty_workers = 0

# Seconds one long job may take; 0 means any.
# (Does nothing yet; a warning names it when it is set.)
# dirty_timeout = 300

# How many threads a process for long jobs has.
# (Does nothing yet; a warning names it when it is set.)
# dirty_threads = 1

# Seconds that long jobs get to finish when the server leaves.
# (Does nothing yet; a warning names it when it is set.)
# dirty_graceful_timeout = 30

# -- Dirty Arbiter Hooks -----------------------------------------------------------------------

# Called when the process that manages long jobs starts: (arbiter).
# (Does nothing yet; a warning names it when it is set.)
# def on_dirty_starting(arbiter):
#     pass

# Called in a new process for long jobs: (arbiter, worker).
# (Does nothing yet; a warning names it when it is set.)
# def dirty_post_fork(arbiter, worker):
#     pass

# Called when its applications are loaded: (worker).
# (Does nothing yet; a warning names it when it is set.)
# def dirty_worker_init(worker):
#     pass

# Called when a process for long jobs is gone: (arbiter, worker).
# (Does nothing yet; a warning names it when it is set.)
# def dirty_worker_exit(arbiter, worker):
#     pass

# -- Control -----------------------------------------------------------------------------------

# Unix socket of the control interface.
# (Does nothing yet; a warning names it when it is set.)
# control_socket = ...  # $XDG_RUNTIME_DIR/gunicorn.ctl or ~/.gunicorn/gunicorn.ctl

# Permissions of the control socket; octal.
# (Does nothing yet; a warning names it when it is set.)
# control_socket_mode = 0o600

# Open no control socket.
# control_socket_disable = False

# -- ctserve -----------------------------------------------------------------------------------

# Trace every request and the life of the server. --no-tracing turns it off; the watch over hung
# requests goes on.
# tracing = True

# Seconds one request may take, whatever the kind of worker; 0 means any. Replies that stream are
# exempt while they make progress.
# request_timeout = 0

# Where traces are sent by OTLP, for example http://127.0.0.1:4317. OTEL_EXPORTER_OTLP_ENDPOINT
# says the same when this is not set.
# trace_otlp_endpoint = None

# How traces are sent; OTEL_EXPORTER_OTLP_PROTOCOL when this is not set.
# trace_otlp_protocol = None

# Name of this service in traces; OTEL_SERVICE_NAME, else the application, when this is not set.
# trace_service_name = None

# Bytes of shared memory per worker for finished spans; a power of two.
# trace_ring_bytes = 4194304

# JSON API for traces on loopback. auto: on for a loopback bind on a terminal, at the next free
# port from 8001.
# trace_api = 'auto'

# How strict HTTP is read. gunicorn admits a missing or malformed Host, a fragment in the target,
# CONNECT, and gzip or identity before chunked.
# http_policy = 'strict'

# Run Python inside ctserve (embed) or ctserve inside Python (host). auto: embed when that
# interpreter itself uses the shared library.
# interpreter = 'auto'

# Interpreter to use: a path. Without it: the environment ctserve is installed in, VIRTUAL_ENV,
# CONDA_PREFIX, PATH.
# python = None
