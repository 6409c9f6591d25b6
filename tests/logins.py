"""Logging in as a browser does."""

from typing import Any

from flask.testing import FlaskClient

PASSWORD = "correct horse battery"


def log_in(browser: FlaskClient, name: str, password: str, **more: Any) -> Any:
    address = more.pop("address", "127.0.0.1")
    return browser.post(
        "/login", data={"name": name, "password": password, **more}, environ_base={"REMOTE_ADDR": address}
    )
