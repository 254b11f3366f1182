#!/bin/sh
# Puts ca.pem, cert.pem and key.pem into the folder named by the first argument.
# A certificate mounted at /tls is used as it is; otherwise a throwaway CA signs one for this container's
# names. A leaf signed by a CA, not one self-signed file: rustls refuses a CA certificate as a server's own.
# The CA is copied to /out when that is mounted, so that the test outside can verify the server.
set -eu
dir="$1"
mkdir -p "$dir"
if [ -f /tls/cert.pem ]; then
    cp /tls/ca.pem /tls/cert.pem /tls/key.pem "$dir/"
else
    name="$(hostname -f 2>/dev/null || hostname)"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
        -subj "/CN=Causeway test CA" -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -subj "/CN=$name" -keyout "$dir/key.pem" -out "$dir/request.pem" 2>/dev/null
    printf '%s\n' "subjectAltName=DNS:$name,DNS:$(hostname),DNS:localhost,IP:127.0.0.1" \
        "extendedKeyUsage=serverAuth" "basicConstraints=CA:FALSE" > "$dir/extensions"
    openssl x509 -req -days 825 -in "$dir/request.pem" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" \
        -CAcreateserial -extfile "$dir/extensions" -out "$dir/cert.pem" 2>/dev/null
    rm -f "$dir/ca.key" "$dir/request.pem" "$dir/extensions" "$dir/ca.srl"
fi
chmod 600 "$dir/key.pem"
if [ -d /out ]; then cp "$dir/ca.pem" /out/ca.pem; fi
