"""How many CLIXML objects pypsrp decodes in a second.

  pypsrp_decode.py FILE N   decodes the object in FILE N times and prints objects per second
"""

import sys
import time

from pypsrp.serializer import Serializer


def main():
    file, count = sys.argv[1], int(sys.argv[2])
    with open(file, encoding="utf-8") as opened:
        text = opened.read()
    serializer = Serializer()
    decoded = serializer.deserialize(text)
    if decoded.adapted_properties["P37"] != "value-37-xxxxxxxxxxxxxxxxxxxx":
        sys.exit("pypsrp reads something else: %r" % decoded.adapted_properties)
    began = time.perf_counter()
    for _ in range(count):
        serializer.deserialize(text)
    print(count / (time.perf_counter() - began))


main()
