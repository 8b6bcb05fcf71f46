"""Compute's load balancing: what the service computes for health checks, backend services and certificates.

https://cloud.google.com/load-balancing/docs
"""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography import x509

from orchestra_lib.local.control.call import Call, compute_timestamp
from orchestra_lib.local.control.kinds import Body, fill_missing
from orchestra_lib.local.control.services.compute_identity import invalid

_PORTS = {"http": 80, "https": 443, "http2": 443, "tcp": 80, "ssl": 443}
_WITH_PATH = ("http", "https", "http2")


def complete_health_check(_call: Call, body: Body, _before: Body | None) -> None:
    """The defaults of the protocol that a check speaks."""
    for protocol, port in _PORTS.items():
        own = body.get(f"{protocol}HealthCheck")
        if own is None:
            continue
        if "portName" not in own and "portSpecification" not in own:
            own.setdefault("port", port)
        own.setdefault("proxyHeader", "NONE")
        if protocol in _WITH_PATH:
            own.setdefault("requestPath", "/")


def complete_backend_service(_call: Call, body: Body, _before: Body | None) -> None:
    """The port of those that do not pass packets through; the secret of IAP is kept as its digest alone."""
    if body["loadBalancingScheme"] != "INTERNAL":
        fill_missing(body, {"port": 80, "portName": "http", "enableCDN": False})
    secret = (body.get("iap") or {}).pop("oauth2ClientSecret", None)
    if secret is not None:
        body["iap"]["oauth2ClientSecretSha256"] = hashlib.sha256(secret.encode()).hexdigest()


def complete_certificate(_call: Call, body: Body, _before: Body | None) -> None:
    """What can be read off a certificate that the caller brought. The private key is not kept."""
    own: dict[str, Any] = body.get("selfManaged") or {}
    own.pop("privateKey", None)
    body.pop("privateKey", None)
    text = body.get("certificate") or own.get("certificate")
    if text is None:
        return
    try:
        certificate = x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        raise invalid("certificate", text[:40], "The SSL certificate could not be parsed.") from None
    body.update(certificate=text, selfManaged={**own, "certificate": text}, type="SELF_MANAGED")
    body["expireTime"] = compute_timestamp(certificate.not_valid_after_utc.timestamp())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    body["subjectAlternativeNames"] = names.get_values_for_type(x509.DNSName)
