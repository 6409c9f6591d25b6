"""Children that do not outlive their keeper: a killed supervisor must not leave workers behind."""

import os
import signal
import threading
import time

POLL_SECONDS = 0.5
#: Environment variable in which a keeper (``farm.keeper``) gives its process id to its children. It is no setting.
KEEPER_VARIABLE = "FARM_KEEPER"


def exit_with_keeper() -> None:
    """From now on, send SIGTERM to this process once the keeper that started it has gone, were it before this call.

    A process that nobody keeps goes on when whoever started it (a shell, say) ends.
    """
    keeper = os.environ.get(KEEPER_VARIABLE)
    if keeper is None:
        return

    def watch() -> None:
        # Only Linux tells a child of its parent's end, and there of the end of the thread that started it.
        while os.getppid() == int(keeper):
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="keeper-watch", daemon=True).start()
