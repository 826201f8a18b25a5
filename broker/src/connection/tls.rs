//! What is wrong with an encrypted connection, and what to do about it.

use std::error::Error as _;

use async_nats::rustls::{AlertDescription, CertificateError, Error as Rustls};

/// What a failed handshake means, and the next thing to try; none if it was not about that.
pub(super) fn trouble(error: &async_nats::ConnectError) -> Option<(String, &'static str)> {
    let of_tls = error.kind() == async_nats::ConnectErrorKind::Tls;
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = inner.and_then(|inner| inner.downcast_ref::<Rustls>());
        if let Some(found) = found.or_else(|| error.downcast_ref()) {
            return Some((found.to_string(), hint(found)));
        }
        cause = error.source();
    }
    of_tls.then(|| (error.to_string(), "check the files of --tls-ca, --tls-cert and --tls-key"))
}

fn hint(error: &Rustls) -> &'static str {
    use CertificateError::{NotValidForName, NotValidForNameContext, UnknownIssuer};
    match error {
        Rustls::InvalidCertificate(UnknownIssuer) => {
            "name the certificate of its authority by --tls-ca FILE"
        }
        Rustls::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "name the server by the name that its certificate has"
        }
        Rustls::InvalidCertificate(_) => "renew the server's certificate, or correct --tls-ca FILE",
        Rustls::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied,
        ) => "name a certificate that the server accepts by --tls-cert FILE and --tls-key FILE",
        Rustls::InvalidMessage(_) => {
            "the server may not speak TLS: then leave --tls-ca, --tls-cert and --tls-key out, and use nats://"
        }
        _ => "check the files of --tls-ca, --tls-cert and --tls-key, and the server's",
    }
}
