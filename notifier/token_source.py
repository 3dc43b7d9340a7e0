"""The tokens of the command line: given, read from a file, or signed with NOTIFIER_JWT_SECRET."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from notifier.access.tokens import sign
from notifier.errors import SettingsError
from notifier.settings import load


def token_source(given: str) -> Callable[[], str]:
    """Returns the token itself, or that of standard input (`-`); that of a file (`@FILE`) is read each time."""
    if given.startswith("@"):
        return functools.partial(_read, Path(given[1:]))
    token = sys.stdin.readline().strip() if given == "-" else given
    if not token:
        raise SettingsError("--token is empty")
    return functools.partial(str, token)


def sign_token(user: str, companies: list[str] | None, ttl: int) -> str:
    """Signs a token that this service accepts for `ttl` seconds. Raises SettingsError without a secret."""
    if not user:
        raise SettingsError("--user: must not be empty")
    settings = load()
    if settings.jwt_secret is None:
        raise SettingsError(
            "NOTIFIER_JWT_SECRET is not set; tokens can only be signed with a secret"
        )
    issuers, audiences = settings.jwt_issuer, settings.jwt_audience
    return sign(
        user,
        companies,
        ttl,
        settings.jwt_secret.get_secret_value(),
        algorithm=settings.jwt_algorithms[0] if settings.jwt_algorithms else "HS256",
        issuer=issuers[0] if issuers else None,
        audience=audiences[0] if audiences else None,
        user_claim=settings.jwt_user_claim,
        companies_claim=settings.jwt_companies_claim,
    )


def _read(file: Path) -> str:
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--token: cannot read the file {file}") from error
    if not token:
        raise SettingsError(f"--token: the file {file} is empty")
    return token
