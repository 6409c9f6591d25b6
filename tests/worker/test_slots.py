"""What a worker's connection to the broker does when it is told wrong."""

import threading

import kombu
from kombu.pidbox import Mailbox

from farm.broker import TRANSPORT_OPTIONS
from farm.settings import Settings
from worker.slots import Transport


def test_a_worker_waits_for_no_message_that_nobody_sends(settings: Settings) -> None:
    """After a lost connection the event loop may take a new one, of the same number, for readable."""
    assert settings.broker_url is not None
    with kombu.Connection(
        settings.broker_url, transport=Transport, transport_options=TRANSPORT_OPTIONS, heartbeat=0
    ) as connection:
        heard: list[object] = []
        mailbox = Mailbox("test", type="fanout", connection=connection)
        node = mailbox.Node("here", channel=connection.channel(), handlers={"say": heard.append})
        node.state = "something"
        node.listen(callback=node.handle_message)
        transport, channel = connection.transport, node.channel
        transport.cycle._register_LISTEN(channel)
        (number,) = (number for number, (_, kind) in transport.cycle._fd_to_chan.items() if kind == "LISTEN")
        socket = channel.subclient.connection
        while socket.can_read(timeout=1):
            transport.on_readable(number)

        read = threading.Thread(target=transport.on_readable, args=(number,), daemon=True)
        read.start()
        read.join(5)
        assert not read.is_alive(), "it waits for what nobody sends"

        with kombu.Connection(settings.broker_url) as other:
            Mailbox("test", type="fanout", connection=other)._broadcast("say", {})
        assert socket.can_read(timeout=60)
        transport.on_readable(number)
        assert heard == ["something"]
