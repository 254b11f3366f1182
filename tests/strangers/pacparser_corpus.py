"""Asks pacparser what our PAC corpus gives.

  pacparser_corpus.py corpus FILE   every case it can be asked, one JSON line each: {"what": ..., "got": ...}
  pacparser_corpus.py bench FILE N  the median of N answers of one script, in microseconds
"""

import json
import sys
import time
import tomllib

import pacparser

URL = "https://www.corp.example/"
HOST = "www.corp.example"


def ask(script, url, host):
    """One script, one question, in an engine of its own."""
    pacparser.init()
    try:
        pacparser.parse_pac_string(script)
        return pacparser.find_proxy(url, host)
    finally:
        pacparser.cleanup()


def host_of(url):
    authority = url.split("://", 1)[1].split("/", 1)[0]
    return authority.rsplit(":", 1)[0] if ":" in authority else authority


def corpus(file):
    with open(file, "rb") as opened:
        cases = tomllib.load(opened)
    for call in cases["call"]:
        if "ours_alone" in call:
            continue
        script = "function FindProxyForURL(url, host) { return String(%s); }" % call["expr"]
        print(json.dumps({"what": call["expr"], "got": ask(script, URL, HOST)}))
    for script in cases["script"]:
        for answer in script["answers"]:
            got = ask(script["text"], answer["url"], host_of(answer["url"]))
            print(json.dumps({"what": script["name"] + ": " + answer["url"], "got": got}))


def bench(file, questions):
    pacparser.init()
    pacparser.parse_pac_file(file)
    took = []
    for n in range(questions):
        host = "host%d.elsewhere.example" % n
        began = time.perf_counter()
        answer = pacparser.find_proxy("https://%s/" % host, host)
        took.append((time.perf_counter() - began) * 1e6)
        assert answer.startswith("PROXY one"), answer
    took.sort()
    print(took[len(took) // 2])


if sys.argv[1] == "corpus":
    corpus(sys.argv[2])
else:
    bench(sys.argv[2], int(sys.argv[3]))
