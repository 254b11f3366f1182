#!/bin/sh
# An NTLM helper for squid (protocol squid-2.5-ntlmssp) that knows no password: it gives a challenge and refuses every
# answer. squid's own ntlm_fake_auth accepts every answer, so a wrong password cannot be shown with it.
# The challenge is one of MS-NLMP 2.2.1.2 from domain ACME, always the same, with extended session security.
while read -r kind _; do
    case "$kind" in
        YR) echo 'TT TlRMTVNTUAACAAAAAAAAADgAAAA1gojiASNFZ4mrze8AAAAAAAAAABAAEAA4AAAACgBjRQAAAA8CAAgAQQBDAE0ARQAAAAAA' ;;
        KK) echo 'NA wrong password' ;;
        *) echo 'BH unknown request' ;;
    esac
done
