"""Gunicorn's settings, made from ours. `sentinel-booking serve` names this module to it.

Gunicorn reads the names below; they are its settings and hooks. What the hooks do is in
gunicorn_hooks.py.
"""

from __future__ import annotations

from pathlib import Path

from .config import config_path_from_environment, load_config
from .gunicorn_hooks import child_exit, post_fork, post_worker_init, prepare_metrics_dir
from .logs import init_logging

__all__ = ["child_exit", "post_fork", "post_worker_init"]

_config = load_config(config_path_from_environment())
init_logging()
prepare_metrics_dir()

bind = [_config.listen]
if _config.tls_cert_file is not None and _config.tls_key_file is not None:
    certfile = str(_config.tls_cert_file)
    keyfile = str(_config.tls_key_file)
workers = _config.workers
threads = _config.threads
worker_class = "gthread"
# A proxy keeps its connections open for about a minute; closing first would race with it.
keepalive = 75
# Waiting policy requests are released at once (post_worker_init); the rest is short.
graceful_timeout = 20
# Each worker opens its own database connections.
preload_app = False
# Heartbeats of the workers go to a file; on a disk that hangs they would be ended.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
# X-Forwarded-Proto is believed by trusted_proxies alone, not because it comes from here.
forwarded_allow_ips = ""
# Nobody steers it that way, and two servers of one account would share the socket.
control_socket_disable = True
errorlog = "-"
loglevel = "info"
