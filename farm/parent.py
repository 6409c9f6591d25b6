"""Children that do not outlive their parent: a killed supervisor must not leave workers behind."""

import os
import signal
import threading
import time

POLL_SECONDS = 0.5


def exit_with_parent() -> None:
    """From now on, send SIGTERM to this process once the process that started it has gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
