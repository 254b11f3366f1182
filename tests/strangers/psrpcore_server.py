"""A PowerShell remoting server made of psrpcore and pyspnego, for our client to talk to.

usage: psrpcore_server.py (basic CERT KEY | sealed)
`basic` serves https with Basic; `sealed` serves http with NTLM inside Negotiate and sealed messages (the user is in
NTLM_USER_FILE). User and password are in CAUSEWAY_USER and CAUSEWAY_PASSWORD. Prints one JSON line with the URL, then what it
saw, one line a request, until it is killed.
"""
import base64
import json
import os
import ssl
import struct
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import spnego
from psrpcore import (
    CreatePipelineEvent,
    PipelineHostResponseEvent,
    PSRPPayload,
    ServerPipeline,
    ServerRunspacePool,
    StreamType,
)
from psrpcore.types import (
    ErrorCategory,
    ErrorCategoryInfo,
    ErrorRecord,
    HostMethodIdentifier,
    NETException,
    PSCustomObject,
    PSInvocationState,
)

NS = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "wsa": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "wsman": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "rsp": "http://schemas.microsoft.com/wbem/wsman/1/windows/shell",
    "wst": "http://schemas.xmlsoap.org/ws/2004/09/transfer",
    "f": "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault",
    "pwsh": "http://schemas.microsoft.com/powershell",
}
SHELL = NS["rsp"]
SPACES = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NS.items())
SOAP = "application/soap+xml;charset=UTF-8"

mode = sys.argv[1]
user, password = os.environ["CAUSEWAY_USER"], os.environ["CAUSEWAY_PASSWORD"]


class Fault(Exception):
    def __init__(self, code, subcode, reason):
        super().__init__(reason)
        self.code, self.subcode, self.reason = code, subcode, reason


class Shell:
    """One runspace pool."""

    def __init__(self):
        self.id = str(uuid.uuid4()).upper()
        self.pool = ServerRunspacePool()
        self.pipelines = {}
        self.done = set()

    def feed(self, data, pipeline=None):
        self.pool.receive_data(PSRPPayload(data, StreamType.default, pipeline))
        while (event := self.pool.next_event()) is not None:
            if isinstance(event, CreatePipelineEvent):
                self.start(self.pipelines[event.pipeline_id])
            elif isinstance(event, PipelineHostResponseEvent):
                say("host response", str(event.error.FullyQualifiedErrorId) if event.error else "none")
                pipeline = self.pipelines[event.pipeline_id]
                if event.error:
                    pipeline._change_state(PSInvocationState.Failed, error=event.error)

    def start(self, pipeline):
        command = pipeline.metadata.commands[0]
        arguments = dict(command.parameters) if isinstance(command.parameters, dict) else {
            name: value for name, value in command.parameters}
        say("pipeline", command.command_text, script=command.is_script, arguments=sorted(map(str, arguments)))
        pipeline.start()
        name = command.command_text
        if name == "Get-MobileDevice":
            for number in range(int(arguments.get("ResultSize", 3))):
                pipeline.write_output(device(number))
        elif name == "Set-CASMailbox":
            pipeline.write_warning("Nothing has changed.")
            exception = NETException(Message="The mailbox could not be changed completely.")
            exception.PSObject.type_names.insert(0, "Example.PartialException")
            pipeline.write_error(
                exception,
                ErrorCategoryInfo(Category=ErrorCategory.InvalidOperation, Reason="PartialException"),
                target_object="bob",
                fully_qualified_error_id="[Server=MAIL1,RequestId=1] [FailureCategory=Cmdlet-PartialException] 1A2B,SetCASMailbox",
            )
            pipeline.write_output(str(arguments.get("ActiveSyncAllowedDeviceIDs")))
        elif name == "Clear-MobileDevice":
            # Shown only: nobody answers.
            pipeline.host_call(HostMethodIdentifier.WriteLine2, ["About to wipe."])
            pipeline.host_call(HostMethodIdentifier.WriteWarningLine, ["This cannot be undone."])
            pipeline.host_call(HostMethodIdentifier.PromptForChoice, ["Confirm", "Sure?", [], 0])
            return
        elif name == "Wait-Forever":
            return
        else:
            exception = NETException(Message=f"The term '{name}' is not recognized.")
            record = ErrorRecord(
                Exception=exception,
                CategoryInfo=ErrorCategoryInfo(
                    Category=ErrorCategory.ObjectNotFound, Reason="CommandNotFoundException"),
                FullyQualifiedErrorId="CommandNotFoundException",
            )
            pipeline._change_state(PSInvocationState.Failed, error=record)
            return
        pipeline.complete()

    def output(self, wanted):
        """What there is for one stream; psrpcore gives it in the order it was made."""
        streams = []
        while (payload := self.pool.data_to_send()) is not None:
            streams.append((payload.pipeline_id, payload.data))
        if not streams:
            raise Fault(2150858793, "TimedOut", "Nothing came within the time of the operation.")
        body = ""
        for pipeline, data in streams:
            which = f' CommandId="{str(pipeline).upper()}"' if pipeline else ""
            body += f'<rsp:Stream Name="stdout"{which}>{base64.b64encode(data).decode()}</rsp:Stream>'
        if wanted and self.pipelines[wanted].state in (
                PSInvocationState.Completed, PSInvocationState.Failed, PSInvocationState.Stopped):
            body += f'<rsp:CommandState CommandId="{str(wanted).upper()}" State="{SHELL}/CommandState/Done"/>'
        return f"<rsp:ReceiveResponse>{body}</rsp:ReceiveResponse>"


shells = {}
lock = threading.Lock()


def say(*words, **more):
    print(json.dumps({"saw": " ".join(words), **more}), flush=True)


def device(number):
    return PSCustomObject(
        PSTypeName="Microsoft.Exchange.Data.Directory.SystemConfiguration.MobileDevice",
        DeviceId=f"Appl\u00a7{number:06}",
        FriendlyName="_x000A_ & <b>" if number % 2 else None,
        Guid=uuid.UUID(int=number),
        IsManaged=number % 2 == 0,
    )


def identifier(text):
    return uuid.UUID(text.strip())


def answer(request):
    root = ElementTree.fromstring(request)
    text = lambda path: (root.findtext(path, namespaces=NS) or "").strip()
    action = text("s:Header/wsa:Action")
    message = text("s:Header/wsa:MessageID")
    try:
        body = operate(root, action, text)
        action += "Response"
    except Fault as fault:
        action = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"
        body = (
            f"<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>wsman:{fault.subcode}</s:Value>"
            f'</s:Subcode></s:Code><s:Reason><s:Text xml:lang="en-US">{escape(fault.reason)}</s:Text></s:Reason>'
            f'<s:Detail><f:WSManFault Code="{fault.code}" Machine="mail1"><f:Message>{escape(fault.reason)}'
            "</f:Message></f:WSManFault></s:Detail></s:Fault>"
        )
    say(action.rsplit("/", 1)[-1])
    header = (
        f"<wsa:Action>{action}</wsa:Action><wsa:MessageID>uuid:{str(uuid.uuid4()).upper()}</wsa:MessageID>"
        f"<wsa:RelatesTo>{message}</wsa:RelatesTo>"
    )
    status = 500 if "<s:Fault>" in body else 200
    return status, f"<s:Envelope {SPACES}><s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>".encode()


def operate(root, action, text):
    name = action.rsplit("/", 1)[-1]
    if name == "Create":
        assert text("s:Header/wsman:ResourceURI").endswith("/Microsoft.Exchange"), "resource"
        assert "serializationLevel=Full;ExchClientVer=15" in text("s:Header/wsa:To"), "To"
        shell = Shell()
        shells[shell.id] = shell
        shell.feed(base64.b64decode(text("s:Body/rsp:Shell/pwsh:creationXml")))
        return (
            "<wst:ResourceCreated><wsa:Address>http://mail1</wsa:Address><wsa:ReferenceParameters>"
            f"<wsman:ResourceURI>{text('s:Header/wsman:ResourceURI')}</wsman:ResourceURI>"
            f'<wsman:SelectorSet><wsman:Selector Name="ShellId">{shell.id}</wsman:Selector></wsman:SelectorSet>'
            "</wsa:ReferenceParameters></wst:ResourceCreated>"
            f"<rsp:Shell><rsp:ShellId>{shell.id}</rsp:ShellId></rsp:Shell>"
        )
    shell = shells.get(text("s:Header/wsman:SelectorSet/wsman:Selector"))
    if shell is None:
        raise Fault(2150858843, "InvalidSelectors", "The shell was not found.")
    if name == "Receive":
        wanted = root.find("s:Body/rsp:Receive/rsp:DesiredStream", NS).get("CommandId")
        return shell.output(identifier(wanted) if wanted else None)
    if name == "Command":
        line = root.find("s:Body/rsp:CommandLine", NS)
        command = identifier(line.get("CommandId"))
        assert text("s:Body/rsp:CommandLine/rsp:Command") == "", "a command line"
        shell.pipelines[command] = ServerPipeline(shell.pool, command)
        shell.feed(base64.b64decode(text("s:Body/rsp:CommandLine/rsp:Arguments")), command)
        return f"<rsp:CommandResponse><rsp:CommandId>{str(command).upper()}</rsp:CommandId></rsp:CommandResponse>"
    if name == "Send":
        stream = root.find("s:Body/rsp:Send/rsp:Stream", NS)
        say("stream", stream.get("Name"))
        shell.feed(base64.b64decode(stream.text), identifier(stream.get("CommandId")))
        return "<rsp:SendResponse/>"
    if name == "Signal":
        signal = root.find("s:Body/rsp:Signal", NS)
        pipeline = shell.pipelines[identifier(signal.get("CommandId"))]
        code = text("s:Body/rsp:Signal/rsp:Code").rsplit("/", 1)[-1]
        say("signal", code)
        if code.lower() in ("ctrl_c", "crtl_c"):
            pipeline.stop()
        else:
            pipeline.close()
        return "<rsp:SignalResponse/>"
    if name == "Delete":
        del shells[shell.id]
        return ""
    raise Fault(2150858752, "ActionNotSupported", f"{name} is not supported.")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    context = None

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert self.path.startswith("/PowerShell/?serializationLevel=Full;ExchClientVer="), self.path
        (self.basic if mode == "basic" else self.sealed)(body)

    def basic(self, body):
        expected = base64.b64encode(f"{user}:{password}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {expected}":
            return self.send(401, b"", {"WWW-Authenticate": 'Basic realm="mail1"'})
        with lock:
            status, envelope = answer(body)
        self.send(status, envelope, {"Content-Type": SOAP})

    def sealed(self, body):
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if token:
            if self.context is None or self.context.complete:
                self.context = spnego.server(protocol="negotiate", options=spnego.NegotiateOptions.use_negotiate
                                             | spnego.NegotiateOptions.wrapping_winrm)
            try:
                out = self.context.step(base64.b64decode(token))
            except spnego.exceptions.SpnegoError as error:
                say("refused", type(error).__name__)
                self.context = None
                return self.send(401, b"", {"WWW-Authenticate": "Negotiate"})
            said = f"Negotiate {base64.b64encode(out).decode()}" if out else "Negotiate"
            return self.send(200 if self.context.complete else 401, b"", {"WWW-Authenticate": said})
        if self.context is None or not self.context.complete:
            return self.send(401, b"", {"WWW-Authenticate": "Negotiate"})
        assert self.headers["Content-Type"].startswith("multipart/encrypted"), self.headers["Content-Type"]
        payload = body.split(b"application/octet-stream\r\n", 1)[1]
        payload = payload[: payload.rindex(b"--Encrypted Boundary")]
        length = struct.unpack("<I", payload[:4])[0]
        envelope = self.context.unwrap_winrm(payload[4 : 4 + length], payload[4 + length :])
        with lock:
            status, envelope = answer(envelope)
        sealed = self.context.wrap_winrm(envelope)
        protocol = "application/HTTP-SPNEGO-session-encrypted"
        # With the space that Exchange was seen to write.
        framed = (
            f"-- Encrypted Boundary\r\n\tContent-Type: {protocol}\r\n\tOriginalContent: type={SOAP};"
            f"Length={len(envelope) + sealed.padding_length}\r\n-- Encrypted Boundary\r\n"
            "\tContent-Type: application/octet-stream\r\n"
        ).encode()
        framed += struct.pack("<I", len(sealed.header)) + sealed.header + sealed.data + b"-- Encrypted Boundary--\r\n"
        kind = f'multipart/encrypted;protocol="{protocol}";boundary="Encrypted Boundary"'
        self.send(status, framed, {"Content-Type": kind})

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
scheme = "http"
if mode == "basic":
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "https"
print(json.dumps({"url": f"{scheme}://localhost:{server.server_port}/PowerShell/"
                         "?serializationLevel=Full;ExchClientVer=15.2.1544.4"}), flush=True)
server.serve_forever()
