"""The application factory. It wires the parts together and holds no rule."""

from __future__ import annotations

from apiflask import APIFlask

from .config import Config, read_secret
from .models import db, prepare_engine


def create_app(config: Config) -> APIFlask:
    """Make the WSGI application.

    Raises ConfigError when a secret file cannot be read.
    """
    app = APIFlask("sentinel_booking", title="ServerSentinel", version="1")
    app.config["SQLALCHEMY_DATABASE_URI"] = config.database_url
    app.config["JWT_SECRET_KEY"] = read_secret(config.secret_key_file)
    app.extensions["sentinel_config"] = config
    db.init_app(app)
    with app.app_context():
        prepare_engine(db.engine)
    return app
