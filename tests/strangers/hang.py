"""Never ends: the test of the bound that every script runs under."""

import threading

print("waiting for nothing")
threading.Event().wait()
