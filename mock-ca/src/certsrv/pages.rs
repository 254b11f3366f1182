//! Texts of the pages. The marks that clients look for are Windows's, in their places; what surrounds them is not.

use crate::core::Denial;

/// Page title of every one of them.
const TITLE: &str = "Microsoft Active Directory Certificate Services";

fn page(title: &str, body: &str) -> String {
    format!(
        "<HTML>\r\n<Head>\r\n<Title>{TITLE}</Title>\r\n</Head>\r\n<Body BgColor=#FFFFFF>\r\n<P ID=locPageTitle><B>{title}</B>\r\n\
         {body}\r\n</Body>\r\n</HTML>\r\n"
    )
}

pub(super) fn welcome(authority: &str) -> String {
    page("Welcome", &format!("<P>Request a certificate from {}.", escaped(authority)))
}

pub(super) fn mistake(what: &str) -> String {
    page("Error", &format!("<P>{}", escaped(what)))
}

pub(super) fn issued(id: u32) -> String {
    let links = ["b64", "bin"].map(|encoding| {
        format!(
            "<LI><A Href=\"certnew.cer?ReqID={id}&Enc={encoding}\">certificate</A>, \
             <A Href=\"certnew.p7b?ReqID={id}&Enc={encoding}\">chain</A>"
        )
    });
    page(
        "Certificate Issued",
        &format!("<P>The certificate you asked for is ready.\r\n<UL>\r\n{}\r\n</UL>", links.join("\r\n")),
    )
}

pub(super) fn pending(id: u32) -> String {
    page(
        "Certificate Pending",
        &format!(
            "<P>An administrator must approve the request before there is a certificate.\r\n<P>Your Request Id is {id}."
        ),
    )
}

pub(super) fn denied(id: u32, denial: &Denial) -> String {
    page(
        "Certificate Request Denied",
        &format!(
            "<P>Your Request Id is {id}. The disposition message is \"{}\".\r\n<P>Ask your administrator for more.",
            escaped(&disposition(denial))
        ),
    )
}

pub(super) fn no_template() -> String {
    // CERTSRV_E_NO_CERT_TYPE of winerror.h.
    let message =
        "Denied by Policy Module  0x80094801, The request contains no certificate template information.";
    page(
        "Certificate Request Denied",
        &format!("<P>Your Request Id is 0. The disposition message is \"{message}\"."),
    )
}

/// What a link to the file of a request shows while nobody has decided it.
pub(super) fn still_pending(id: u32) -> String {
    no_file(id, "Taken Under Submission", 0x8009_4003)
}

/// What it shows after a refusal.
pub(super) fn was_denied(id: u32, denial: &Denial) -> String {
    no_file(id, &escaped(&disposition(denial)), denial.hresult())
}

/// What it shows for a number nobody has: CERTSRV_E_PROPERTY_EMPTY of winerror.h.
pub(super) fn nothing() -> String {
    page("Error", "<P>The requested property value is empty. 0x80094004 (-2146877436)")
}

fn no_file(id: u32, message: &str, code: u32) -> String {
    // Clients take what stands behind the second tabulator up to the end of the line.
    page(
        "Error",
        &format!(
            "<P>Request Id: {id}\r\n<P><B>Disposition message:</B>\r\n\t\t{message}\r\n<P><B>Result:</B> {code:#010x}"
        ),
    )
}

pub(super) fn authorities(name: &str, renewals: usize) -> String {
    page(
        "Download a CA Certificate, Certificate Chain, or CRL",
        &format!(
            "<Script Language=\"JavaScript\">\r\n\tvar nRenewals={renewals};\r\n</Script>\r\n<P>{}",
            escaped(name)
        ),
    )
}

fn disposition(denial: &Denial) -> String {
    match denial {
        Denial::UnknownTemplate { name } => format!(
            "Denied by Policy Module  {:#010x}, The request was for a certificate template that is not supported by the \
             Active Directory Certificate Services policy: {name}.",
            denial.hresult()
        ),
        // CERTSRV_E_ADMIN_DENIED_REQUEST comes from people, not from the policy module.
        Denial::ByOfficer => format!("Denied by an administrator  {:#010x}", denial.hresult()),
        other => format!("Denied by Policy Module  {:#010x}, {other}.", denial.hresult()),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
