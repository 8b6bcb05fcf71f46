"""A server that speaks HTTP/2 in cleartext and answers everything alike."""

from __future__ import annotations

import asyncio

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived


class Http2(asyncio.Protocol):
    """Answers every request over HTTP/2, in cleartext, with its own time."""

    def connection_made(self, transport):
        self.transport = transport
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                headers = [(":status", "200"), ("server-timing", "total;dur=0.5")]
                self.h2.send_headers(event.stream_id, headers)
                self.h2.send_data(event.stream_id, b"{}", end_stream=True)
        self.transport.write(self.h2.data_to_send())
