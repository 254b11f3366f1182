//! OpenSSL as judge of requests, certificates and messages, in both directions: what we write it reads and verifies, what
//! it writes we read and verify.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_protocol::Secret;
use causeway_protocol::certificate::KeyKind;
use causeway_protocol::cms::{
    Bag, ContentCipher, EnvelopedData, KeyTransport, Recipient, SealRandom, SignedData, SignerKey, seal,
    sign, write_bag,
};
use causeway_protocol::pkix::{
    Accept, AlternativeName, BasicConstraints, Certificate, CertificateDraft, Csr, CsrDraft, Digest,
    Extension, Key, KeyUsage, Name, Template, oid, pem,
};
use causeway_tests::program;
use tempfile::TempDir;
use tokio::process::Command;

const WITHIN: Duration = Duration::from_secs(60);
/// 2020-01-01 and 2049-01-01: whatever day it is.
const VALID_MS: (i64, i64) = (1_577_836_800_000, 2_493_072_000_000);
const CONTENT: &[u8] = b"what only the recipient reads";

/// The program's settings: none. Those of the machine must not change what is a valid request.
const SETTINGS: &str = "openssl.cnf";

/// A folder, the program, and an authority with one RSA and one P-256 certificate below it.
struct Judge {
    program: PathBuf,
    folder: TempDir,
    ca: Certificate,
    holders: Vec<(&'static str, Key, Certificate)>,
}

impl Judge {
    fn new() -> Result<Option<Self>> {
        let Some(program) = program::find("openssl", "openssl") else { return Ok(None) };
        let ca_key = Key::generate(KeyKind::Rsa2048)?;
        let subject = Name::parse("CN=Test CA,O=Acme")?.to_der();
        let usage = KeyUsage::CERT_SIGN.and(KeyUsage::CRL_SIGN).and(KeyUsage::DIGITAL_SIGNATURE);
        let mut draft = CertificateDraft {
            serial: vec![1],
            issuer: subject.clone(),
            subject,
            not_before_ms: VALID_MS.0,
            not_after_ms: VALID_MS.1,
            public_key: ca_key.public_key().clone(),
            extensions: vec![
                Extension::basic_constraints(BasicConstraints { ca: true, path_length: Some(0) }),
                Extension::key_usage(usage),
                Extension::subject_key_id(&ca_key.public_key().key_id()),
            ],
        };
        let ca = Certificate::read(&draft.sign(&ca_key, Digest::Sha384)?)?;
        let mut holders = Vec::new();
        for (serial, name, kind) in [(0xf0, "rsa", KeyKind::Rsa2048), (0x7f, "curve", KeyKind::P256)] {
            let key = Key::generate(kind)?;
            draft.serial = vec![serial];
            draft.subject = Name::parse(&format!("CN={name}"))?.to_der();
            draft.public_key = key.public_key().clone();
            let usage =
                KeyUsage::DIGITAL_SIGNATURE.and(KeyUsage::KEY_ENCIPHERMENT).and(KeyUsage::KEY_AGREEMENT);
            draft.extensions = vec![
                Extension::key_usage(usage),
                Extension::extended_key_usage(&[oid::CLIENT_AUTH, oid::EMAIL_PROTECTION]),
                Extension::subject_key_id(&key.public_key().key_id()),
                Extension::authority_key_id(&ca_key.public_key().key_id()),
                Extension::sid("S-1-5-21-1-2-3-1104"),
                Extension::crl_distribution_points(&["http://ca.example/ca.crl"]),
            ];
            holders.push((name, key, Certificate::read(&draft.sign(&ca_key, Digest::Sha256)?)?));
        }
        let judge = Self { program, folder: TempDir::new()?, ca, holders };
        judge.write("ca.pem", pem::write("CERTIFICATE", judge.ca.raw()).as_bytes())?;
        for (name, key, certificate) in &judge.holders {
            judge.write(&format!("{name}.pem"), pem::write("CERTIFICATE", certificate.raw()).as_bytes())?;
            judge.write(&format!("{name}.key"), pem::write("PRIVATE KEY", key.pkcs8()).as_bytes())?;
        }
        judge.write("content", CONTENT)?;
        judge.write(SETTINGS, b"[req]\ndistinguished_name = subject\n[subject]\n")?;
        Ok(Some(judge))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        std::fs::write(self.path(name), bytes).with_context(|| format!("write {name}"))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        std::fs::read(self.path(name)).with_context(|| format!("read {name}"))
    }

    /// Runs `openssl` in the folder; what it prints, if it is content.
    async fn run(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .env("OPENSSL_CONF", self.path(SETTINGS));
        let run = program::run(&mut command, "", WITHIN).await?;
        ensure!(run.status.success(), "openssl {arguments}: {}\n{}\n{}", run.status, run.stdout, run.stderr);
        Ok(run.stdout + &run.stderr)
    }
}

#[tokio::test]
async fn openssl_verifies_our_requests_and_certificates() -> Result<()> {
    let Some(judge) = Judge::new()? else { return Ok(()) };
    for (name, key, certificate) in &judge.holders {
        let names =
            ["upn:zoë@acme.example", "email:zoe@acme.example", "dns:zoe.acme.example", "ip:2001:db8::7"];
        let draft = CsrDraft {
            subject: Name::parse("/C=DE/O=Acme/CN=Zoë/emailAddress=zoe@acme.example")?,
            alternative_names: names
                .iter()
                .map(|name| AlternativeName::parse(name))
                .collect::<Result<_, _>>()?,
            challenge: Some(Secret::new("0123456789ABCDEF")),
            template: Some(Template::Name("User".to_owned())),
            sid: Some("S-1-5-21-1-2-3-1104".to_owned()),
            extensions: vec![Extension::key_usage(KeyUsage::DIGITAL_SIGNATURE)],
        };
        judge.write("request.der", &draft.sign(key, Digest::Sha256)?)?;
        let said = judge
            .run("req -inform DER -in request.der -verify -noout -text -nameopt RFC2253,-esc_msb,utf8")
            .await?;
        for part in [
            "verify OK",
            "emailAddress=zoe@acme.example,CN=Zoë,O=Acme,C=DE",
            "0123456789ABCDEF",
            "email:zoe@acme.example",
            "DNS:zoe.acme.example",
            "IP Address:2001:DB8:0:0:0:0:0:7",
            "Digital Signature",
        ] {
            ensure!(said.contains(part), "{name}: no {part:?} in\n{said}");
        }
        let said = judge.run(&format!("verify -x509_strict -CAfile ca.pem {name}.pem")).await?;
        ensure!(said.contains("OK"), "{name}: {said}");
        let said = judge.run(&format!("x509 -in {name}.pem -noout -serial -fingerprint -sha256")).await?;
        let (serial, sha256) = (certificate.serial().to_uppercase(), certificate.sha256().to_uppercase());
        ensure!(said.contains(&serial) && said.replace(':', "").contains(&sha256), "{name}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn openssl_opens_and_verifies_our_messages() -> Result<()> {
    let Some(judge) = Judge::new()? else { return Ok(()) };
    let ways = [
        (ContentCipher::Aes128, KeyTransport::Pkcs1),
        (ContentCipher::Aes192, KeyTransport::Oaep(Digest::Sha1)),
        (ContentCipher::Aes256, KeyTransport::Oaep(Digest::Sha256)),
        (ContentCipher::TripleDes, KeyTransport::Pkcs1),
    ];
    for (name, key, certificate) in &judge.holders {
        for (at, (cipher, way)) in ways.into_iter().enumerate() {
            let random = SealRandom::new(std::array::from_fn(|byte| (byte * 7 + at) as u8));
            judge.write(
                "sealed.der",
                &seal(CONTENT, Recipient::Certificate(certificate), cipher, way, &random)?,
            )?;
            judge
                .run(&format!(
                    "cms -decrypt -inform DER -in sealed.der -recip {name}.pem -inkey {name}.key -out opened"
                ))
                .await?;
            ensure!(judge.read("opened")? == CONTENT, "{name} with {cipher:?} {way:?}");
            judge.write(
                "sealed.der",
                &seal(CONTENT, Recipient::Key(key.public_key()), cipher, way, &random)?,
            )?;
            judge
                .run(&format!(
                    "cms -decrypt -inform DER -in sealed.der -recip {name}.pem -inkey {name}.key -out opened"
                ))
                .await?;
            ensure!(judge.read("opened")? == CONTENT, "{name} by its key, with {cipher:?} {way:?}");
        }
        let signed = sign(
            SignerKey { certificate, key },
            Digest::Sha256,
            oid::CMS_DATA,
            Some(CONTENT),
            &[],
            &[judge.ca.raw()],
        )?;
        judge.write("signed.der", &signed)?;
        let said =
            judge.run("cms -verify -inform DER -in signed.der -CAfile ca.pem -out verified -binary").await?;
        ensure!(said.contains("successful") && judge.read("verified")? == CONTENT, "{name}: {said}");
    }
    let all: Vec<_> = judge.holders.iter().map(|(_, _, certificate)| certificate.raw()).collect();
    judge.write("bag.der", &write_bag(&all, &[]))?;
    let said = judge.run("pkcs7 -inform DER -in bag.der -print_certs -noout").await?;
    let order = (said.find("rsa"), said.find("curve"));
    ensure!(matches!(order, (Some(first), Some(second)) if first < second), "{said}");
    Ok(())
}

#[tokio::test]
async fn we_open_and_verify_what_openssl_writes() -> Result<()> {
    let Some(judge) = Judge::new()? else { return Ok(()) };
    for (name, key, certificate) in &judge.holders {
        for options in encryptions(name) {
            let command = format!("cms -encrypt -binary -outform DER -in content -out sealed.der {options}");
            judge.run(&command).await?;
            let read = EnvelopedData::read(&judge.read("sealed.der")?, Accept::LEGACY)
                .with_context(|| command.clone())?;
            let opened = read.open(key, Some(certificate)).with_context(|| command.clone())?;
            ensure!(*opened == CONTENT, "{command}");
        }
        for options in ["", "-md sha512", "-md sha384 -noattr", "-keyid", "-stream", "-nosmimecap"] {
            let command = format!(
                "cms -sign -nodetach -binary -outform DER -in content -out signed.der -signer {name}.pem \
                 -inkey {name}.key {options}"
            );
            judge.run(&command).await?;
            let read = SignedData::read(&judge.read("signed.der")?).with_context(|| command.clone())?;
            ensure!(read.content.as_deref() == Some(CONTENT), "{command}");
            let signer = read.signer()?;
            ensure!(read.certificate_of(signer) == Some(certificate), "{command}");
            read.verify(signer, certificate.public_key(), Accept::MODERN).with_context(|| command.clone())?;
        }
        judge
            .run(&format!(
                "req -new -key {name}.key -subj /O=Acme/CN=bob -addext subjectAltName=DNS:bob.acme.example,URI:urn:x \
                 -addext keyUsage=digitalSignature -outform DER -out request.der"
            ))
            .await?;
        let csr = Csr::read(&judge.read("request.der")?)?;
        csr.verify(Accept::MODERN)?;
        ensure!(csr.subject().to_string() == "CN=bob,O=Acme", "{}", csr.subject());
        let names = csr.alternative_names().iter().map(ToString::to_string).collect::<Vec<_>>();
        ensure!(names == ["dns:bob.acme.example", "uri:urn:x"], "{names:?}");
    }
    judge.run("crl2pkcs7 -nocrl -certfile rsa.pem -certfile ca.pem -outform DER -out bag.der").await?;
    ensure!(
        Bag::read(&judge.read("bag.der")?)?.certificates == [judge.holders[0].2.clone(), judge.ca.clone()]
    );
    Ok(())
}

/// Options of encryption to a holder. `-stream` writes indefinite lengths and the ciphertext in pieces, `-keyid` names the
/// key instead of the issuer; options of a key follow its certificate.
fn encryptions(name: &str) -> &'static [&'static str] {
    if name == "rsa" {
        &[
            "-aes128 -recip rsa.pem",
            "-aes256 -keyid -recip rsa.pem",
            "-aes-192-cbc -stream -recip rsa.pem",
            "-des3 -recip rsa.pem",
            "-aes256 -recip rsa.pem -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256",
            "-aes256 -recip ca.pem -recip rsa.pem",
        ]
    } else {
        &[
            "-aes256 -aes256-wrap -recip curve.pem -keyopt ecdh_kdf_md:sha256",
            "-aes128 -aes128-wrap -keyid -recip curve.pem -keyopt ecdh_kdf_md:sha256",
            "-aes256 -aes256-wrap -stream -recip rsa.pem -recip curve.pem -keyopt ecdh_kdf_md:sha256",
        ]
    }
}
