"""Cloud Monitoring's notification channels: their types, their secrets, who uses them.

https://cloud.google.com/monitoring/support/notification-options
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.local.control.call import Call, digits
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Kind
from orchestra_lib.local.control.store import Stored

_MASKED = "******"


def server_id(_call: Call, _body: Body) -> str:
    """The id that Cloud Monitoring gives to what it keeps: 19 digits."""
    return digits(str(uuid.uuid4()), 19)


@dataclass(frozen=True)
class Channel:
    """A type of notification channel. https://cloud.google.com/monitoring/support/notification-options"""

    type: str
    display_name: str
    labels: tuple[str, ...]
    secret: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


_CHANNELS = {
    channel.type: channel
    for channel in (
        Channel("email", "Email", ("email_address",)),
        Channel("google_chat", "Google Chat", ("space",)),
        Channel("pagerduty", "PagerDuty Services", ("service_key",), secret=frozenset({"service_key"})),
        Channel("pubsub", "Cloud Pub/Sub", ("topic",)),
        Channel(
            "slack",
            "Slack",
            ("auth_token", "channel_name", "team"),
            secret=frozenset({"auth_token"}),
            optional=frozenset({"auth_token", "team"}),
        ),
        Channel("sms", "SMS", ("number",)),
        Channel(
            "webhook_basicauth",
            "Webhook with Basic Authentication",
            ("password", "url", "username"),
            secret=frozenset({"password"}),
        ),
        Channel("webhook_tokenauth", "Webhook with Token Authentication", ("url",)),
    )
}


def _show_channel(_control: Any, _key: str, _version: str, body: Body) -> Body:
    """Secrets among the labels are never shown again."""
    secret = _CHANNELS[body["type"]].secret
    labels = {name: _MASKED if name in secret else value for name, value in body.get("labels", {}).items()}
    return {**body, "labels": labels} if labels else body


def _check_channel(_call: Call, body: Body, _before: Body | None) -> None:
    channel = _CHANNELS.get(body.get("type", ""))
    if channel is None:
        raise bad_field(
            "notification_channel.type",
            f'Field "notification_channel.type" had an invalid value of "{body.get("type", "")}": it has to be one of '
            f"{', '.join(_CHANNELS)}.",
        )
    for name in channel.labels:
        if name not in body.get("labels", {}) and name not in channel.optional:
            raise bad_field(
                "notification_channel.labels",
                f'Field "notification_channel.labels[\'{name}\']" is required for channels of type "{channel.type}".',
            )


def _channel_descriptors(_control: Any, parent: str) -> Mapping[str, Body]:
    path = parent.split("/", 1)[1]
    return {
        channel.type: {
            "name": f"{path}/notificationChannelDescriptors/{channel.type}",
            "type": channel.type,
            "displayName": channel.display_name,
            "labels": [{"key": name} for name in channel.labels],
            "launchStage": "GA",
        }
        for channel in _CHANNELS.values()
    }


def _forget_channel(call: Call, row: Stored) -> None:
    """A channel that policies use is deleted only with ``force``, and then those policies lose it."""
    name = row.key.split("/", 1)[1]
    for policy in call.control.rows_in(f"{row.parent}/alertPolicies"):
        channels = policy.body.get("notificationChannels", [])
        if name not in channels:
            continue
        if not call.flag("force"):
            raise Fault("FAILED_PRECONDITION", f"Channel {name} is used by alert policy {policy.body['name']}.")
        left = [channel for channel in channels if channel != name]
        call.control.store.put(policy.key, {**policy.body, "notificationChannels": left})


def _fill_channel(call: Call, body: Body, before: Body | None) -> None:
    record = {"mutateTime": call.time}
    body["creationRecord"] = before["creationRecord"] if before else record
    body["mutationRecords"] = [*(before or {}).get("mutationRecords", []), record]


KINDS = (
    Kind(
        "notificationChannels",
        new_id=server_id,
        defaults={"enabled": True},
        check=_check_channel,
        fill=_fill_channel,
        show=_show_channel,
        before_delete=_forget_channel,
        not_found="Cannot find channel with resource name '{path}'.",
    ),
    Kind("notificationChannelDescriptors", built_in=_channel_descriptors),
)
