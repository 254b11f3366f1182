"""slixmpp as an unmodified XMPP client of the channel server.

usage: slixmpp_channel.py HOST PORT DOMAIN CA_FILE
The console account's password is in CAUSEWAY_PASSWORD. Logs in with SCRAM over direct TLS, binds, enables stream
management, pings, asks for service information, and resumes after its connection was cut.
"""
import asyncio
import os
import ssl
import sys

import slixmpp

host, port, domain, ca_file = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def check(what, holds, seen=""):
    print(("ok   " if holds else "FAIL ") + what, seen, flush=True)
    if not holds:
        sys.exit(1)


async def main():
    client = slixmpp.ClientXMPP(f"console@{domain}", os.environ["CAUSEWAY_PASSWORD"])
    client.enable_direct_tls = True
    client.enable_starttls = False
    client.enable_plaintext = False
    client.ssl_context = ssl.create_default_context(cafile=ca_file)
    client.ssl_context.set_alpn_protocols(["xmpp-client"])
    for plugin in ("xep_0030", "xep_0198", "xep_0199"):
        client.register_plugin(plugin)
    refused = client.wait_until("failed_all_auth", timeout=20)
    online = asyncio.ensure_future(client.wait_until("session_start", timeout=20))
    refused = asyncio.ensure_future(refused)
    enabled = asyncio.ensure_future(client.wait_until("sm_enabled", timeout=20))
    client.connect(host, port)
    done, _ = await asyncio.wait([online, refused], return_when=asyncio.FIRST_COMPLETED)
    check("SCRAM login and bind", online in done)
    check("the JID is ours", client.boundjid.bare == f"console@{domain}", client.boundjid.full)
    await enabled
    check("stream management is on", client["xep_0198"].sm_id != "" or client["xep_0198"].enabled_in)
    check("ping", await client["xep_0199"].ping(jid=domain, timeout=10) < 10)
    features = (await client["xep_0030"].get_info(jid=domain, timeout=10))["disco_info"]["features"]
    check("service information names ping", "urn:xmpp:ping" in features, sorted(features))
    try:
        await client["xep_0030"].get_items(jid=f"nobody.{domain}", timeout=10)
        check("a foreign domain is an error", False)
    except slixmpp.exceptions.IqError as error:
        check("a foreign domain is an error", True, error.condition)
    iq = client.make_iq_set(ito=domain)
    iq.append(slixmpp.xmlstream.ET.Element("{urn:causeway:cmd:1}action"))
    try:
        await iq.send(timeout=10)
        check("the console may not order anything", False)
    except slixmpp.exceptions.IqError as error:
        check("the console may not order anything", True, error.condition)

    resumed = asyncio.ensure_future(client.wait_until("session_resumed", timeout=30))
    client.transport.abort()
    await asyncio.sleep(0)
    if not resumed.done():
        client.connect(host, port)
    await resumed
    check("the session is resumed after a cut", True)
    check("ping after resumption", await client["xep_0199"].ping(jid=domain, timeout=10) < 10)
    await client.disconnect(wait=1)
    print("all hold")


asyncio.run(asyncio.wait_for(main(), 90))
