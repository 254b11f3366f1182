"""pypsrp as an unmodified client of Exchange's remote PowerShell.

usage: pypsrp_session.py HTTPS_URL HTTP_URL CA_FILE USER MAILBOX
The password is in CAUSEWAY_PASSWORD. Prints one line a check and ends with 0 when all hold.
"""
import os
import sys
from urllib.parse import urlsplit
from xml.etree import ElementTree

from pypsrp.complex_objects import PSInvocationState
from pypsrp.exceptions import AuthenticationError, WinRMTransportError, WSManFaultError
from pypsrp.powershell import PowerShell, RunspacePool
from pypsrp.shell import SignalCode
from pypsrp.wsman import WSMan

https_url, http_url, ca_file, user, mailbox = sys.argv[1:6]
password = os.environ["CAUSEWAY_PASSWORD"]


def check(what, holds, seen=""):
    print(("ok   " if holds else "FAIL ") + what, seen, flush=True)
    if not holds:
        sys.exit(1)


def connection(url, auth, password=password, **more):
    url = urlsplit(url)
    # Exchange's own clients add a query with a semicolon.
    path = url.path.strip("/") + "?serializationLevel=Full;ExchClientVer=15.2.1544.4"
    secure = url.scheme == "https"
    return WSMan(url.hostname, port=url.port, path=path, ssl=secure, auth=auth, username=user, password=password,
                 cert_validation=ca_file, **more)


def run(pool, cmdlet, **parameters):
    shell = PowerShell(pool)
    shell.add_cmdlet(cmdlet)
    for name, value in parameters.items():
        shell.add_parameter(name, value)
    return shell, shell.invoke()


def items(value):
    """Elements of a MultiValuedProperty: this client does not know the type and keeps its content as XML."""
    parts = [] if value is None else [ElementTree.fromstring(part) for part in value.property_sets]
    return [element.text for part in parts for element in part]


def session(name, wsman):
    with wsman, RunspacePool(wsman, configuration_name="Microsoft.Exchange") as pool:
        check(f"{name}: the pool opens", pool.protocol_version is not None, pool.protocol_version)
        check(f"{name}: the server describes itself", pool.application_private_data is not None)
        check(f"{name}: the envelope grows for newer servers", wsman.max_envelope_size == 512000)

        shell, devices = run(pool, "Get-MobileDevice", ResultSize="Unlimited")
        check(f"{name}: Get-MobileDevice", shell.state == PSInvocationState.COMPLETED and len(devices) > 3, len(devices))
        first = devices[0].adapted_properties
        check(f"{name}: a device has its properties", all(first.get(n) for n in ("DeviceId", "DeviceType", "Identity")), sorted(first)[:6])
        check(f"{name}: the sign in an identity is not escaped", "\u00a7" in str(first["Identity"]), first["Identity"])
        check(f"{name}: no device twice", len({str(d.adapted_properties["Guid"]) for d in devices}) == len(devices))

        shell, few = run(pool, "Get-MobileDevice", ResultSize=3)
        check(f"{name}: ResultSize cuts", len(few) == 3, len(few))
        check(f"{name}: and warns", any("result" in str(w).lower() for w in shell.streams.warning), [str(w) for w in shell.streams.warning])

        device = first["DeviceId"]
        shell, _ = run(pool, "Set-CASMailbox", Identity=mailbox, ActiveSyncBlockedDeviceIDs=[device])
        check(f"{name}: Set-CASMailbox", not shell.had_errors, [str(e) for e in shell.streams.error])
        shell, boxes = run(pool, "Get-CASMailbox", Identity=mailbox)
        blocked = boxes[0].adapted_properties["ActiveSyncBlockedDeviceIDs"]
        check(f"{name}: what was set is read back", items(blocked) == [device], items(blocked))
        shell, _ = run(pool, "Set-CASMailbox", Identity=mailbox, ActiveSyncBlockedDeviceIDs=[])
        check(f"{name}: and taken back", not shell.had_errors)

        shell, found = run(pool, "Get-CASMailbox", Identity="nobody@nowhere.example")
        check(f"{name}: an unknown mailbox is an error record", shell.had_errors and not found, [str(e) for e in shell.streams.error])
        error = shell.streams.error[0]
        check(f"{name}: with its reason", error.reason == "ManagementObjectNotFoundException", error.reason)
        check(f"{name}: and its category of failure", "[FailureCategory=Cmdlet-" in error.fq_error, error.fq_error)

        shell, _ = run(pool, "Get-NothingOfTheKind")
        check(f"{name}: an unknown cmdlet fails", shell.state == PSInvocationState.FAILED, shell.state)
        check(f"{name}: as not found", shell.streams.error[-1].reason == "CommandNotFoundException", shell.streams.error[-1].reason)
        shell, _ = run(pool, "Get-MobileDevice", NoSuchParameter="x")
        check(f"{name}: an unknown parameter fails", shell.had_errors and shell.streams.error[-1].reason == "ParameterBindingException", [e.reason for e in shell.streams.error])

        script = PowerShell(pool)
        script.add_script("Get-MobileDevice | Where-Object { $true }")
        script.invoke()
        check(f"{name}: a script is refused", script.state == PSInvocationState.FAILED and "no-language mode" in str(script.streams.error[-1]), str(script.streams.error[-1]))
        shell = PowerShell(pool)
        shell.add_cmdlet("Get-MobileDevice").add_cmdlet("Select-Object").add_parameter("Property", "DeviceId")
        shell.invoke()
        check(f"{name}: Select-Object does not exist", shell.state == PSInvocationState.FAILED and "Select-Object" in str(shell.streams.error[-1]), str(shell.streams.error[-1]))

        # This client has no host: a cmdlet that asks for confirmation fails.
        guid = str(first["Guid"])
        shell, _ = run(pool, "Remove-MobileDevice", Identity=guid)
        check(f"{name}: a question nobody can answer fails", shell.had_errors, [str(e) for e in shell.streams.error])
        shell, left = run(pool, "Get-MobileDevice", Identity=guid)
        check(f"{name}: and nothing was removed", len(left) == 1)
        check(f"{name}: free runspaces are counted", pool.get_available_runspaces() == 1)

        stopped = PowerShell(pool)
        stopped.add_cmdlet("Get-MobileDevice").add_parameter("ResultSize", "Unlimited")
        stopped.begin_invoke()
        stopped.stop()
        check(f"{name}: a pipeline can be stopped", stopped.state == PSInvocationState.STOPPED)
        pool.shell.signal(SignalCode.TERMINATE, str(stopped.id).upper())
        shell, again = run(pool, "Get-MobileDevice", ResultSize=1)
        check(f"{name}: and the pool goes on", len(again) == 1)
    check(f"{name}: the pool closes", True)
    wsman = connection(https_url, "basic")
    pool.connection = pool.shell.wsman = wsman
    try:
        pool._receive()
        check(f"{name}: a deleted shell is gone", False)
    except WSManFaultError as fault:
        check(f"{name}: a deleted shell is gone", fault.code == 2150858843, fault.code)


session("basic over TLS", connection(https_url, "basic"))
session("NTLM sealed over http", connection(http_url, "ntlm"))
session("Negotiate over TLS", connection(https_url, "negotiate"))
session("Negotiate sealed inside TLS", connection(https_url, "negotiate", encryption="always"))

for auth, url in (("basic", https_url), ("ntlm", http_url), ("negotiate", https_url)):
    pool = RunspacePool(connection(url, auth, password=password + "x"), configuration_name="Microsoft.Exchange")
    try:
        pool.open()
        check(f"{auth}: a wrong password is refused", False)
    except AuthenticationError as error:
        check(f"{auth}: a wrong password is refused", True, error)

try:
    RunspacePool(connection(http_url, "basic", encryption="never"), configuration_name="Microsoft.Exchange").open()
    check("Basic without TLS is refused", False)
except AuthenticationError as error:
    check("Basic without TLS is refused", True, error)

try:
    RunspacePool(connection(http_url, "ntlm", encryption="never"), configuration_name="Microsoft.Exchange").open()
    check("clear messages without TLS are refused", False)
except WinRMTransportError as error:
    check("clear messages without TLS are refused", error.code == 500, error.code)

try:
    RunspacePool(connection(https_url, "basic"), configuration_name="Microsoft.PowerShell").open()
    check("another configuration is unknown", False)
except WSManFaultError as fault:
    check("another configuration is unknown", fault.code == 2150858811, fault.code)
print("all hold")
