-- A challenge is stored nowhere, and neither is a signing request that holds one: `csr` is encrypted to the agent that
-- fetched the challenge. Of requests that are over only the key is still of interest, and that is in the certificate.
UPDATE certificate_requests SET csr = NULL WHERE is_open = 0;
-- The digest of a short challenge can be guessed.
ALTER TABLE certificate_requests DROP COLUMN challenge_sha256;
-- How a request with the challenge is to be protected, and for which agent: SealTo as JSON; NULL where there is no challenge.
ALTER TABLE certificate_requests ADD COLUMN seal TEXT;
ALTER TABLE certificate_requests ADD COLUMN seal_agent TEXT;
-- SHA-256 of the signing request as the device made it, hexadecimal, and its public key.
ALTER TABLE certificate_requests ADD COLUMN csr_sha256 TEXT;
ALTER TABLE certificate_requests ADD COLUMN csr_key BLOB;
-- Of one that has failed: when the next one is possible, Unix milliseconds.
ALTER TABLE certificate_requests ADD COLUMN retry_ms INTEGER;
