"""The application factory. It wires the parts together and holds no rule."""

from __future__ import annotations

from importlib import import_module

from apiflask import APIFlask
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import IntegerConverter

from . import __version__, api, web
from .api.openapi import init_openapi
from .api.problems import init_problems
from .api.schemas import MAX_ID_DIGITS
from .auth import init_auth, public
from .config import Config
from .metrics import init_metrics
from .models import db, init_migrations, prepare_engine
from .rate_limits import init_rate_limits
from .services.policy_watch import init_policy_watch
from .tokens import init_tokens
from .web_security import init_web_security


class _IdConverter(IntegerConverter):
    """A number beyond the databases' integers names nothing: 404, not a failing query.

    As a pattern, because werkzeug answers 405 where a limit on the value refuses.
    """

    regex = rf"\d{{1,{MAX_ID_DIGITS}}}"


def create_app(config: Config) -> APIFlask:
    """Make the WSGI application.

    Raises ConfigError when a secret file cannot be read.
    """
    app = APIFlask(
        "sentinel_booking",
        title="ServerSentinel",
        version=__version__,
        # The interactive pages come from a CDN, which a lab's network may not reach.
        docs_path=None,
        json_errors=False,
        static_folder="web/static",
        template_folder="web/templates",
    )
    app.extensions["sentinel_config"] = config
    app.config["SQLALCHEMY_DATABASE_URI"] = config.database_url
    # Every thread may hold a connection, so none ever waits for another's.
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_pre_ping": True,
        "pool_size": 5,
        "max_overflow": config.threads,
        # Errors end in the log, and a statement's values may be hashes of secrets.
        "hide_parameters": True,
    }
    app.url_map.converters["int"] = _IdConverter
    if config.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # Flask's documented way
            app.wsgi_app, x_for=config.trusted_proxies, x_proto=config.trusted_proxies
        )
    init_problems(app)
    # In this order: malformed requests first, then who may call what.
    init_web_security(app, config)
    init_tokens(app, config)
    init_auth(app, config)
    init_rate_limits(app)
    init_openapi(app)
    db.init_app(app)
    init_migrations(app)
    with app.app_context():
        prepare_engine(db.engine)
        init_policy_watch(app, db.engine, config.max_policy_waiters)
    init_metrics(app)
    for package in (api, web):
        for name in package.BLUEPRINT_MODULES:
            app.register_blueprint(import_module(f"{package.__name__}.{name}").bp)
    for endpoint in ("static", "openapi.spec"):
        public(app.view_functions[endpoint])
    return app
