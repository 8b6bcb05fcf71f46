"""The interface's OpenAPI document, for those who do not serve it."""

from __future__ import annotations

from typing import Any

from orchestra_lib.service.app import create_app
from orchestra_lib.service.settings import ServiceSettings

# Who vouches for callers and where the store is do not show in the document, and nobody is asked.
_NOBODY = {
    "dsn": "dbname=never-opened",
    "jwt_issuer": "https://issuer.invalid",
    "jwt_audience": "nobody",
    "jwt_certificates_url": "https://issuer.invalid/certificates",
}


def interface_document() -> dict[str, Any]:
    """The document that a service with the usual settings serves as ``/openapi.json``."""
    return create_app(ServiceSettings.model_validate(_NOBODY)).openapi()
