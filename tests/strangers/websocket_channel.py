"""The channel over WebSocket (RFC 7395) with the `websockets` library and the XML parser of Python itself.

usage: websocket_channel.py HOST PORT DOMAIN CA_FILE JID CERTIFICATE_FILE KEY_FILE
Logs in by SASL EXTERNAL, binds, enables stream management, pings, drops the connection and resumes; says goodbye.
Every message of the cloud is parsed on its own, so a stanza without its namespaces fails.
"""
import asyncio
import ssl
import sys
import xml.etree.ElementTree as ET

import websockets

host, port, domain, ca_file, jid, certificate, key = sys.argv[1:8]

FRAMING = "{urn:ietf:params:xml:ns:xmpp-framing}"
CLIENT = "{jabber:client}"
SASL = "{urn:ietf:params:xml:ns:xmpp-sasl}"
SM = "{urn:xmpp:sm:3}"


def check(what, holds, seen=""):
    print(("ok   " if holds else "FAIL ") + what, seen, flush=True)
    if not holds:
        sys.exit(1)


class Stream:
    def __init__(self, socket):
        self.socket = socket

    async def say(self, text):
        await self.socket.send(text)

    async def hear(self):
        text = await asyncio.wait_for(self.socket.recv(), 20)
        check("a message is text", isinstance(text, str), "")
        return ET.fromstring(text)

    async def hear_past_requests(self, tag):
        while True:
            element = await self.hear()
            if element.tag == tag:
                return element

    async def open(self):
        await self.say(f"<open xmlns='{FRAMING[1:-1]}' to='{domain}' version='1.0'/>")
        opened = await self.hear()
        check("the stream opens", opened.tag == FRAMING + "open" and opened.get("from") == domain, opened.attrib)
        features = await self.hear()
        check("features follow", features.tag == "{http://etherx.jabber.org/streams}features")
        return features

    async def log_in(self):
        features = await self.open()
        offered = [mechanism.text for mechanism in features.iter(SASL + "mechanism")]
        check("EXTERNAL is offered", "EXTERNAL" in offered, offered)
        await self.say(f"<auth xmlns='{SASL[1:-1]}' mechanism='EXTERNAL'>=</auth>")
        check("EXTERNAL login", (await self.hear()).tag == SASL + "success")
        return await self.open()


def connect():
    context = ssl.create_default_context(cafile=ca_file)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    url = f"wss://{host}:{port}/xmpp-websocket"
    return websockets.connect(url, ssl=context, subprotocols=["xmpp"], open_timeout=20, compression=None)


async def main():
    async with connect() as socket:
        check("the subprotocol is agreed", socket.subprotocol == "xmpp", socket.subprotocol)
        stream = Stream(socket)
        await stream.log_in()
        await stream.say(
            f"<iq xmlns='{CLIENT[1:-1]}' type='set' id='b1'>"
            "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>agent</resource></bind></iq>"
        )
        bound = await stream.hear()
        full = bound.findtext(".//{urn:ietf:params:xml:ns:xmpp-bind}jid")
        check("the JID is the certificate's", full == jid + "/agent", full)
        await stream.say(f"<enable xmlns='{SM[1:-1]}' resume='true'/>")
        enabled = await stream.hear()
        check("stream management", enabled.tag == SM + "enabled" and enabled.get("resume") == "true")
        ping = f"<iq xmlns='{CLIENT[1:-1]}' type='get' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>"
        await stream.say(ping)
        answer = await stream.hear_past_requests(CLIENT + "iq")
        check("ping", answer.get("type") == "result" and answer.get("id") == "p1", answer.attrib)
        await socket.ping()
        # The end of a network, not of a stream: no close frame, no <close/>.
        socket.transport.abort()
    async with connect() as socket:
        stream = Stream(socket)
        await stream.log_in()
        await stream.say(f"<resume xmlns='{SM[1:-1]}' previd='{enabled.get('id')}' h='1'/>")
        resumed = await stream.hear()
        check("resumption", resumed.tag == SM + "resumed" and resumed.get("h") == "1", resumed.attrib)
        await stream.say(f"<r xmlns='{SM[1:-1]}'/>")
        check("acknowledgement", (await stream.hear_past_requests(SM + "a")).get("h") == "1")
        await stream.say(f"<close xmlns='{FRAMING[1:-1]}'/>")
        check("goodbye", (await stream.hear_past_requests(FRAMING + "close")).tag == FRAMING + "close")
    print("all hold")


asyncio.run(asyncio.wait_for(main(), 90))
